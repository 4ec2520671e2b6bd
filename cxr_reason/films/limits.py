"""How large a film may be. Checked against headers, before anything is decoded."""

from __future__ import annotations

from cxr_reason.films.refusal import FilmError

MAX_FILE_BYTES = 1 << 27
MAX_FILM_PIXELS = 1 << 25
"""33.5 megapixels. The finest chest detectors have 18."""
MAX_DECODED_BYTES = 1 << 26
"""So many at 16 bits."""
MAX_RATIO = 20
"""Of the longer to the shorter side. Chest films stay below 2; Qwen2-VL takes up to 200."""


def check_size(width: int, height: int, *, where: str, pixel_bytes: int = 1) -> None:
    """Raises FilmError where a film of `width` x `height` pixels is none, or none that we decode."""
    if width < 1 or height < 1:
        raise FilmError("damaged", where=where, told="the file is damaged: its picture has no width or no height")
    if width * height > MAX_FILM_PIXELS or width * height * pixel_bytes > MAX_DECODED_BYTES:
        told = f"the picture has {width:,} x {height:,} pixels, more than the {MAX_FILM_PIXELS:,} of a large film"
        raise FilmError("too-large", where=where, told=told)
    if max(width, height) > MAX_RATIO * min(width, height):
        told = f"the picture has {width:,} x {height:,} pixels: a strip, not a film"
        raise FilmError("too-narrow", where=where, told=told)
