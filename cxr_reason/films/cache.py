"""Fitted films on disk, told by what is in their files: a film is decoded once, however often it is asked for.

    FOLDER/v1-200704/3f/3f09…e1.png

The name is the hash of the film's file, the folder above it the version of this code and the setting. So a film that
changes is another film, the same film under two names is one, and nothing is ever out of date. A picture of 448 x 448
takes some 110 kB. It is a grey PNG and holds nothing but pixels.

Any number of processes may share a folder: files appear whole, and whoever finds one torn by a crash makes it anew.
Temporary files of killed processes (``.new-…``) may be deleted, as may everything else, at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cxr_reason import console
from cxr_reason.errors import InputError
from cxr_reason.films import pictures
from cxr_reason.films.refusal import FilmError

if TYPE_CHECKING:
    from PIL import Image

VERSION = 1
"""Another number wherever the same file gives other pixels than before."""

_blake2b = partial(hashlib.blake2b, digest_size=16)


def digest(file: IO[bytes]) -> str:
    """What tells films apart: a hash of the whole file, from where it is read to its end."""
    return hashlib.file_digest(file, _blake2b).hexdigest()  # type: ignore[arg-type]  # typeshed wants a seekable file


class Cache:
    """The films of one setting in `folder`, which is made where it isn't there. Raises InputError where it can't be."""

    def __init__(self, folder: Path, *, max_pixels: int) -> None:
        self.folder = folder / f"v{VERSION}-{max_pixels}"
        self._full = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"films can't be kept here: {error.strerror}", where=str(folder), hint="Name another folder."
            ) from None

    def get(self, key: str) -> Image.Image | None:
        """The film, None where it isn't there whole."""
        place = self._place(key)
        try:
            return pictures.read_picture(place.read_bytes(), where=str(place))
        except (OSError, FilmError):
            return None

    def put(self, key: str, film: Image.Image) -> None:
        """Keep `film`. Where the disk is full or read-only this is said once, and the work goes on without."""
        if self._full:
            return
        place = self._place(key)
        try:
            place.parent.mkdir(exist_ok=True)
            descriptor, new = tempfile.mkstemp(dir=place.parent, prefix=".new-")
            try:
                with open(descriptor, "wb") as file:
                    film.save(file, format="PNG", compress_level=1)
                os.replace(new, place)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise
        except OSError as error:
            self._full = True
            console.warn(f"{self.folder}: films can't be kept from here on: {error.strerror}")

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.png"
