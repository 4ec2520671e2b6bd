"""A film of a body: where everything lies, what it takes out of the beam, and how the detector shows it.

The beam crosses a body of water as deep as `_body` says. Lungs take water away; heart, vessels, fluid and whatever
else is solid take lung away; bone adds. So findings lie over one another as they do on a film: a consolidation in front
fills the lung beside the heart and the border goes, one behind leaves it. Attenuation is summed along the beam (the
logarithm of what arrives), shown between a darkest and a brightest value, and blurred and made noisy at the end.

All shapes are smooth functions of the two axes, so that edges are as sharp as a pixel; what has branches (vessels,
tubes) is drawn as lines by Pillow at twice the size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxr_reason.phantoms.anatomy import Body, Shot
from cxr_reason.phantoms.disease import BORDERLINE, FLAT, Drawn

Plane = NDArray[np.float32]
Point = tuple[float, float]

SIDES = {"right": -1, "left": 1}
LUNG = 0.28
"""Density of air-filled lung; 1 is water."""
MARGIN = 1.14
"""The scene is this much wider than the film, so that a tilted patient still fills it."""


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
        return (48 + (self.half_width - 48) * (1 - up**2.1) ** 0.5).astype(np.float32)

    def dome(self, side: int, across: Plane | float) -> Plane:
        """Level of the diaphragm at distance `across` from the midline."""
        far = (np.asarray(across, np.float32) - 0.46 * self.half_width) / (0.54 * self.half_width)
        inner = np.clip(-far, 0, 1) ** 2 * 13
        outer = np.clip(far, 0, 1.2) ** 2.3 * self.steep[side]
        return (self.domes[side] + inner + outer).astype(np.float32)


def layout(body: Body, shot: Shot, findings: Iterable[Drawn]) -> Layout:
    """Where everything lies on the film `shot` of `body` with `findings`."""
    found = list(findings)
    height = body.height * (0.5 + 0.5 * shot.inspiration)
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
    shape = 0.74
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


@dataclass(slots=True)
class Scene:
    """The grid of one film and what has been worked out on it."""

    plan: Layout
    step: float
    """Millimetres a pixel."""
    x: Plane
    y: Plane
    rng: Generator

    @property
    def count(self) -> int:
        return int(self.x.shape[1])

    def soft(self, inside: Plane, width: float) -> Plane:
        """1 where `inside` (mm) is positive, 0 where it is negative, over `width` mm or a pixel, if that is more."""
        width = max(width, 1.4 * self.step)
        return np.clip(inside * np.float32(1 / width) + np.float32(0.5), 0, 1)

    def columns(self, side: int) -> slice:
        """The columns of one half of the chest."""
        middle = self.count // 2
        return slice(0, middle) if side < 0 else slice(middle, self.count)

    def ball(self, at: Point, radii: Point, angle: float = 0.0) -> Plane:
        """Depth of an ellipsoid, 1 in its middle, 0 outside."""
        x, y = self.x - np.float32(at[0]), self.y - np.float32(at[1])
        if angle:
            cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
            x, y = x * cosine + y * sine, y * cosine - x * sine
        return np.sqrt(np.maximum(0, 1 - (x * np.float32(1 / radii[0])) ** 2 - (y * np.float32(1 / radii[1])) ** 2))

    def cloud(self, at: Point, radii: Point) -> Plane:
        """A bell without an edge, 1 in its middle."""
        across = np.exp(-(((self.x - np.float32(at[0])) / np.float32(radii[0])) ** 2))
        along = np.exp(-(((self.y - np.float32(at[1])) / np.float32(radii[1])) ** 2))
        return across * along

    def mottle(self, cells: int) -> Plane:
        """Smooth noise in [-1, 1] or a little beyond, with about `cells` lumps across the scene."""
        coarse = self.rng.standard_normal((cells, cells), dtype=np.float32) * np.float32(0.6)
        return np.asarray(Image.fromarray(coarse).resize((self.count, self.count), Image.Resampling.BICUBIC))


class Pen:
    """Lines of a given thickness in mm, drawn at twice the size and brought down."""

    def __init__(self, scene: Scene) -> None:
        self._scale = 2 / scene.step
        self._half = scene.count  # half of the doubled width
        self._top = float(scene.y[0, 0]) - scene.step / 2
        self._image = Image.new("L", (2 * scene.count, 2 * scene.count))
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Point], width: float, ink: float) -> None:
        """`ink` in [0, 1] is how much the line takes out of the beam; a line thinner than a pixel takes less."""
        wide = width * self._scale
        tone = int(255 * min(1.0, ink * min(1.0, wide)))
        placed = [(x * self._scale + self._half, (y - self._top) * self._scale) for x, y in points]
        self._draw.line(placed, fill=tone, width=max(1, round(wide)), joint="curve" if wide > 3 else None)

    def dot(self, at: Point, radius: float, ink: float) -> None:
        x, y = at[0] * self._scale + self._half, (at[1] - self._top) * self._scale
        reach = radius * self._scale
        self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=int(255 * ink))

    def box(self, at: Point, size: Point, round_off: float, ink: float) -> None:
        x, y = at[0] * self._scale + self._half, (at[1] - self._top) * self._scale
        wide, tall = size[0] / 2 * self._scale, size[1] / 2 * self._scale
        self._draw.rounded_rectangle(
            (x - wide, y - tall, x + wide, y + tall), radius=round_off * self._scale, fill=int(255 * ink)
        )

    def plane(self) -> Plane:
        """What was drawn, in [0, 1]."""
        return np.asarray(self._image.reduce(2), dtype=np.float32) * np.float32(1 / 255)


def draw(body: Body, shot: Shot, findings: Sequence[Drawn], *, rng: Generator, size: int = 224) -> NDArray[np.uint8]:
    """The film as grey levels, (size, size), air black.

    `rng` decides texture and noise; vessels grow from the body's own seed, so that they are the same on another film.
    """
    scene = _scene(layout(body, shot, findings), shot.field, size, rng)
    attenuation = _attenuation(scene, body, shot, findings)
    return _develop(attenuation, scene, shot, size)


def heart_mask(body: Body, shot: Shot, findings: Sequence[Drawn], *, size: int = 224) -> NDArray[np.bool_]:
    """Where the heart lies in the scene, before the film is tilted; for measuring, as the lungs' of `lung_mask`."""
    scene = _scene(layout(body, shot, findings), shot.field, size, np.random.default_rng(0))
    return _heart(scene) > 0


def lung_mask(body: Body, shot: Shot, findings: Sequence[Drawn], *, size: int = 224) -> NDArray[np.bool_]:
    """Where there is lung in the scene, behind the heart too."""
    scene = _scene(layout(body, shot, findings), shot.field, size, np.random.default_rng(0))
    return _lungs(scene)[0] > 0.35


def _scene(plan: Layout, field: float, size: int, rng: Generator) -> Scene:
    step = field / size
    count = 2 * round(size * MARGIN / 2)
    steps = (np.arange(count, dtype=np.float32) + np.float32(0.5 - count / 2)) * np.float32(step)
    return Scene(plan, step, steps[None, :], steps[:, None] + np.float32(field / 2), rng)


# ----------------------------------------------------------------------------------------------------- the healthy body


def _lungs(scene: Scene) -> tuple[Plane, Plane]:
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
        deep[:, half] *= (
            np.where(above > 0, front, behind) if scene.step > 3 else _mix(behind, front, scene.soft(above, 2))
        )
    return deep, inside


def _mix(low: Plane, high: Plane, share: Plane) -> Plane:
    return low + (high - low) * share


def _body(scene: Scene, body: Body) -> Plane:
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
        [11.5, 14, body.depth, body.depth, body.depth + 2.5],
    ).astype(np.float32)[:, None]
    edge = np.clip(np.abs(scene.x) / half, 0, 1)
    return depth * np.sqrt(1 - edge**3)


def _heart(scene: Scene) -> Plane:
    x, y, long_axis, short_axis = scene.plan.heart
    return scene.ball((x, y), (long_axis, short_axis), scene.plan.tilt)


def _mediastinum(scene: Scene, body: Body) -> Plane:
    """Depth of heart, great vessels and what lies between the lungs, as a share of the chest's depth."""
    plan, shift = scene.plan, scene.plan.shift
    low = plan.heart[1]
    levels = [plan.apex - 30, plan.apex + 10, plan.carina[1], low]
    right = np.interp(scene.y[:, 0], levels, [26, 24, 27, 33]).astype(np.float32)[:, None]
    left = np.interp(scene.y[:, 0], levels, [28, 23, 24, 30]).astype(np.float32)[:, None]
    x = scene.x - np.float32(shift * 0.8)
    column = np.clip(np.minimum(x + right, left - x) * np.float32(1 / 9), 0, 1)
    column = np.sqrt(column) * np.float32(0.62)
    arch = (plan.carina[0] + 21.0, plan.carina[1] - 15)
    column = np.maximum(column, scene.ball(arch, (body.knob, body.knob * 1.1)) * np.float32(0.6))
    trunk = (shift * 0.9 + 25.0, plan.carina[1] + 20)
    column = np.maximum(column, scene.ball(trunk, (13.5, 21)) * np.float32(0.5))
    atrium = (plan.heart[0] - 0.62 * plan.ratio * plan.half_width, plan.heart[1] + 4)
    column = np.maximum(column, scene.ball(atrium, (0.3 * plan.ratio * plan.half_width, 34)) * np.float32(0.4))
    return np.maximum(column, np.sqrt(_heart(scene)) * np.float32(0.72))


def _trachea(scene: Scene) -> Plane:
    """Air in the trachea and the main bronchi, in cm."""
    x, low = scene.plan.carina
    at = np.interp(scene.y[:, 0], [low - 110, low - 30, low], [x * 0.3, x * 0.8, x]).astype(np.float32)[:, None]
    tube = np.sqrt(np.maximum(0, 1 - ((scene.x - at) * np.float32(1 / 8.5)) ** 2)) * scene.soft(low - scene.y, 6)
    for side, fall, reach in ((-1, 0.95, 28.0), (1, 0.62, 38.0)):
        out = (scene.x - np.float32(x)) * side
        off = np.abs(scene.y - np.float32(low) - out * np.float32(fall)) * np.float32(1 / math.hypot(1, fall))
        inside = np.sqrt(np.maximum(0, 1 - (off * np.float32(1 / 5.5)) ** 2))
        inside *= np.clip(out * np.float32(0.3), 0, 1) * np.clip((reach - out) * np.float32(0.12), 0, 1)
        tube = np.maximum(tube, inside * np.float32(0.8))
    return tube * np.float32(1.9)


def _bones(scene: Scene, body: Body, shot: Shot, findings: Sequence[Drawn]) -> Plane:
    """Ribs, clavicles, shoulders and spine, in cm of water."""
    plan = scene.plan
    x, y = scene.x, scene.y
    level = np.broadcast_to(y, (scene.count, scene.count))
    for finding in findings:
        if finding.name == "rib fracture":
            level = level + _break(scene, finding)
    across = np.abs(x) / (plan.wall(y) + np.float32(2))
    bent = across * across
    bent *= bent
    step = body.rib_step
    first, last = plan.apex - 8, plan.domes[1] + 62
    # Behind, ribs fall gently from the spine and turn down at the wall; in front they come back, falling to the midline.
    back = level - (np.float32(first) + across * np.float32(8) + bent * np.float32(26))
    bones = _bars(scene, back, step, 6.2) * np.float32(0.85)
    bones *= np.clip((1.03 - across) * np.float32(12), 0, 1)
    front = level - (np.float32(first + 0.62 * step) + (1 - across) * np.float32(0.5 * plan.half_width))
    bars = _bars(scene, front, step, 7.4) * np.float32(0.6)
    bars *= np.clip((1.03 - across) * np.float32(12), 0, 1) * np.clip((across - np.float32(0.42)) * 4, 0, 1)
    bones += bars
    bones *= np.clip((y - np.float32(first)) * np.float32(0.08), 0, 1) * np.clip(
        (np.float32(last) - y) * np.float32(0.05), 0, 1
    )
    bones += _spine(scene) + _shoulders(scene, shot)
    return bones * np.float32(body.bone)


def _bars(scene: Scene, along: Plane, step: float, half: float) -> Plane:
    """Bars of half width `half` mm, one every `step`: hollow, so brighter at their edges."""
    turns = along * np.float32(1 / step)
    off = np.abs(turns - np.rint(turns)) * np.float32(step)
    inside = scene.soft(np.float32(half) - off, 1.2)
    return inside * (np.float32(0.55) + off * off * np.float32(0.6 / half**2))


def _break(scene: Scene, finding: Drawn) -> Plane:
    """A step in the ribs around a break, as what is added to the level."""
    at = fracture_point(scene.plan, finding)
    out = (scene.x - np.float32(at[0])) * SIDES[finding.side]
    return scene.cloud(at, (15, 11)) * np.where(out > 0, np.float32(7), np.float32(-2.5))


def fracture_point(plan: Layout, finding: Drawn) -> Point:
    """Where the break lies, in mm: in the lateral part of a middle rib."""
    y = plan.apex + (0.42 + 0.4 * finding.place[1]) * (plan.domes[-1] - plan.apex)
    return SIDES[finding.side] * float(plan.wall(y)) * (0.78 + 0.12 * finding.place[0]), y


def _spine(scene: Scene) -> Plane:
    x = np.abs(scene.x - np.float32(0))
    column = np.clip((np.float32(19) - x) * np.float32(1 / 5), 0, 1)
    turns = (scene.y - np.float32(scene.plan.apex)) * np.float32(1 / 24)
    disc = np.abs(turns - np.rint(turns)) * 24
    body = np.float32(0.7) + np.float32(0.5) * np.clip((disc - 3) * np.float32(0.5), 0, 1)
    pedicle = np.exp(-(((x - 11) * np.float32(1 / 3)) ** 2)) * np.exp(-(((disc - 7) * np.float32(1 / 3)) ** 2))
    return column * body + pedicle * np.float32(0.6)


def _shoulders(scene: Scene, shot: Shot) -> Plane:
    """Clavicles, shoulder blades and the heads of the upper arms."""
    plan = scene.plan
    across = np.abs(scene.x - np.float32(-0.6 * shot.turn)) - 14
    reach = np.clip(across * np.float32(1 / (plan.half_width + 6)), 0, 1.2)
    rise = 16.0 if shot.view == "PA" else 30.0
    line = np.float32(plan.apex + 27) - np.float32(rise) * reach - np.float32(9) * np.sin(reach * np.float32(6.2))
    off = np.abs(scene.y - line)
    width = np.float32(5) + 3 * np.clip(1 - across * np.float32(1 / 18), 0, 1)
    clavicle = scene.soft(width - off, 1.5) * (np.float32(0.75) + off * off * np.float32(0.014))
    clavicle *= np.clip(across * np.float32(0.3), 0, 1) * np.clip((np.float32(1.08) - reach) * 20, 0, 1)
    inner = plan.half_width - shot.scapula + 14
    from_top = (scene.y - np.float32(plan.apex + 12)) * np.float32(1 / 118)
    border = np.float32(inner) + np.float32(16) * (from_top - np.float32(0.4)) ** 2
    out = np.abs(scene.x) - border
    there = np.clip(from_top * 9, 0, 1) * np.clip((1 - from_top) * 7, 0, 1)
    blade = (
        scene.soft(out, 1.5) * there * (np.float32(0.35) + np.float32(0.7) * np.exp(-((out * np.float32(0.3)) ** 2)))
    )
    blade *= np.clip((np.float32(52) * (1 - from_top) + 12 - out) * np.float32(0.1), 0, 1)
    head = np.float32(0)
    for side in (-1, 1):
        head = head + scene.ball((side * (plan.half_width + 42), plan.apex + 22), (25, 26))
    return clavicle * np.float32(1.25) + blade + head * np.float32(1.7)


def _vessels(scene: Scene, body: Body, congestion: float) -> Plane:
    """The tree of the lung vessels in [0, 1]: wider and reaching further with `congestion`."""
    pen = Pen(scene)
    rng = np.random.default_rng(body.vessels)
    plan = scene.plan
    twigs: list[tuple[list[Point], float]] = []
    for side in (-1, 1):
        hilum = plan.hila[side]
        fan = np.linspace(-1.25, 1.35, 9) + rng.normal(0, 0.1, 9)
        for angle in fan:
            up = angle < 0
            wide = (5.4 if not up else 3.9) * (1 + congestion * (1.1 if up else 0.35)) * rng.uniform(0.75, 1.1)
            length = (62 + 22 * abs(float(angle))) * rng.uniform(0.85, 1.15)
            _branch(twigs, rng, hilum, float(angle), wide, length, side, 3)
    for points, width in sorted(twigs, key=lambda twig: twig[1]):
        pen.line(points, width, 0.12 + 0.105 * width)
    for side in (-1, 1):
        x, y = plan.hila[side]
        pen.line(
            [(x - side * 3, y - 14), (x + side * 4, y + 4), (x + side * 7, y + 34)], 11 * (1 + 0.25 * congestion), 0.8
        )
    return pen.plane()


def _branch(
    twigs: list[tuple[list[Point], float]],
    rng: Generator,
    at: Point,
    angle: float,
    width: float,
    length: float,
    side: int,
    deep: int,
) -> None:
    """One vessel and what leaves it; `angle` from straight outwards, positive downwards."""
    bend = float(rng.normal(0, 0.22))
    points = [at]
    for part in range(3):
        turn = angle + bend * part
        x, y = points[-1]
        points.append((x + side * math.cos(turn) * length / 3, y + math.sin(turn) * length / 3))
    for part in range(3):
        twigs.append((points[part : part + 2], width * (1 - 0.16 * part)))
    if deep and width > 0.7:
        for start, turn in ((1, -1), (2, 1), (3, -1), (3, 1)):
            spread = turn * float(rng.uniform(0.3, 0.75))
            thin = width * float(rng.uniform(0.42, 0.62))
            far = length * float(rng.uniform(0.55, 0.8))
            if deep > 1 or start == 3:
                _branch(twigs, rng, points[start], angle + bend * (start - 1) + spread, thin, far, side, deep - 1)


# -------------------------------------------------------------------------------------------------------- what is found


def _attenuation(scene: Scene, body: Body, shot: Shot, findings: Sequence[Drawn]) -> Plane:
    plan = scene.plan
    deep, inside = _lungs(scene)
    chest = np.float32(body.depth * 0.78)
    congestion = max((f.amount for f in findings if f.name == "pulmonary edema"), default=0.0)
    vessels = _vessels(scene, body, congestion)
    front = _mediastinum(scene, body)
    behind = np.zeros_like(front)
    air = np.zeros_like(front)
    lines = np.zeros_like(front)
    for finding in findings:
        match finding.name:
            case "consolidation":
                filled = _consolidation(scene, finding)
                if finding.site in ("middle lobe", "upper lobe"):
                    front = np.maximum(front, filled * np.float32(0.66) * deep)
                else:
                    behind = np.maximum(behind, filled * np.float32(0.72))
                    deep = _fill_sulcus(scene, deep, filled, finding)
                if finding.site != "middle lobe" or finding.amount > 0.5:
                    vessels = vessels * (1 - filled * np.float32(1.25))
            case "lung nodule" | "lung mass":
                lump = _lump(scene, finding)
                lines = lines + lump * np.float32(finding.mm / 10 * 0.9)
            case "pleural effusion":
                fluid = _fluid(scene, finding, inside)
                behind = np.maximum(behind, fluid)
                vessels = vessels * (1 - fluid)
            case "pneumothorax":
                out, edge = _pneumothorax(scene, finding, inside)
                vessels = vessels * (1 - out)
                air = np.maximum(air, out)
                lines = lines + edge * np.float32(0.85)
                # What is left of the lung holds less air.
                shrunk = np.clip(1 - out, 0, 1) * np.float32(0.34 * finding.amount)
                half = scene.columns(SIDES[finding.side])
                behind[:, half] = np.maximum(behind[:, half], shrunk[:, half])
            case "lobar collapse":
                behind = np.maximum(behind, _collapse(scene, finding))
            case "pulmonary edema":
                haze = _edema(scene, finding)
                behind = np.maximum(behind, haze)
                vessels = vessels * (1 - np.float32(0.35) * np.clip(haze * 2, 0, 1))
    solid = front + behind
    lung = deep * np.clip(1 - solid, 0, 1) * chest
    beam = _body(scene, body)
    texture = 1 + np.float32(0.022) * scene.mottle(max(8, scene.count // 5))
    density = np.float32(1 - LUNG) + np.float32(LUNG * 0.75) * air
    beam = beam - lung * density * texture
    beam += vessels * np.float32(2.1) * np.clip(deep * 2.2, 0, 1) * np.clip(1 - solid * np.float32(0.8), 0, 1)
    beam += lines * np.clip(deep * 3, 0, 1) if lines.any() else 0
    beam -= _trachea(scene)
    beam += _soft_tissue(scene, body, plan)
    beam -= _bubble(scene, body)
    beam += _bones(scene, body, shot, findings)
    beam += _drawn(scene, shot, findings)
    return beam


def _soft_tissue(scene: Scene, body: Body, plan: Layout) -> Plane:
    """Breasts, skin and muscle over the chest."""
    extra = np.zeros((scene.count, scene.count), np.float32)
    if body.breast:
        for side in (-1, 1):
            at = (side * 0.62 * plan.half_width, plan.apex + 0.78 * body.height - 10)
            x, y = (scene.x - np.float32(at[0])), (scene.y - np.float32(at[1]))
            reach = np.sqrt(x * x + np.where(y < 0, y * y * np.float32(0.35), y * y)) * np.float32(1 / body.breast)
            fold = np.sqrt(np.clip(1 - reach, 0, 1))
            extra += fold * (np.float32(1.2) + np.float32(1.5) * np.clip(y * np.float32(1 / body.breast), 0, 1))
    # Pectoral muscle over the upper lung, and the fold of the armpit.
    for side in (-1, 1):
        at = (side * 0.72 * plan.half_width, plan.apex + 58)
        extra += scene.cloud(at, (42, 46)) * np.float32(0.9)
    return extra


def _bubble(scene: Scene, body: Body) -> Plane:
    """Gas in the stomach under the left dome, and now and then in the colon, in cm."""
    rng = np.random.default_rng(body.vessels + 1)
    top = scene.plan.domes[1] + 13
    wide, tall = rng.uniform(18, 36), rng.uniform(9, 20)
    x = rng.uniform(46, 72)
    gas = scene.ball((x, top + tall), (wide, tall)) * np.float32(rng.uniform(1.5, 5))
    gas = gas * scene.soft(np.float32(top + tall * rng.uniform(1.1, 1.6)) - scene.y, 1)
    for _ in range(int(rng.integers(0, 5))):
        at = (x + rng.uniform(0, 50), top + rng.uniform(30, 80))
        gas = np.maximum(gas, scene.ball(at, (rng.uniform(7, 15), rng.uniform(6, 13))) * np.float32(rng.uniform(1, 3)))
    return gas


LOBES: dict[tuple[str, str], tuple[float, float, float, float]] = {
    # Of each lobe as it lies on a frontal film: its middle, across as a share of the half width and down as a share of
    # the lung's height, and its half axes in the same measures.
    ("right", "upper lobe"): (0.52, 0.27, 0.34, 0.22),
    ("right", "middle lobe"): (0.40, 0.73, 0.30, 0.17),
    ("right", "lower lobe"): (0.58, 0.90, 0.34, 0.24),
    ("left", "upper lobe"): (0.55, 0.34, 0.32, 0.27),
    ("left", "lower lobe"): (0.45, 0.88, 0.32, 0.24),
}


def _consolidation(scene: Scene, finding: Drawn) -> Plane:
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
    rough = scene.mottle(14)
    filled = np.clip((cloud - np.float32(0.34) + np.float32(0.13) * rough) * np.float32(2.6), 0, 1)
    fissure = plan.apex + 0.54 * height
    if finding.side == "right" and finding.site == "upper lobe":
        filled *= scene.soft(np.float32(fissure) - scene.y - np.abs(scene.x) * np.float32(0.03), 2)
    if finding.site == "middle lobe":
        filled *= scene.soft(scene.y - np.float32(fissure), 2)
    half = scene.columns(-side)
    filled[:, half] = 0
    return filled * np.float32(0.62 + 0.38 * finding.amount) * (1 - np.float32(0.12) * np.clip(rough, -1, 1))


def _fill_sulcus(scene: Scene, deep: Plane, filled: Plane, finding: Drawn) -> Plane:
    """Filled lung on the diaphragm hides it: where the lower lobe is solid, the step at the dome goes."""
    half = scene.columns(SIDES[finding.side])
    out = deep.copy()
    out[:, half] *= 1 - np.float32(0.5) * filled[:, half]
    return out


def _lump(scene: Scene, finding: Drawn) -> Plane:
    at = lump_point(scene.plan, finding)
    radius = finding.mm / 2
    # A lump smaller than a pixel or two is spread, not lost.
    drawn = max(radius, 0.9 * scene.step)
    lump = scene.ball(at, (drawn, drawn * (0.85 + 0.3 * finding.place[2])), finding.place[2])
    return lump * np.float32((radius / drawn) ** 2)


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


def _fluid(scene: Scene, finding: Drawn, inside: Plane) -> Plane:
    """Share of the depth that fluid takes: up to a meniscus that climbs at the wall, hazy above it."""
    side = SIDES[finding.side]
    level = fluid_level(scene.plan, finding)
    climb = 14 + 34 * math.sqrt(finding.amount) * (1 - 0.5 * finding.amount)
    surface = np.float32(level) - np.float32(climb) * np.exp(-np.clip(inside, 0, 200) * np.float32(1 / 22))
    surface = surface - np.float32(0.3 * climb) * np.exp(-np.clip(np.abs(scene.x) - 20, 0, 200) * np.float32(1 / 16))
    fluid = scene.soft(scene.y - surface, 9 + 9 * finding.amount)
    fluid = fluid * np.float32(0.93) + np.float32(0.14 * finding.amount + 0.03) * scene.soft(
        scene.y - np.float32(level - 70), 70
    ) * (1 - fluid)
    fluid[:, scene.columns(-side)] = 0
    return np.clip(fluid, 0, 1)


def _pneumothorax(scene: Scene, finding: Drawn, inside: Plane) -> tuple[Plane, Plane]:
    """Where there is air without lung, and the line of the visceral pleura."""
    plan = scene.plan
    side = SIDES[finding.side]
    x, y = plan.hila[side]
    left = 1 - finding.amount
    # The lung shrinks towards its hilum, from the apex more than from the base.
    shrink_y = np.where(scene.y < np.float32(y), np.float32(1 / (1 - 0.82 * finding.amount)), np.float32(1))
    yy = (scene.y - np.float32(y)) * shrink_y + np.float32(y)
    xx = (scene.x - np.float32(x)) * np.float32(1 / max(0.22, left)) + np.float32(x)
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


def _collapse(scene: Scene, finding: Drawn) -> Plane:
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
        edge = np.float32(22) + (scene.y - np.float32(top)) * np.float32(0.40)
        shape = scene.soft(edge - across, 3) * scene.soft(scene.y - np.float32(top), 8)
    shape = shape * np.float32(0.74)
    shape[:, scene.columns(-side)] = 0
    return shape


def _edema(scene: Scene, finding: Drawn) -> Plane:
    """Haze around the hila, in both lungs; in full edema patches of filled lung."""
    plan = scene.plan
    haze = np.zeros((scene.count, scene.count), np.float32)
    for side in (-1, 1):
        x, y = plan.hila[side]
        haze += scene.cloud((x + side * 16, y + 16), (34 + 20 * finding.amount, 58 + 16 * finding.amount))
    patches = np.clip(scene.mottle(18), -1, 1)
    strength = 0.10 + 0.48 * finding.amount**1.3
    rough = np.float32(0.1 + 0.35 * max(0.0, finding.amount - 0.4))
    return np.clip(np.float32(strength) * haze * (1 + rough * patches * 1.6), 0, 0.75) + np.float32(
        0.05 * finding.amount
    )


def _drawn(scene: Scene, shot: Shot, findings: Sequence[Drawn]) -> Plane:
    """Everything that is a line: devices, wires, bands, Kerley lines, in cm of water."""
    pen = Pen(scene)
    faint = Pen(scene)
    for finding in findings:
        match finding.name:
            case "atelectasis":
                _bands(faint, scene.plan, finding)
            case "pulmonary edema":
                _kerley(faint, scene, finding)
            case _ if finding.name in TUBES:
                TUBES[finding.name](pen, scene.plan, finding)
    return pen.plane() * np.float32(4.2) + faint.plane() * np.float32(2.6)


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
        pen.line(points, 2.6 + 1.6 * finding.amount, 0.5 + 0.25 * finding.amount)


def _kerley(pen: Pen, scene: Scene, finding: Drawn) -> None:
    """Short lines from the wall inwards, at the bases."""
    plan = scene.plan
    for side in (-1, 1):
        for number in range(7):
            y = plan.domes[side] + 14 - 9.0 * number
            wall = float(plan.wall(y)) - 2
            if y < float(plan.dome(side, wall - 14)):
                pen.line([(side * wall, y), (side * (wall - 15), y + 1.5)], 1.2, 0.34)


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
    pen.line(_smooth(points), 2.0, 0.62)


def _enteric(pen: Pen, plan: Layout, finding: Drawn) -> None:
    """A tube down the gullet into the stomach, off the midline to the left at its end."""
    x, y = plan.carina
    low = plan.domes[1]
    points = [(3.0, -40.0), (4.0, y - 60), (x * 0.7 + 3, y), (6.0, low - 12), (20.0, low + 24), (52.0, low + 44)]
    pen.line(_smooth(points), 2.2, 0.55)


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
    pen.line(_smooth([hub, *down, (atrium[0] + 2, y + 14), (atrium[0] - 1, y + 6), atrium]), 1.5, 0.85)
    pen.line(_smooth([hub, *down, (-22.0 + plan.shift, y), (x - 8, y + 0.75 * short_axis), ventricle]), 1.5, 0.85)
    pen.line([(ventricle[0] - 7, ventricle[1] - 1), ventricle], 2.6, 1.0)


def _drain(pen: Pen, plan: Layout, finding: Drawn) -> None:
    """A chest tube from the side up to the apex, or down to the base."""
    side = SIDES[finding.side]
    low = plan.domes[side]
    wall = float(plan.wall(low - 30))
    end = (side * 44.0, plan.apex + 34) if finding.site == "apex" else (side * 56.0, low - 2)
    middle = (side * (wall - 30), (low - 40 + end[1]) / 2 + (0 if finding.site == "apex" else 14))
    points = [(side * (wall + 60), low + 4), (side * (wall + 4), low - 26), middle, end]
    pen.line(_smooth(points), 5.2, 0.26)
    pen.line(_smooth([(x + 1.8, y) for x, y in points]), 1.4, 0.75)


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


def _smooth(points: Sequence[Point], steps: int = 6) -> list[Point]:
    """A curve through `points` (Catmull-Rom)."""
    ends = [points[0], *points, points[-1]]
    curve = []
    for before, start, end, after in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        for t in (step / steps for step in range(steps)):
            curve.append(
                tuple(
                    0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3)
                    for a, b, c, d in zip(before, start, end, after, strict=True)
                )
            )
    return [*curve, points[-1]]  # type: ignore[list-item]


# --------------------------------------------------------------------------------------------------------- the detector


def _develop(beam: Plane, scene: Scene, shot: Shot, size: int) -> NDArray[np.uint8]:
    """Attenuation to grey levels: tilt and position, window, curve, a little sharpening, noise, marker and border."""
    count = scene.count
    # Where the film's pixels lie in the scene (Pillow's affine maps output to input).
    cosine, sine = math.cos(shot.tilt), math.sin(shot.tilt)
    dx, dy = (offset / scene.step for offset in shot.shift)
    half = size / 2
    affine = (
        *(cosine, sine, count / 2 + dx - cosine * half - sine * half),
        *(-sine, cosine, count / 2 + dy + sine * half - cosine * half),
    )
    image = Image.fromarray(beam).transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    picture = np.asarray(image)
    sample = picture[size // 8 : -size // 8 : 3, size // 6 : -size // 6 : 3]
    low, high = np.percentile(sample, (3, 96))
    low, high = low - 2.6 + shot.window[0], high + 1.0 + shot.window[1]
    blurred = np.asarray(image.reduce(max(2, size // 14)).resize((size, size), Image.Resampling.BILINEAR))
    picture = picture + np.float32(0.32) * (picture - blurred)
    shown = np.clip((picture - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    shown = shown ** np.float32(shot.gamma) * np.float32(238) + np.float32(6)
    noise = scene.rng.standard_normal((size, size), dtype=np.float32)
    shown += noise * np.float32(shot.noise)
    grey = np.clip(shown, 0, 255).astype(np.uint8)
    _mark(grey, shot, size)
    return grey


def _mark(grey: NDArray[np.uint8], shot: Shot, size: int) -> None:
    """The letter L at the patient's left, and the border that the collimator left."""
    edge = round(shot.edge / shot.field * size)
    if edge:
        for border in (grey[:edge], grey[-edge:], grey[:, :edge], grey[:, -edge:]):
            border[...] = 3
    top = edge + max(2, round(size * shot.marker))
    letter = _letter(max(5, size // 24))
    height, width = letter.shape
    place = grey[top : top + height, size - edge - 3 * width : size - edge - 2 * width]
    place[letter] = 245


@lru_cache(maxsize=8)
def _letter(height: int) -> NDArray[np.bool_]:
    letter = np.zeros((height, max(3, height * 2 // 3)), bool)
    stroke = max(1, height // 6)
    letter[:, :stroke] = True
    letter[-stroke:] = True
    return letter
