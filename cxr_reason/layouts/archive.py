"""What the layouts share: a source of rows that a generator reads, and how archives write times and views."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from cxr_reason import console
from cxr_reason.errors import InputError
from cxr_reason.shelves import require_columns
from cxr_reason.streams import LINE_BYTES, Input, Row, known_encoding


class Archive(ABC):
    """A published archive as a `Source`: reports with what its other tables say of their studies and images.

    Layouts define `known`, `header`, `_read`, and count in `counts` what a person should know; `told` turns these
    counts into sentences. Rows of a study stand together, and so do the studies of a patient. Raises InputError where
    the folder isn't what the layout expects, saying what is missing.
    """

    known: ClassVar[Mapping[str, str]]
    """Which column is what, as `columns.guess_columns` tells it of other tables."""
    told: ClassVar[Mapping[str, str]]
    """A count's name, and what is told with the number."""
    language: ClassVar[str] = "en"
    """What the reports are written in. Those that aren't English are rejected unread."""
    empty: ClassVar[str] = "The archive holds no reports."
    """What to do when there are no rows."""

    def __init__(self, source: str | Path, *, encoding: str | None = None, image_root: str | None = None) -> None:
        self.name = str(source)
        self.path = Path(source)
        if not self.path.exists():
            raise InputError("there is no such folder", where=self.name)
        self.encoding = known_encoding(encoding)
        self.image_root = Path(image_root) if image_root else self.folder
        self.counts: Counter[str] = Counter()
        self._digest = hashlib.blake2b(digest_size=16)
        self._rows: Iterator[Row] | None = None
        self._ahead: deque[Row] = deque()
        self._done = 0

    @property
    def folder(self) -> Path:
        """The archive's folder: where paths of images begin."""
        return self.path.parent if self.path.is_file() else self.path

    @abstractmethod
    def header(self) -> list[str]:
        """The columns of the rows."""

    @abstractmethod
    def _read(self) -> Iterator[Row]:
        """The rows, from the start. What it opens, it closes."""

    def _size(self) -> int | None:
        """How many rows there will be, about; None where that is unknown."""
        return None

    def sample(self) -> dict[str, Any]:
        self._start()
        while not any(row.data for row in self._ahead) and len(self._ahead) < 100:
            row = next(self._hashed(), None)
            if row is None:
                break
            self._ahead.append(row)
        return next((row.data for row in self._ahead if row.data), {})

    def rows(self) -> Iterator[Row]:
        self._start()
        empty = True
        try:
            while self._ahead:
                empty = False
                yield self._ahead.popleft()
            for row in self._hashed():
                empty = False
                yield row
        finally:
            self.close()
        if empty:
            raise InputError("no reports", where=self.name, hint=self.empty)

    def digest(self) -> Any:
        return self._digest.copy()

    def fraction(self) -> float | None:
        size = self._size()
        return min(1.0, self._done / size) if size else None

    def rewind(self) -> None:
        self.close()
        self._rows = None
        self._ahead.clear()
        self._digest = hashlib.blake2b(digest_size=16)
        self._done = 0
        self.counts.clear()

    def notes(self) -> list[str]:
        return [f"{self.told[name]}: {number:,}" for name in self.told if (number := self.counts[name])]

    def close(self) -> None:
        if self._rows is not None:
            self._rows.close()  # type: ignore[attr-defined]  # a generator: its `finally` lets go of the tables

    def _start(self) -> None:
        if self._rows is None:
            self._rows = self._read()

    def _hashed(self) -> Iterator[Row]:
        """The rows, each hashed as it is made: its report, and what the tables say of it."""
        assert self._rows is not None
        for row in self._rows:
            self._done += 1
            self._digest.update(repr((row.file, row.line, row.data, row.error)).encode("utf-8", "surrogatepass"))
            yield row

    def _one_file(self, *patterns: str, needed: str | None = None) -> Path | None:
        """The file of the archive whose name fits the first of `patterns` that any fits, by glob; gzipped or not.

        Raises InputError where two fit the same pattern, and where none fits any but one is `needed`, which says what
        for.
        """
        for pattern in patterns:
            found = sorted(path for end in ("", ".gz") for path in self.folder.glob(pattern + end))
            if len(found) > 1:
                names = " and ".join(str(path.relative_to(self.folder)) for path in found[:2])
                raise InputError(f"{names} are both here", where=self.name, hint="Leave one of them there.")
            if found:
                return found[0]
        if needed:
            raise InputError(f"there is no {patterns[0]}(.gz)", where=self.name, hint=needed)
        return None

    def _main_file(self, pattern: str, needed: str) -> Path:
        """The table that the archive consists of: what the user named, or the one file of the folder that fits."""
        path = self.path if self.path.is_file() else self._one_file(pattern, needed=needed)
        assert path is not None
        return path

    def _one_text(self, path: Path) -> str | Row:
        """The text of a small file, or a Row that says why it can't be read."""
        data = content(path)
        if isinstance(data, Row):
            return data
        encoding = self.encoding or "utf-8"
        try:
            text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            problem = (
                f"not {encoding} text (byte 0x{data[error.start]:02x}); "
                "if the whole archive is in another encoding, name it: --encoding cp1252"
            )
            return Row(str(path), line, None, problem, data.decode(encoding, "backslashreplace"))
        if "\0" in text:
            return Row(str(path), 1, None, "holds NUL bytes: not text", text)
        return text


def content(path: Path) -> bytes | Row:
    """What a small file holds, or a Row that says why it can't be read."""
    try:
        if path.stat().st_size > LINE_BYTES:
            return Row(str(path), 1, None, f"longer than {LINE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        return Row(str(path), 1, None, error.strerror or "can't be opened")


def columns_of(table: Input, needed: Iterable[str]) -> list[str]:
    """The columns of a table that is only looked at. Raises InputError unless `needed` are among them."""
    with closing(table):
        require_columns(table, needed)
        return table.header()


def reading(table: Path | None) -> None:
    """Say that a table is being read: large ones take a while before the first row comes."""
    console.note(f"reading {table}")


def names_in(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """The names in `folder` that fit as a whole, sorted; none where there is no such folder."""
    try:
        # Names alone: a large archive has tens of thousands in a folder.
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if pattern.fullmatch(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(error.strerror or "can't be read", where=str(folder)) from None


def first_existing(root: Path, samples: Iterable[Mapping[str, str]]) -> str | None:
    """Which way of writing paths fits the files that are there: the key of the first path that exists.

    Each sample is one image's path in every way. None where no image is there; then the first way is as good as any.
    """
    for sample in samples:
        for way, path in sample.items():
            if (root / path).exists():
                return way
    return None


def dicom_time(date: str, time: str = "") -> str | None:
    """DICOM's date and time as ISO 8601, to the second: ``21800506`` and ``213014.531`` are 2180-05-06T21:30:14.

    Times that went through a table as numbers have lost their leading zeros: ``839.0`` is 00:08:39. Without a time that
    can be one, the date stands alone; None without such a date.
    """
    date, time = date.strip().removesuffix(".0"), time.strip().partition(".")[0]
    try:
        day = datetime.strptime(date, "%Y%m%d") if re.fullmatch(r"[0-9]{8}", date) else None
    except ValueError:
        day = None
    if day is None:
        return None
    try:
        clock = datetime.strptime(time.zfill(6), "%H%M%S") if re.fullmatch(r"[0-9]{1,6}", time) else None
    except ValueError:
        clock = None
    return f"{day:%Y-%m-%d}T{clock:%H:%M:%S}" if clock else f"{day:%Y-%m-%d}"


def image(path: str, view: str | None, *, portable: bool = False) -> dict[str, Any]:
    """An image as records hold it: what isn't known isn't said."""
    entry: dict[str, Any] = {"path": path}
    if view:
        entry["view"] = view
    if portable:
        entry["portable"] = True
    return entry
