"""The grid on which a film is worked out: shapes as smooth functions of its two axes, and a pen for lines.

Edges are as sharp as a pixel. What has branches or winds (vessels, tubes) is drawn as lines by Pillow, at twice the
size. Most of a film is empty, so shapes are worked out on the part where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from cxr_reason.phantoms.layout import Layout, Plane, Point

MARGIN = 1.1
"""The scene is this much wider than the film, so that a tilted patient still fills it."""


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
    def shape(self) -> tuple[int, int]:
        return self.y.shape[0], self.x.shape[1]

    def soft(self, inside: Plane, width: float) -> Plane:
        """1 where `inside` (mm) is positive, 0 where it is negative, over `width` mm or a pixel, if that is more."""
        shown = inside * np.float32(1 / max(width, 1.4 * self.step))
        shown += np.float32(0.5)
        return np.clip(shown, 0, 1, out=shown)

    def crop(self, left: float, right: float, top: float, bottom: float) -> tuple[tuple[slice, slice], Scene]:
        """The part between these levels, in mm: where it lies in the grid, and the scene of it alone."""
        first, last = np.searchsorted(self.x[0], (left, right))
        upper, lower = np.searchsorted(self.y[:, 0], (top, bottom))
        part = Scene(self.plan, self.step, self.x[:, first:last], self.y[upper:lower], self.rng)
        return (slice(upper, lower), slice(first, last)), part

    def empty(self) -> Plane:
        return np.zeros(self.shape, np.float32)

    def columns(self, side: int) -> slice:
        """The columns of one half of the chest."""
        middle = int(np.searchsorted(self.x[0], 0))
        return slice(0, middle) if side < 0 else slice(middle, None)

    def ball(self, at: Point, radii: Point, angle: float = 0.0) -> Plane:
        """Depth of an ellipsoid, 1 in its middle, 0 outside."""
        reach = radii if not angle else (max(radii),) * 2
        where, part = self.crop(at[0] - reach[0], at[0] + reach[0], at[1] - reach[1], at[1] + reach[1])
        x, y = part.x - np.float32(at[0]), part.y - np.float32(at[1])
        if angle:
            cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
            x, y = x * cosine + y * sine, y * cosine - x * sine
        depth = np.float32(1) - (x * np.float32(1 / radii[0])) ** 2 - (y * np.float32(1 / radii[1])) ** 2
        out = self.empty()
        out[where] = np.sqrt(np.maximum(depth, 0, out=depth), out=depth)
        return out

    def cloud(self, at: Point, radii: Point) -> Plane:
        """A bell without an edge, 1 in its middle."""
        across = np.exp(-(((self.x - np.float32(at[0])) / np.float32(radii[0])) ** 2))
        along = np.exp(-(((self.y - np.float32(at[1])) / np.float32(radii[1])) ** 2))
        bell: Plane = across * along
        return bell

    def mottle(self, cells: int) -> Plane:
        """Smooth noise in [-1, 1] or a little beyond, with `cells` lumps a side."""
        coarse = self.rng.standard_normal((cells, cells), dtype=np.float32) * np.float32(0.6)
        return np.asarray(Image.fromarray(coarse).resize(self.shape[::-1], Image.Resampling.BICUBIC))


class Pen:
    """Lines of a given thickness in mm, drawn at twice the size and brought down."""

    def __init__(self, scene: Scene) -> None:
        self._scale = 2 / scene.step
        self._origin = float(scene.x[0, 0]) - scene.step / 2, float(scene.y[0, 0]) - scene.step / 2
        height, width = scene.shape
        self._image = Image.new("L", (2 * width, 2 * height))
        self._draw = ImageDraw.Draw(self._image)

    def _place(self, at: Sequence[float]) -> Point:
        return (at[0] - self._origin[0]) * self._scale, (at[1] - self._origin[1]) * self._scale

    def line(self, points: Sequence[Sequence[float]], width: float, ink: float) -> None:
        """`ink` in [0, 1] is how much the line takes out of the beam; a line thinner than a pixel takes less."""
        wide = width * self._scale
        tone = int(255 * min(1.0, ink * min(1.0, wide)))
        self._draw.line([self._place(point) for point in points], fill=tone, width=max(1, round(wide)))

    def dot(self, at: Point, radius: float, ink: float) -> None:
        x, y = self._place(at)
        reach = radius * self._scale
        self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=int(255 * ink))

    def box(self, at: Point, size: Point, round_off: float, ink: float) -> None:
        x, y = self._place(at)
        wide, tall = size[0] / 2 * self._scale, size[1] / 2 * self._scale
        self._draw.rounded_rectangle(
            (x - wide, y - tall, x + wide, y + tall), radius=round_off * self._scale, fill=int(255 * ink)
        )

    def plane(self) -> Plane:
        """What was drawn, in [0, 1]."""
        return np.asarray(self._image.reduce(2), dtype=np.float32) * np.float32(1 / 255)


def smooth(points: Sequence[Point], steps: int = 6) -> list[Point]:
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


def scene_of(plan: Layout, field: float, size: int, rng: Generator) -> Scene:
    step = field / size
    count = 2 * round(size * MARGIN / 2)
    steps = (np.arange(count, dtype=np.float32) + np.float32(0.5 - count / 2)) * np.float32(step)
    return Scene(plan, step, steps[None, :], steps[:, None] + np.float32(field / 2), rng)
