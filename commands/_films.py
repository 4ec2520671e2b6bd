"""Options of commands that read films: where they lie, how large they may be, and where they are kept."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import click

from cxr_reason.films import MAX_PIXELS, Films

from ._options import Command

_SIDE = 448
assert _SIDE * _SIDE == MAX_PIXELS


class PixelsType(click.ParamType[int]):
    """A number of pixels: ``448x448`` or ``200704``, as an int."""

    name = "pixels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().lower()
        width, cross, height = text.partition("x")
        try:
            pixels = int(width) * int(height) if cross else int(width)
        except ValueError:
            pixels = 0
        if pixels < 1 or int(width) < 1:
            self.fail(f"{text!r} is no size: give 448x448 or 200704.", param, ctx)
        return pixels


def image_root_option(command: Command) -> Command:
    """`image_root`: where the relative paths of images begin, or None."""
    return click.option(
        "--image-root", metavar="FOLDER", help="Where the images' relative paths begin.  [default: the input's folder]"
    )(command)


def film_cache_option(command: Command) -> Command:
    """`film_cache`: a folder, or None."""
    return click.option(
        "--film-cache",
        type=click.Path(file_okay=False),
        metavar="FOLDER",
        help="Keep the films here as the model sees them, for the next time. They are patients' pictures.  "
        "[default: keep none]",
    )(command)


def film_options(command: Command) -> Command:
    """`films`: the `Films` that ``--image-root``, ``--max-pixels`` and ``--film-cache`` ask for."""

    @wraps(command)
    def opened(*args: Any, image_root: str | None, max_pixels: int, film_cache: str | None, **given: Any) -> Any:
        root, cache = (Path(folder) if folder else None for folder in (image_root, film_cache))
        return command(*args, films=Films(root=root, max_pixels=max_pixels, cache=cache), **given)

    for option in (
        film_cache_option,
        click.option(
            "--max-pixels",
            type=PixelsType(),
            default=f"{_SIDE}x{_SIDE}",
            show_default=True,
            metavar="WxH",
            help="Films with more pixels are made smaller, in their own proportions.",
        ),
        image_root_option,
    ):
        opened = option(opened)
    return opened  # type: ignore[return-value]
