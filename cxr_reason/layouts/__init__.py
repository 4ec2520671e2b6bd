"""``--layout NAME``: published archives as they are unpacked, each a `Source` of rows.

`LAYOUTS` is the table: a name, and the class that reads it. A new archive is one module and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from cxr_reason.joins import Join, Joined
from cxr_reason.layouts.archive import Archive
from cxr_reason.streams import Input, Source

# Imported when asked for: each layout brings what only it needs.
LAYOUTS = {
    "mimic": "cxr_reason.layouts.mimic:Mimic",
    "chexpert-plus": "cxr_reason.layouts.chexpert_plus:ChexpertPlus",
    "padchest": "cxr_reason.layouts.padchest:PadChest",
    "openi": "cxr_reason.layouts.openi:OpenI",
}


def open_source(
    source: str | Path | None,
    *,
    layout: str | None = None,
    joins: Sequence[Join] = (),
    encoding: str | None = None,
    image_root: str | None = None,
) -> Source:
    """The rows of a file or pipe, or of the archive in the folder `source`, with the columns of `joins`.

    An archive is opened when it is first asked; tables of `joins` are read at once. See `open_layout` for `image_root`.
    """
    found: Source = Input(source, encoding=encoding)
    if layout is not None:
        assert source is not None
        found = open_layout(layout, source, encoding=encoding, image_root=image_root)
    return Joined(found, joins, encoding=encoding) if joins else found


def open_layout(
    name: str, source: str | Path, *, encoding: str | None = None, image_root: str | None = None
) -> Archive:
    """The archive of layout `name` in the folder `source`. Nothing is read yet; see `Archive`.

    `image_root` is where the images lie if they don't lie in `source`. It is looked at only to tell how the archive's
    paths of images are written: those in the rows are relative to it.
    """
    module, _, kind = LAYOUTS[name].partition(":")
    made: Callable[..., Any] = getattr(import_module(module), kind)
    archive = made(source, encoding=encoding, image_root=image_root)
    assert isinstance(archive, Archive)
    return archive
