"""Tubes, lines and wires: how each of them runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cxr_reason.phantoms.disease import Drawn
from cxr_reason.phantoms.layout import SIDES, Layout, Plane
from cxr_reason.phantoms.scene import Pen, Scene, smooth


def _tube(pen: Pen, plan: Layout, finding: Drawn) -> None:
    """An endotracheal tube: its tip stands `mm` above the carina, below it (in the right main bronchus) if negative."""
    x, y = plan.carina
    tip = y - finding.mm
    above = [(x * 0.4 - 1, -40.0), (x * 0.6, y - 80), (x, min(tip, y) - 4)]
    points = (
        [*above, (x, tip)] if finding.mm >= 0 else [*above, (x, y - 3), (x + finding.mm * 0.72, y - finding.mm * 0.75)]
    )
    for off in (-3.4, 3.4):
        pen.line([(px + off, py) for px, py in points], 0.9, 0.5)
    pen.line([(px + 1.5, py) for px, py in points], 1.3, 0.8)


def _catheter(pen: Pen, plan: Layout, finding: Drawn) -> None:
    """A central line from the neck or from under the left clavicle; its tip lies `mm` below the carina."""
    x, y = plan.carina
    low = (-22.0 + x, y + finding.mm)
    if finding.side == "left":
        start = [(plan.half_width * 0.8, plan.apex + 40), (66.0, plan.apex + 24), (34.0, plan.apex + 30)]
        points = [*start, (4.0, y - 36), (-16.0 + x, y - 16), low]
    else:
        points = [(-46.0, -30.0), (-40.0, plan.apex - 20), (-27.0, plan.apex + 20), (-24.0 + x, y - 30), low]
    pen.line(smooth(points), 2.0, 0.62)


def _enteric(pen: Pen, plan: Layout, finding: Drawn) -> None:
    """A tube down the gullet into the stomach, off the midline to the left at its end."""
    x, y = plan.carina
    low = plan.domes[1]
    points = [(3.0, -40.0), (4.0, y - 60), (x * 0.7 + 3, y), (6.0, low - 12), (20.0, low + 24), (52.0, low + 44)]
    pen.line(smooth(points), 2.2, 0.55)


def _pacemaker(pen: Pen, plan: Layout, finding: Drawn) -> None:
    """A generator below the clavicle, and leads to the right atrium and the right ventricle."""
    side = SIDES[finding.side]
    box = (side * plan.half_width * 0.72, plan.apex + 46 + 14 * finding.place[1])
    pen.box(box, (44, 38), 12, 1.0)
    pen.box((box[0], box[1] - 22), (22, 12), 3, 0.7)
    x, y, long_axis, short_axis = plan.heart
    hub = (box[0] - side * 14, box[1] - 24)
    down = [(side * 40.0, plan.apex + 24), (side * 12.0 - 4, plan.carina[1] - 42), (-20.0 + plan.shift, plan.carina[1])]
    atrium = (x - 0.74 * plan.ratio * plan.half_width, y - 4)
    ventricle = (x + 0.55 * long_axis, y + 0.62 * short_axis)
    pen.line(smooth([hub, *down, (atrium[0] + 2, y + 14), (atrium[0] - 1, y + 6), atrium]), 1.5, 0.85)
    pen.line(smooth([hub, *down, (-22.0 + plan.shift, y), (x - 8, y + 0.75 * short_axis), ventricle]), 1.5, 0.85)
    pen.line([(ventricle[0] - 7, ventricle[1] - 1), ventricle], 2.6, 1.0)


def _drain(pen: Pen, plan: Layout, finding: Drawn) -> None:
    """A chest tube from the side up to the apex, or down to the base."""
    side = SIDES[finding.side]
    low = plan.domes[side]
    wall = float(plan.wall(low - 30))
    end = (side * 44.0, plan.apex + 34) if finding.site == "apex" else (side * 56.0, low - 2)
    middle = (side * (wall - 30), (low - 40 + end[1]) / 2 + (0 if finding.site == "apex" else 14))
    points = [(side * (wall + 60), low + 4), (side * (wall + 4), low - 26), middle, end]
    pen.line(smooth(points), 5.2, 0.26)
    pen.line(smooth([(x + 1.8, y) for x, y in points]), 1.4, 0.75)


def _wires(pen: Pen, plan: Layout, finding: Drawn) -> None:
    """Loops of wire down the breastbone."""
    for number in range(6):
        y = plan.carina[1] - 42 + 25 * number
        x = plan.shift * 0.9 + 2 * math.sin(2.4 * number)
        points = [(x + 8 * math.cos(t), y + 4.5 * math.sin(t)) for t in np.linspace(0.3, 5.6, 9)]
        pen.line([*points, (x + 11, y - 3)], 1.2, 0.9)


TUBES = {
    "endotracheal tube": _tube,
    "central venous catheter": _catheter,
    "enteric tube": _enteric,
    "pacemaker": _pacemaker,
    "chest tube": _drain,
    "sternotomy wires": _wires,
}


def tubes(scene: Scene, findings: Sequence[Drawn]) -> Plane:
    """Tubes, wires and what else was put in, in cm of water."""
    pen = Pen(scene)
    for finding in findings:
        if finding.name in TUBES:
            TUBES[finding.name](pen, scene.plan, finding)
    return pen.plane() * np.float32(4.2)
