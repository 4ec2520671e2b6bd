"""Where everything lies on one film: the chest, its lobes, and the places of what is found there, in mm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr_reason.phantoms.anatomy import Body, Shot
from cxr_reason.phantoms.disease import BORDERLINE, FLAT, Drawn

Plane = NDArray[np.float32]
Point = tuple[float, float]
SIDES = {"right": -1, "left": 1}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie on one film, in mm; `side` is -1 for the patient's right (left on the film), 1 for the left."""

    half_width: float
    apex: float
    domes: dict[int, float]
    """The top of each dome."""
    steep: dict[int, float]
    """How far the costophrenic angle lies below the top of its dome."""
    ratio: float
    """Heart to chest, as it can be measured on the film."""
    heart: tuple[float, float, float, float]
    """Centre and semi-axes of the heart, the first axis along `heart_tilt`."""
    tilt: float
    carina: Point
    hila: dict[int, Point]
    shift: float
    """Of heart and mediastinum, by tension or by volume loss."""

    @property
    def wide(self) -> float:
        """The level at which the chest is widest."""
        return self.apex + 0.62 * (max(self.domes.values()) - self.apex)

    def wall(self, y: Plane | float) -> Plane:
        """Distance of the inner chest wall from the midline at level `y`."""
        up = np.clip((self.wide - np.asarray(y, np.float32)) / (self.wide - self.apex), 0, 1)
        wall: Plane = (48 + (self.half_width - 48) * (1 - up**2.1) ** 0.5).astype(np.float32)
        return wall

    def dome(self, side: int, across: Plane | float) -> Plane:
        """Level of the diaphragm at distance `across` from the midline."""
        far = (np.asarray(across, np.float32) - 0.46 * self.half_width) / (0.54 * self.half_width)
        inner = np.clip(-far, 0, 1) ** 2 * 13
        outer = np.clip(far, 0, 1.2) ** 2.3 * self.steep[side]
        level: Plane = (self.domes[side] + inner + outer).astype(np.float32)
        return level


def layout(body: Body, shot: Shot, findings: Iterable[Drawn]) -> Layout:
    """Where everything lies on the film `shot` of `body` with `findings`."""
    found = list(findings)
    height = body.height * (0.3 + 0.7 * shot.inspiration)
    apex = 0.46 * shot.field - 0.5 * (height + 50)
    domes = {-1: apex + height, 1: apex + height + body.dome_step}
    steep = {-1: 46.0, 1: 48.0}
    shift = 0.0
    ratio = body.heart_ratio * shot.magnification * (1 + 0.3 * (1 - shot.inspiration))
    ratio = min(ratio, FLAT[shot.view] - BORDERLINE - 0.012)
    for finding in found:
        side = SIDES.get(finding.side, 0)
        match finding.name:
            case "cardiomegaly":
                ratio = finding.amount
            case "pneumothorax" if finding.tension:
                shift -= side * 17
                domes[side] += 14
                steep[side] = 26
            case "pleural effusion" if finding.amount > 0.62:
                shift -= side * 26 * (finding.amount - 0.62)
            case "lobar collapse":
                shift += side * 9
                domes[side] -= 13
    width = ratio * body.half_width
    cosine, sine = math.cos(body.heart_tilt), math.sin(body.heart_tilt)
    shape = 0.64
    long_axis = width / math.sqrt(cosine**2 + (shape * sine) ** 2)
    tall = long_axis * math.sqrt(sine**2 + (shape * cosine) ** 2)
    front = shot.turn + shift
    heart = (width * 0.38 + front, domes[1] + 13 - tall, long_axis, shape * long_axis)
    carina = (shift * 0.8 + 0.3 * shot.turn, apex + 0.43 * height)
    return Layout(
        half_width=body.half_width,
        apex=apex,
        domes=domes,
        steep=steep,
        ratio=ratio,
        heart=heart,
        tilt=body.heart_tilt,
        carina=carina,
        hila={side: (side * 36 + 0.5 * front, apex + (0.53 if side < 0 else 0.49) * height) for side in (-1, 1)},
        shift=front,
    )


def fracture_point(plan: Layout, finding: Drawn) -> Point:
    """Where the break lies, in mm: in the lateral part of a middle rib."""
    y = plan.apex + (0.42 + 0.4 * finding.place[1]) * (plan.domes[-1] - plan.apex)
    return SIDES[finding.side] * float(plan.wall(y)) * (0.78 + 0.12 * finding.place[0]), y


LOBES: dict[tuple[str, str], tuple[float, float, float, float]] = {
    # Of each lobe as it lies on a frontal film: its middle, across as a share of the half width and down as a share of
    # the lung's height, and its half axes in the same measures.
    ("right", "upper lobe"): (0.52, 0.30, 0.46, 0.28),
    ("right", "middle lobe"): (0.32, 0.74, 0.46, 0.21),
    ("right", "lower lobe"): (0.58, 0.92, 0.44, 0.30),
    ("left", "upper lobe"): (0.54, 0.36, 0.42, 0.33),
    ("left", "lower lobe"): (0.48, 0.90, 0.42, 0.30),
}
HEIGHTS = {"upper lung": 0.24, "mid lung": 0.5, "lower lung": 0.77}


def lump_point(plan: Layout, finding: Drawn) -> Point:
    """Where a nodule or mass lies, in mm: clear of the heart and of the wall."""
    side = SIDES[finding.side]
    y = plan.apex + (HEIGHTS[finding.site] + 0.16 * (finding.place[1] - 0.5)) * (plan.domes[side] - plan.apex)
    wall = float(plan.wall(y)) - finding.mm / 2 - 6
    x, _, _, _ = plan.heart
    inner = 46.0 + finding.mm / 2
    if finding.site == "lower lung":
        inner = max(inner, side * x + plan.ratio * plan.half_width + finding.mm / 2 - 8)
    inner = min(inner, wall - 6)
    return side * (inner + finding.place[0] * (wall - inner)), y


def fluid_level(plan: Layout, finding: Drawn) -> float:
    """The level that the fluid reaches beside the heart, in mm from the upper edge."""
    side = SIDES[finding.side]
    floor = plan.domes[side] + plan.steep[side]
    return floor - 14 - finding.amount * 0.86 * (floor - plan.apex)
