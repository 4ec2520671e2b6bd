"""``--layout NAME``: published archives as they are unpacked, each a `Source` of rows.

`LAYOUTS` is the table: a name, and the class that reads it. A new archive is one module and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from cxr_reason.layouts.archive import Archive

# Imported when asked for: each layout brings what only it needs.
LAYOUTS = {
    "mimic": "cxr_reason.layouts.mimic:Mimic",
    "chexpert-plus": "cxr_reason.layouts.chexpert_plus:ChexpertPlus",
    "padchest": "cxr_reason.layouts.padchest:PadChest",
    "openi": "cxr_reason.layouts.openi:OpenI",
}


def open_layout(name: str, source: str, *, encoding: str | None = None, image_root: str | None = None) -> Archive:
    """The archive of layout `name` in the folder `source`. Nothing is read yet; see `Archive`.

    `image_root` is where the images lie if they don't lie in `source`: it decides only how their paths are written.
    """
    module, _, kind = LAYOUTS[name].partition(":")
    made: Callable[..., Any] = getattr(import_module(module), kind)
    archive = made(source, encoding=encoding, image_root=image_root)
    assert isinstance(archive, Archive)
    return archive
