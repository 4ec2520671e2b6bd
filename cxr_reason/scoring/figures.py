"""The films of the cases on a score's page: none, as links, or as small pictures in the page itself."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from cxr_reason.environment import install_line
from cxr_reason.errors import CxrError
from cxr_reason.films import Films

Kind = Literal["none", "link", "thumbnail"]
KINDS: tuple[Kind, ...] = ("none", "link", "thumbnail")

THUMBNAIL_PIXELS = 256 * 256
_QUALITY = 85
"""Of WebP: some 5 kB a film, so that a page of 5,000 films stays below 40 MB."""


class Figures:
    """What a page shows of the films of its cases. A film that can't be shown is said so and stops nothing.

    `root` is where relative paths begin, else the folder of the record; `page` the folder of the page, where links
    begin. Raises CxrError where pictures are wanted and Pillow isn't installed.
    """

    def __init__(self, kind: Kind, *, root: Path | None, page: Path) -> None:
        if kind == "thumbnail" and find_spec("PIL") is None:
            raise CxrError("thumbnails need Pillow", where="--films", hint=install_line(["cxr-reason[films]"]))
        self._kind = kind
        self._films = Films(root=root, max_pixels=THUMBNAIL_PIXELS)
        self._page = page
        self._blocks: dict[Path, str] = {}
        self._fresh: list[tuple[str, str]] = []

    def of(self, record: Mapping[str, Any], base: Path) -> list[dict[str, str]]:
        """The films of `record` in its order: `label`, with `link`, `picture` (a block's name) or `missing` (why).

        Relative paths begin at `base`, where there is no root.
        """
        return [self._figure(image, base) for image in record.get("images") or ()]

    def fresh(self) -> list[tuple[str, str]]:
        """Name and content of the blocks that are new since the last call: a film is in the page once."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def _figure(self, image: Any, base: Path) -> dict[str, str]:
        told = image if isinstance(image, Mapping) else {}
        words = (told.get("role"), "portable" if told.get("portable") is True else None, told.get("view"))
        figure = {"label": " ".join(str(word) for word in words if word) or "film"}
        try:
            (path,) = self._films.paths({"images": [image]}, base=base)
            if self._kind == "thumbnail":
                return {**figure, "picture": self._picture(path)}
            if not path.is_file():
                return {**figure, "missing": "there is no such file"}
            return {**figure, "link": quote(os.path.relpath(path, self._page))}
        except CxrError as error:
            return {**figure, "missing": error.what}
        except (OSError, ValueError):
            return {**figure, "missing": "there is no such file"}

    def _picture(self, path: Path) -> str:
        if path not in self._blocks:
            stream = io.BytesIO()
            self._films.open(path).convert("L").save(stream, format="WebP", quality=_QUALITY)
            self._blocks[path] = f"film-{len(self._blocks)}"
            data = base64.b64encode(stream.getvalue()).decode()
            self._fresh.append((self._blocks[path], f"data:image/webp;base64,{data}"))
        return self._blocks[path]
