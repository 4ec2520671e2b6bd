"""What disease does to the lungs: how far each lesion fills or empties them, on the part of the scene that is chest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cxr_reason.phantoms.disease import Drawn
from cxr_reason.phantoms.layout import LOBES, SIDES, Layout, Plane, fluid_level, lump_point
from cxr_reason.phantoms.scene import Pen, Scene


def consolidation(scene: Scene, finding: Drawn) -> Plane:
    """How far the lung is filled, 0 to 1: a lobe's cloud with a ragged edge, cut off at its fissure."""
    plan = scene.plan
    side = SIDES[finding.side]
    across, down, wide, tall = LOBES[finding.side, finding.site]
    height = plan.domes[side] - plan.apex
    grown = 0.62 + 0.5 * finding.amount
    at = (
        side * plan.half_width * (across + 0.08 * (finding.place[0] - 0.5)),
        plan.apex + height * (down + 0.06 * (finding.place[1] - 0.5)),
    )
    cloud = scene.cloud(at, (plan.half_width * wide * grown, height * tall * grown))
    rough = scene.mottle(11) + np.float32(0.6) * scene.mottle(26)
    filled: Plane = np.clip((cloud - np.float32(0.33) + np.float32(0.2) * rough) * np.float32(1.9), 0, 1)
    fissure = plan.apex + 0.54 * height
    if finding.side == "right" and finding.site == "upper lobe":
        fall: Plane = np.abs(scene.x) * np.float32(0.03) + np.float32(-fissure)
        filled *= scene.soft(-scene.y - fall, 2)
    if finding.site == "middle lobe":
        filled *= scene.soft(scene.y - np.float32(fissure), 2)
    half = scene.columns(-side)
    filled[:, half] = 0
    dense: Plane = filled * np.float32(0.62 + 0.38 * finding.amount) * (1 - np.float32(0.2) * np.clip(rough, -1, 1))
    return dense


def lump(scene: Scene, finding: Drawn) -> Plane:
    """Depth of a nodule or mass, 1 in its middle."""
    at = lump_point(scene.plan, finding)
    radius = finding.mm / 2
    # A lump smaller than a pixel or two is spread, not lost.
    drawn = max(radius, 0.9 * scene.step)
    ball = scene.ball(at, (drawn, drawn * (0.85 + 0.3 * finding.place[2])), finding.place[2])
    return ball * np.float32((radius / drawn) ** 2)


def fluid(scene: Scene, finding: Drawn, inside: Plane) -> Plane:
    """Share of the depth that fluid takes: up to a meniscus that climbs at the wall, hazy above it."""
    side = SIDES[finding.side]
    level = fluid_level(scene.plan, finding)
    climb = 14 + 34 * math.sqrt(finding.amount) * (1 - 0.5 * finding.amount)
    surface = np.float32(level) - np.float32(climb) * np.exp(-np.clip(inside, 0, 200) * np.float32(1 / 24))
    surface = surface - np.float32(0.3 * climb) * np.exp(-np.clip(np.abs(scene.x) - 20, 0, 200) * np.float32(1 / 16))
    share = scene.soft(scene.y - surface, 12 + 22 * finding.amount) * np.float32(0.93)
    veil = scene.soft(scene.y - np.float32(level - 70), 70) * np.float32(0.14 * finding.amount + 0.03)
    share += veil * (1 - share * np.float32(1 / 0.93))
    share[:, scene.columns(-side)] = 0
    return np.clip(share, 0, 1, out=share)


def pneumothorax(scene: Scene, finding: Drawn, inside: Plane) -> tuple[Plane, Plane]:
    """Where there is air without lung, and the line of the visceral pleura."""
    plan = scene.plan
    side = SIDES[finding.side]
    x, y = plan.hila[side]
    # The lung shrinks towards its hilum, from the apex more than from the base.
    shrink_y = np.where(scene.y < np.float32(y), np.float32(1 / (1 - 0.82 * finding.amount)), np.float32(1))
    yy = (scene.y - np.float32(y)) * shrink_y + np.float32(y)
    xx = (scene.x - np.float32(x)) * np.float32(1 / max(0.22, 1 - finding.amount)) + np.float32(x)
    top = np.maximum(0, 48 - np.abs(xx)) ** 2 * np.float32(0.02) + np.float32(plan.apex)
    margin = np.minimum(plan.wall(yy) - np.abs(xx), yy - top)
    margin = margin + np.float32(3) * scene.mottle(5)
    base = np.clip((np.float32(plan.domes[side] + 30) - scene.y) * np.float32(1 / 40), 0, 1)
    outside = scene.soft(-margin, 3) * scene.soft(inside - 1, 3) * base
    edge = np.exp(-((margin * np.float32(1 / max(1.6, 1.1 * scene.step))) ** 2)) * scene.soft(inside - 3, 3) * base
    for plane in (outside, edge):
        plane[:, scene.columns(-side)] = 0
        plane *= scene.soft(scene.x * side - 22, 8)
    return outside, edge


def collapse(scene: Scene, finding: Drawn) -> Plane:
    """A lobe without air: the right upper one folded up to the mediastinum, a lower one a sail behind the heart."""
    plan = scene.plan
    side = SIDES[finding.side]
    across = scene.x * side
    if finding.site == "upper lobe":
        fissure = np.float32(plan.apex + 0.30 * (plan.domes[side] - plan.apex)) + np.float32(12) * np.exp(
            -(((across - 34) * np.float32(1 / 24)) ** 2)
        )
        shape = scene.soft(fissure - scene.y - across * np.float32(0.20), 4)
    else:
        top = plan.hila[side][1] + 8
        edge = np.float32(24) + (scene.y - np.float32(top)) * np.float32(0.52)
        shape = scene.soft(edge - across, 3) * scene.soft(scene.y - np.float32(top), 8)
    shape = shape * np.float32(0.74)
    shape[:, scene.columns(-side)] = 0
    return shape


def edema(scene: Scene, finding: Drawn) -> Plane:
    """Haze around the hila, in both lungs; in full edema patches of filled lung."""
    plan = scene.plan
    haze = scene.empty()
    for side in (-1, 1):
        x, y = plan.hila[side]
        haze += scene.cloud((x + side * 16, y + 16), (34 + 20 * finding.amount, 58 + 16 * finding.amount))
    patches = np.clip(scene.mottle(18), -1, 1)
    strength = 0.12 + 0.55 * finding.amount**1.2
    rough = np.float32(0.1 + 0.35 * max(0.0, finding.amount - 0.4))
    dense = np.clip(np.float32(strength) * haze * (1 + rough * patches * 1.6), 0, 0.75)
    return dense + np.float32(0.05 * finding.amount)


def strands(scene: Scene, findings: Sequence[Drawn]) -> Plane:
    """What is a line within the lung: bands of atelectasis, Kerley lines; in cm of water."""
    pen = Pen(scene)
    for finding in findings:
        if finding.name == "atelectasis":
            _bands(pen, scene.plan, finding)
        elif finding.name == "pulmonary edema":
            _kerley(pen, scene.plan)
    return pen.plane() * np.float32(2.6)


def _bands(pen: Pen, plan: Layout, finding: Drawn) -> None:
    """One to three bands above the diaphragm."""
    side = SIDES[finding.side]
    for number in range(1 + round(2 * finding.amount)):
        start = plan.half_width * (0.36 + 0.16 * finding.place[0] + 0.07 * number)
        length = 44 + 34 * finding.amount - 8 * number
        y = plan.domes[side] - 8 - 12 * finding.place[1] - 13 * number
        rise = (finding.place[2] - 0.4) * 18
        points = [
            (side * (start + length * t), y - rise * t + 4 * math.sin(3 * t + number)) for t in (0, 0.25, 0.5, 0.75, 1)
        ]
        pen.line(points, 3.0 + 2.2 * finding.amount, 0.62 + 0.3 * finding.amount)


def _kerley(pen: Pen, plan: Layout) -> None:
    """Short lines from the wall inwards, at the bases."""
    for side in (-1, 1):
        for number in range(7):
            y = plan.domes[side] + 14 - 9.0 * number
            wall = float(plan.wall(y)) - 2
            if y < float(plan.dome(side, wall - 14)):
                pen.line([(side * wall, y), (side * (wall - 15), y + 1.5)], 1.2, 0.34)
