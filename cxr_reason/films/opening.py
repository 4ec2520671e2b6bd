"""The films of records, as models take them."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_reason.films.cache import Cache, digest
from cxr_reason.films.fitting import MAX_PIXELS, fit
from cxr_reason.films.reading import content_of, decoded
from cxr_reason.films.refusal import FilmError

if TYPE_CHECKING:
    from PIL import Image

RECENT = 8
"""Films kept in memory: the questions of a study follow each other."""
# Threads that want the same film wait for the one that decodes it. Locks of the module: a `Films` can be pickled.
_LOCKS = tuple(threading.Lock() for _ in range(256))


class Films:
    """Opens films, fitted to `max_pixels`. One object may serve several threads, and travels to worker processes.

    `root` is where relative paths begin. `cache` is a folder to keep fitted films in, made where it isn't there;
    without one nothing is written anywhere. Raises InputError where the folder can't be made.
    """

    def __init__(self, *, root: Path | None = None, max_pixels: int = MAX_PIXELS, cache: Path | None = None) -> None:
        self.root = root
        self.max_pixels = max_pixels
        self._cache = Cache(cache, max_pixels=max_pixels) if cache else None
        self._recent: tuple[tuple[str, Image.Image], ...] = ()

    def open(self, path: str | os.PathLike[str]) -> Image.Image:
        """The film in `path`: RGB, `fit(read(path))`. Raises FilmError."""
        content = content_of(path)
        key = digest(io.BytesIO(content))
        with _LOCKS[int(key[:2], 16)]:
            film = dict(self._recent).get(key)
            if film is None:
                film = self._cache.get(key) if self._cache else None
            if film is None:
                film = fit(decoded(content, where=os.fspath(path)), max_pixels=self.max_pixels).convert("L")
                if self._cache:
                    self._cache.put(key, film)
            others = [entry for entry in self._recent if entry[0] != key]
            self._recent = ((key, film), *others[: RECENT - 1])
        return film.convert("RGB")

    def paths(self, record: Mapping[str, Any], *, base: Path | None) -> list[Path]:
        """Where the images of `record` lie, in its order: below `root`, else below `base`, the folder of the input."""
        folder = self.root or base or Path()
        return [folder / path_of(image) for image in record.get("images") or ()]

    def of(self, record: Mapping[str, Any], *, base: Path | None) -> list[Image.Image]:
        """The films of `record`, in its order; none where it has none. Raises FilmError for the first that fails."""
        return [self.open(path) for path in self.paths(record, base=base)]


def path_of(image: Any) -> str:
    """The path of an entry of a record's `images`. Raises FilmError where it has none."""
    path = image.get("path") if isinstance(image, Mapping) else image
    if not isinstance(path, str) or not path:
        raise FilmError("missing", where="images", told="an image of the record has no path")
    return path
