"""A file that somebody names, and the film in it."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from cxr_reason.films import dicom, pictures
from cxr_reason.films.limits import MAX_FILE_BYTES
from cxr_reason.films.refusal import FilmError, lacks

if TYPE_CHECKING:
    from PIL import Image

Path = str | os.PathLike[str]

_OS_REASONS = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG), "missing"),
    errno.ELOOP: "link-loop",
}
# What else stands in columns of images, by how it starts.
_OTHERS = {
    b"GIF8": "a GIF image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"BM": "a BMP image",
    b"RIFF": "a WebP image or a sound",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000 image outside DICOM",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image outside DICOM",
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive",
    b"%PDF": "a PDF",
    b"\x08\x00\x05\x00": "DICOM data without the header of a file",
    b"\x08\x00\x00\x00": "DICOM data without the header of a file",
}


def read(path: Path) -> Image.Image:
    """The film in `path`: full size, upright, 8-bit grey (mode "L"), lungs dark and bones white.

    PNG and JPEG are shown as they are, DICOM as its window tells. Raises FilmError where it can't be used.
    """
    return decoded(content_of(path), where=os.fspath(path))


def view(path: Path) -> str | None:
    """The projection that a DICOM file tells: PA, AP, LAT or other. None where it doesn't, and of other files.

    Raises FilmError where the file can't be read.
    """
    where = os.fspath(path)
    with _opened(path) as file, _quiet:
        if not dicom.is_dicom(file.read(dicom.MAGIC_AT + len(dicom.MAGIC))):
            return None
        return dicom.view_of(file, where=where)


def content_of(path: Path) -> bytes:
    """The bytes of a film's file. Raises FilmError."""
    where = os.fspath(path)
    with _opened(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_FILE_BYTES:
            told = f"the file has {size >> 20:,} MiB, more than the {MAX_FILE_BYTES >> 20:,} MiB of a large film"
            raise FilmError("too-large", where=where, told=told)
        try:
            content = file.read(MAX_FILE_BYTES)
        except OSError:
            raise FilmError("unreadable", where=where) from None
    if not content:
        raise FilmError("empty", where=where)
    return content


def decoded(content: bytes, *, where: str) -> Image.Image:
    """The film whose file has this `content`; see `read`. It carries nothing but its pixels."""
    try:
        from PIL import Image
    except ImportError:
        raise lacks("PIL", where=where) from None
    with _quiet:
        if content.startswith((pictures.PNG, pictures.JPEG)):
            film = pictures.read_picture(content, where=where)
        elif dicom.is_dicom(content):
            film = dicom.read_dicom(content, where=where)
        else:
            kind = next((kind for start, kind in _OTHERS.items() if content.startswith(start)), None)
            if kind:
                raise FilmError("unsupported", where=where, told=f"this is {kind}, which is not read")
            raise FilmError("not-an-image", where=where)
    bare = Image.new("L", film.size)
    bare.paste(film)
    return bare


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    where = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for somebody to write
            raise FilmError("not-a-file", where=where)
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise FilmError(_OS_REASONS.get(error.errno or 0, "unreadable"), where=where) from None
    except ValueError:  # a zero byte, or half a character
        raise FilmError("missing", where=where) from None
    with file:
        yield file


class _Quiet:
    """While a film is read, no warning and no log of the decoders, which quote what stands in a file's header.

    Filters and loggers belong to the whole process. Where films are read in threads, the first reader sets them and the
    last one puts them back. What is logged stops at a handler that drops it: a logger's level would do as well, but to
    set one clears what all loggers of the process remember, which beside a training stack takes longer than a film.
    """

    _LOGGERS = tuple(map(logging.getLogger, ("PIL", "pydicom", "pylibjpeg")))
    _DROPS = logging.NullHandler()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._before = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._before.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                for logger in self._LOGGERS:
                    self._before.callback(setattr, logger, "propagate", logger.propagate)
                    logger.addHandler(self._DROPS)  # which is there once, however often
                    logger.propagate = False
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._before.close()


_quiet = _Quiet()
