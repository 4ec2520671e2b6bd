"""From more than 8 bits to 8, by a table: films have millions of pixels, but at most 65,536 different values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.integer[Any]]
    Tones = NDArray[np.floating[Any]]

TAIL = 0.001
"""The share of the darkest and of the brightest pixels that may lose their differences: dead pixels, lead markers."""
_CHUNK = 1 << 20


def values_of(dtype: np.dtype[Any]) -> Pixels:
    """All values that `dtype`, an integer of 8 or 16 bits, can have, in the order of their bits: 0, 1, …, -2, -1."""
    import numpy as np

    return np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)


def counted(pixels: Pixels) -> NDArray[np.int64]:
    """How many pixels have each value, in the order of `values_of`."""
    import numpy as np

    flat = pixels.reshape(-1).view(f"u{pixels.dtype.itemsize}")
    counts = np.zeros(1 << (8 * pixels.dtype.itemsize), dtype=np.int64)
    for start in range(0, len(flat), _CHUNK):  # bincount makes 8 bytes of every pixel
        counts += np.bincount(flat[start : start + _CHUNK], minlength=len(counts))
    return counts


def painted(pixels: Pixels, tones: Tones) -> NDArray[np.uint8]:
    """The 8-bit picture of `pixels`: `tones` has a brightness in [0, 1] for each value, in the order of `values_of`."""
    import numpy as np

    table: NDArray[np.uint8] = np.rint(255 * np.clip(tones, 0, 1)).astype(np.uint8)
    return np.take(table, pixels.view(f"u{pixels.dtype.itemsize}"))


def spread(values: Tones | Pixels, counts: NDArray[np.int64]) -> Tones:
    """Brightness for `values` that come `counts` times: from the lowest to the highest, but for the tails.

    Where all pixels are alike everything is black.
    """
    import numpy as np

    order = np.argsort(values, kind="stable")
    order = order[counts[order] > 0]
    if not len(order):
        return np.zeros(len(values))
    below = np.cumsum(counts[order])
    first, last = np.searchsorted(below, [TAIL * below[-1], (1 - TAIL) * below[-1]])
    low, high = float(values[order[first]]), float(values[order[last]])
    if low == high:  # next to all pixels are alike, and the few others are the picture
        low, high = float(values[order[0]]), float(values[order[-1]])
    if low == high:
        return np.zeros(len(values))
    return (values.astype(np.float64) - low) / (high - low)


def grey_of(pixels: Pixels) -> NDArray[np.uint8]:
    """The 8-bit picture of `pixels` whose window nobody tells."""
    return painted(pixels, spread(values_of(pixels.dtype), counted(pixels)))
