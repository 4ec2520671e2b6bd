"""Phantoms: made-up chest radiographs whose findings are known because they were drawn, with a written report.

``study(seed, index)`` gives one with its film, ``case`` the same without pixels, ``draw`` a film of your own making.
They serve to try the tools and to see whether a model learns to look; they prove nothing about real films. Needs numpy
and Pillow (``pip install 'cxr-reason[films]'``); importing this package imports both.
"""

from cxr_reason.phantoms.disease import NAMES, Drawn
from cxr_reason.phantoms.film import draw
from cxr_reason.phantoms.studies import SIZE, Case, Study, blank, case, cases, study

__all__ = ["NAMES", "SIZE", "Case", "Drawn", "Study", "blank", "case", "cases", "draw", "study"]
