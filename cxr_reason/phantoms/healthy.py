"""The body without disease: what each part is in the beam, as a share of the depth or in cm of water."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cxr_reason.phantoms.anatomy import Body, Shot
from cxr_reason.phantoms.disease import Drawn
from cxr_reason.phantoms.layout import SIDES, Layout, Plane, Point, fracture_point
from cxr_reason.phantoms.scene import Pen, Scene


def lungs(scene: Scene) -> tuple[Plane, Plane]:
    """How much of the chest's depth is lung, 0 to 1, and the distance to the chest wall in mm, negative outside."""
    plan, y = scene.plan, scene.y
    across = np.abs(scene.x)
    inside = plan.wall(y) - across
    # The top of the lung falls towards the midline.
    top = np.maximum(0, 48 - across) ** 2 * np.float32(0.028) + np.float32(plan.apex)
    inside = np.minimum(inside, (y - top) * np.float32(1.1))
    deep = np.sqrt(np.clip(inside * np.float32(1 / 62), 0, 1) * (2 - np.clip(inside * np.float32(1 / 62), 0, 1)))
    deep *= scene.soft(across - 17, 10)
    for side in (-1, 1):
        half = scene.columns(side)
        above = plan.dome(side, across[:, half]) - y
        behind = np.clip(above * np.float32(1 / 55) + 1, 0, 1) * np.float32(0.16)  # the sulcus behind the dome
        front = np.float32(0.62) + np.float32(0.38) * np.clip(above * np.float32(1 / 45), 0, 1)
        deep[:, half] *= behind + (front - behind) * scene.soft(above, 2)
    return deep, inside


def torso(scene: Scene, body: Body) -> Plane:
    """Depth of the body in cm."""
    plan = scene.plan
    y = scene.y[:, 0]
    flank = plan.half_width + body.fat
    levels = [-80, plan.apex - 42, plan.apex - 22, plan.apex + 8, plan.apex + 50, plan.apex + 105, plan.apex + 160, 600]
    widths = [54, 58, 78, 190, 245, flank + 26, flank, flank + 6]
    half = np.interp(y, levels, widths).astype(np.float32)[:, None]
    low = plan.domes[1]
    depth = np.interp(
        y,
        [plan.apex - 40, plan.apex + 10, plan.apex + 90, low, low + 70],
        [12.5, 17.5, body.depth, body.depth, body.depth + 3.5],
    ).astype(np.float32)[:, None]
    edge = np.clip(np.abs(scene.x) / half, 0, 1)
    through: Plane = depth * np.sqrt(1 - edge**3)
    return through


def heart(scene: Scene) -> Plane:
    x, y, long_axis, short_axis = scene.plan.heart
    return scene.ball((x, y), (long_axis, short_axis), scene.plan.tilt)


def mediastinum(scene: Scene, body: Body) -> Plane:
    """Depth of heart, great vessels and what lies between the lungs, as a share of the chest's depth."""
    plan, shift = scene.plan, scene.plan.shift
    low = plan.heart[1]
    levels = [plan.apex - 30, plan.apex + 10, plan.carina[1], low]
    right = np.interp(scene.y[:, 0], levels, [30, 26, 26, 34]).astype(np.float32)[:, None]
    # On the left the outline runs from the knob over the pulmonary trunk down to the heart.
    knob, waist, hip = plan.carina[1] - 16, plan.carina[1] + 12, low - 0.3 * plan.heart[3]
    edge = plan.heart[0] + 0.72 * plan.ratio * plan.half_width
    left = np.interp(
        scene.y[:, 0],
        [plan.apex - 30, plan.apex + 10, knob - 16, knob, waist, hip, low],
        [30, 23, 24, 27, 31, max(34, edge), max(34, edge)],
    ).astype(np.float32)[:, None]
    x = scene.x - np.float32(shift * 0.8)
    column = np.clip(np.minimum(x + right, left - x) * np.float32(1 / 8), 0, 1)
    column *= scene.soft(np.float32(low + 20) - scene.y, 30) * np.float32(0.12) + np.float32(0.88)
    column = np.sqrt(column) * np.float32(0.74)
    arch = (plan.carina[0] + 21.0, plan.carina[1] - 15)
    column = np.maximum(column, np.sqrt(scene.ball(arch, (body.knob, body.knob * 1.1))) * np.float32(0.72))
    trunk = (shift * 0.9 + 25.0, plan.carina[1] + 20)
    column = np.maximum(column, np.sqrt(scene.ball(trunk, (14, 30))) * np.float32(0.66))
    atrium = (plan.heart[0] - 0.62 * plan.ratio * plan.half_width, plan.heart[1] + 4)
    column = np.maximum(column, np.sqrt(scene.ball(atrium, (0.3 * plan.ratio * plan.half_width, 36))) * np.float32(0.7))
    whole: Plane = np.maximum(column, np.sqrt(heart(scene)) * np.float32(0.86))
    return whole


def trachea(scene: Scene) -> Plane:
    """Air in the trachea and the main bronchi, in cm."""
    x, low = scene.plan.carina
    where, near = scene.crop(x - 50, x + 50, -50, low + 40)
    at = np.interp(near.y[:, 0], [low - 110, low - 30, low], [x * 0.3, x * 0.8, x]).astype(np.float32)[:, None]
    tube = np.sqrt(np.maximum(0, 1 - ((near.x - at) * np.float32(1 / 8.5)) ** 2)) * near.soft(low - near.y, 6)
    for side, fall, reach in ((-1, 0.95, 28.0), (1, 0.62, 38.0)):
        out = (near.x - np.float32(x)) * side
        off = (near.y - np.float32(low) - out * np.float32(fall)) * np.float32(1 / math.hypot(1, fall) / 5.5)
        inside = np.sqrt(np.maximum(0, 1 - off * off))
        inside *= np.clip(out * np.float32(0.3), 0, 1) * np.clip((reach - out) * np.float32(0.12), 0, 1)
        tube = np.maximum(tube, inside * np.float32(0.8))
    air = scene.empty()
    air[where] = tube * np.float32(1.9)
    return air


def ribs(scene: Scene, body: Body, findings: Sequence[Drawn]) -> Plane:
    """The ribs, in cm of water."""
    plan = scene.plan
    x, y = scene.x, scene.y
    level = y
    for finding in findings:
        if finding.name == "rib fracture":
            level = level + _break(scene, finding)
    across = np.abs(x) / (plan.wall(y) + np.float32(2))
    bent = across * across
    bent *= bent
    step = body.rib_step
    first, last = plan.apex - 8, plan.domes[1] + 62
    # Behind, ribs fall gently from the spine and turn down at the wall; in front they fall on towards the midline.
    back = level - (np.float32(first) + across * np.float32(8) + bent * np.float32(26))
    bones = _bars(scene, back, step, 6.2) * np.float32(1.35)
    bones *= np.clip((1.03 - across) * np.float32(12), 0, 1)
    front = level - (np.float32(first + 0.62 * step) + (1 - across) * np.float32(0.5 * plan.half_width))
    bars = _bars(scene, front, step, 7.4) * np.float32(0.85)
    bars *= np.clip((1.03 - across) * np.float32(12), 0, 1) * np.clip((across - np.float32(0.42)) * 4, 0, 1)
    bones += bars
    bones *= np.clip((y - np.float32(first)) * np.float32(0.08), 0, 1) * np.clip(
        (np.float32(last) - y) * np.float32(0.05), 0, 1
    )
    return bones


def _bars(scene: Scene, along: Plane, step: float, half: float) -> Plane:
    """Bars of half width `half` mm, one every `step`: hollow, so brighter at their edges."""
    turns = along * np.float32(1 / step)
    off = np.abs(turns - np.rint(turns)) * np.float32(step)
    inside = scene.soft(np.float32(half) - off, 1.2)
    bars: Plane = inside * (np.float32(0.55) + off * off * np.float32(0.6 / half**2))
    return bars


def _break(scene: Scene, finding: Drawn) -> Plane:
    """A step in the ribs around a break, as what is added to the level."""
    at = fracture_point(scene.plan, finding)
    out = (scene.x - np.float32(at[0])) * SIDES[finding.side]
    step: Plane = scene.cloud(at, (15, 11)) * np.where(out > 0, np.float32(9), np.float32(-3.5))
    return step


def add_spine(scene: Scene, bones: Plane) -> None:
    where, near = scene.crop(-22, 22, -1e3, 1e3)
    x = np.abs(near.x)
    column = np.clip((np.float32(21) - x) * np.float32(1 / 9), 0, 1)
    turns = (near.y - np.float32(near.plan.apex)) * np.float32(1 / 24)
    disc = np.abs(turns - np.rint(turns)) * 24
    body = np.float32(0.55) + np.float32(0.45) * np.clip((disc - 3) * np.float32(0.5), 0, 1)
    pedicle = np.exp(-(((x - 11) * np.float32(1 / 3)) ** 2)) * np.exp(-(((disc - 7) * np.float32(1 / 3)) ** 2))
    bones[where] += column * body + pedicle * np.float32(0.5)


def add_shoulders(scene: Scene, shot: Shot, bones: Plane) -> None:
    """Clavicles, shoulder blades and the heads of the upper arms."""
    plan = scene.plan
    rise = 16.0 if shot.view == "PA" else 30.0
    middle = plan.apex + 27
    where, near = scene.crop(-1e3, 1e3, middle - rise - 24, middle + 20)
    across = np.abs(near.x - np.float32(-0.6 * shot.turn)) - 14
    reach = np.clip(across * np.float32(1 / (plan.half_width + 6)), 0, 1.2)
    line = np.float32(middle) - np.float32(rise) * reach - np.float32(9) * np.sin(reach * np.float32(6.2))
    off = np.abs(near.y - line)
    width = np.float32(5) + 3 * np.clip(1 - across * np.float32(1 / 18), 0, 1)
    clavicle = near.soft(width - off, 1.5) * (np.float32(0.94) + off * off * np.float32(0.0175))
    bones[where] += clavicle * (
        np.clip(across * np.float32(0.3), 0, 1) * np.clip((np.float32(1.08) - reach) * 20, 0, 1)
    )
    inner = plan.half_width - shot.scapula + 14
    for side in (-1, 1):
        left, right = sorted((side * (inner - 2), side * (inner + 82)))
        where, near = scene.crop(left, right, plan.apex + 12, plan.apex + 130)
        down = (near.y - np.float32(plan.apex + 12)) * np.float32(1 / 118)
        out = near.x * side - (np.float32(inner) + np.float32(16) * (down - np.float32(0.4)) ** 2)
        there = np.clip(down * 9, 0, 1) * np.clip((1 - down) * 7, 0, 1)
        border = np.float32(0.35) + np.float32(0.7) * np.exp(-((out * np.float32(0.3)) ** 2))
        blade = near.soft(out, 1.5) * there * border
        bones[where] += blade * np.clip((np.float32(52) * (1 - down) + 12 - out) * np.float32(0.1), 0, 1)
        bones += scene.ball((side * (plan.half_width + 42), plan.apex + 22), (25, 26)) * np.float32(1.7)


def vessels(scene: Scene, body: Body, congestion: float) -> Plane:
    """The tree of the lung vessels in [0, 1]: wider and reaching further with `congestion`."""
    pen = Pen(scene)
    rng = np.random.default_rng(body.vessels)
    for side in (-1, 1):
        for paths, widths in reversed(_tree(rng, scene.plan.hila[side], side, congestion)):
            for path, width in zip(paths.tolist(), widths.tolist(), strict=True):
                pen.line(path, width, 0.12 + 0.105 * width)
        x, y = scene.plan.hila[side]
        trunk = [(x - side * 3, y - 14), (x + side * 4, y + 4), (x + side * 7, y + 34)]
        wide = 10 * (1 + 0.25 * congestion)
        pen.line(trunk, wide, 0.8)
        for at in trunk:
            pen.dot(at, wide / 2, 0.8)
    return pen.plane()


def _tree(
    rng: Generator, hilum: Point, side: int, congestion: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The vessels of one lung by generations from the hilum: their paths, (count, 4, 2) in mm, and their widths.

    Angles are measured from straight outwards, positive downwards.
    """
    angle = np.linspace(-1.25, 1.35, 9) + rng.normal(0, 0.1, 9)
    upper = angle < 0
    width = np.where(upper, 3.9 * (1 + 1.1 * congestion), 5.4 * (1 + 0.35 * congestion)) * rng.uniform(0.75, 1.1, 9)
    length = (62 + 22 * np.abs(angle)) * rng.uniform(0.85, 1.15, 9)
    start = np.tile(np.array(hilum), (9, 1))
    generations = []
    for forks in (FORKS, FORKS[1:], ()):
        bend = rng.normal(0, 0.22, len(angle))
        turns = angle[:, None] + bend[:, None] * np.arange(3)
        steps = np.stack([side * np.cos(turns), np.sin(turns)], axis=-1) * (length / 3)[:, None, None]
        paths = np.concatenate([start[:, None], start[:, None] + np.cumsum(steps, axis=1)], axis=1)
        generations.append((paths, width * 0.85))
        count = (len(angle), len(forks))
        part = [part for part, _ in forks]
        turn = np.array([turn for _, turn in forks])
        start = paths[:, part].reshape(-1, 2)
        angle = (angle[:, None] + turn * rng.uniform(0.3, 0.75, count)).ravel()
        width = (width[:, None] * rng.uniform(0.42, 0.62, count)).ravel()
        length = (length[:, None] * rng.uniform(0.55, 0.8, count)).ravel()
    return generations


FORKS = ((1, -1), (2, 1), (3, -1), (3, 1))
"""Where along a vessel another leaves it, in thirds, and to which side."""


def soft_tissue(scene: Scene, body: Body, plan: Layout) -> Plane:
    """Breasts, skin and muscle over the chest."""
    extra = scene.empty()
    for side in (-1, 1) if body.breast else ():
        at = (side * 0.62 * plan.half_width, plan.apex + 0.78 * body.height - 10)
        far = body.breast
        where, near = scene.crop(at[0] - far, at[0] + far, at[1] - 1.7 * far, at[1] + far)
        x, y = near.x - np.float32(at[0]), near.y - np.float32(at[1])
        reach = np.sqrt(x * x + np.where(y < 0, np.float32(0.35), np.float32(1)) * y * y) * np.float32(1 / far)
        fold = np.sqrt(np.clip(1 - reach, 0, 1))
        extra[where] += fold * (np.float32(1.2) + np.float32(1.5) * np.clip(y * np.float32(1 / far), 0, 1))
    # Pectoral muscle over the upper lung, and the fold of the armpit.
    for side in (-1, 1):
        at = (side * 0.72 * plan.half_width, plan.apex + 58)
        extra += scene.cloud(at, (42, 46)) * np.float32(0.9)
    return extra


def stomach(scene: Scene, body: Body) -> Plane:
    """Gas in the stomach under the left dome, and now and then in the colon, in cm."""
    rng = np.random.default_rng(body.vessels + 1)
    top = scene.plan.domes[1] + 13
    wide, tall = rng.uniform(18, 36), rng.uniform(9, 20)
    x = rng.uniform(46, 72)
    gas = scene.ball((x, top + tall), (wide, tall)) * np.float32(rng.uniform(3, 9))
    gas = gas * scene.soft(np.float32(top + tall * rng.uniform(1.1, 1.6)) - scene.y, 1)
    for _ in range(int(rng.integers(0, 5))):
        at = (x + rng.uniform(0, 50), top + rng.uniform(30, 80))
        gas = np.maximum(gas, scene.ball(at, (rng.uniform(7, 15), rng.uniform(6, 13))) * np.float32(rng.uniform(2, 5)))
    return gas
