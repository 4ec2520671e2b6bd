"""From a film of any size to one that a model takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 448 * 448
"""As many as ChestX-Reasoner was trained with (arXiv 2504.20930): 256 image tokens of Qwen2-VL."""


def fit(image: Image.Image, *, max_pixels: int = MAX_PIXELS, multiple: int = 1) -> Image.Image:
    """`image` as RGB of at most `max_pixels`, its sides multiples of `multiple`; see `fitted`.

    Lanczos, so that fine lines don't turn into patterns.
    """
    from PIL.Image import Resampling

    size = fitted(*image.size, max_pixels=max_pixels, multiple=multiple)
    if size != image.size:
        image = image.resize(size, Resampling.LANCZOS)
    return image.convert("RGB")


def fitted(width: int, height: int, *, max_pixels: int, multiple: int = 1) -> tuple[int, int]:
    """The width and height of the largest picture that fits, aspect kept and never enlarged.

    Sides are rounded down to multiples, but to no less than one: that alone can enlarge, and go beyond `max_pixels`.
    """
    scale = min(1.0, math.sqrt(max_pixels / (width * height)))

    def side(pixels: int, most: int) -> int:
        return max(multiple, min(int(pixels * scale), most) // multiple * multiple)

    # Of a very thin picture the short side is rounded up, and the long one has to give way.
    if width <= height:
        short = side(width, width)
        return short, side(height, max_pixels // short)
    short = side(height, height)
    return side(width, max_pixels // short), short
