"""Where in a lung a site lies: by its height, the one thing of a site that is compared."""

from __future__ import annotations

from cxr_reason.radiology.lexicon import LEXICON

_HEIGHTS: dict[str, str] = {site: height for height, sites in LEXICON.data["heights"].items() for site in sites}


def height(site: str | None) -> str | None:
    """upper, mid or lower; None for a site that may be at any height, and for none."""
    return _HEIGHTS.get(site or "")


def same_height(site: str | None, other: str | None) -> bool:
    """Whether two sites are one, or lie at one height of the lung; no site is at none."""
    return _HEIGHTS.get(site or "", site) == _HEIGHTS.get(other or "", other)


def same_place(site: str | None, other: str | None) -> bool:
    """Whether two reports may speak of the same place on one side; who names none may mean any."""
    return site is None or other is None or same_height(site, other)
