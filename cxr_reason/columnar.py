"""Rows of Arrow and Parquet in: files, pipes, and folders of them, a batch or a piece of a row group in memory at once.

Records that `arrow` wrote come out as they went in. Any other table gives rows like a CSV's, its values as JSON has
them: times as ISO texts, NaN as a missing value (which is how pandas writes one), binary data as text where it is text;
else it is left out, and a warning names the column. A key whose value is missing is left out.

What is read: Arrow's IPC stream and its file format, which is a stream with a table of contents behind it and is read
as one, so both may come through a pipe; Parquet, which needs a file; and folders: parts with an ``index.json`` as
`parquet` writes them, and what ``datasets`` saves with ``save_to_disk``, with and without splits. `datasets` itself is
not needed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from cxr_reason import arrow, console, records
from cxr_reason.errors import InputError
from cxr_reason.parquet import INDEX
from cxr_reason.streams import Row

# Rows that are Python objects at once, whatever the size of a batch.
ROWS_AT_ONCE = 256
READ_BYTES = 1 << 20

# pandas keeps its row numbers in columns of such names.
_ROW_NUMBERS = "__index_level_"
_AGAIN = "Make or copy the file again; the rows before it are fine."
_OTHER_FOLDERS = "Name a file, a folder that -o chains/ made, or one that save_to_disk made."
_TABLE = re.compile(r"\.(?:csv|tsv|txt|jsonl?|ndjson|arrow|parquet)(?:\.gz)?$", re.IGNORECASE)
_OTHER_PARTS = f"Make or copy the folder again, with its {INDEX}."


class Table:
    """The rows of some parts, which are files or one stream: what `streams.Lines` and its readers are for text."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.digest = hashlib.blake2b(digest_size=16)
        """Over all that was read so far, in whole batches."""
        self._parts = parts
        self._read = 0
        with parts[0].damage(0):
            parts[0].open()
            self.columns = parts[0].columns()
            """The names of the columns, None where the rows are records."""

    def rows(self) -> Iterator[Row]:
        """All rows in order. Raises InputError where a part is damaged, after the rows before the place."""
        for number, part in enumerate(self._parts):
            self._read = number
            yield from part.rows(self.digest)

    def fraction(self) -> float | None:
        """The share of the parts that was read, in [0, 1], None where nobody knows."""
        here = self._parts[self._read].fraction()
        return None if here is None else (self._read + here) / len(self._parts)

    def close(self) -> None:
        for part in self._parts:
            part.close()


@dataclass
class Part(ABC):
    """One file or stream."""

    name: str
    defaults: dict[str, str] = field(default_factory=dict)
    """What its rows say that don't say it themselves: their split."""
    schema: Any = None
    binary: set[str] = field(default_factory=set)

    @abstractmethod
    def open(self) -> None:
        """Read the schema."""

    @abstractmethod
    def batches(self, digest: Any) -> Iterator[Any]:
        """The record batches in order; what was read goes to `digest` before."""

    def fraction(self) -> float | None:
        return None

    def close(self) -> None:  # noqa: B027  (only some parts hold anything open)
        pass

    def columns(self) -> list[str] | None:
        version = arrow.version(self.schema)
        if version is not None and version != arrow.SCHEMA_VERSION:
            raise InputError(f"made by another version of cxr (schema {version})", where=self.name)
        if arrow.is_ours(self.schema):
            return None
        names = [name for name in self.schema.names if not name.startswith(_ROW_NUMBERS)]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"two columns are called {name[:32]!r}", where=self.name, hint="Rename one of them.")
        return [*names, *(name for name in self.defaults if name not in names)]

    def rows(self, digest: Any) -> Iterator[Row]:
        line = 0
        with self.damage(line):
            if self.schema is None:
                self.open()
            columns = self.columns()
        digest.update(self.schema.serialize())
        read = self._records if columns is None else self._cells
        batches = self.batches(digest)
        while True:
            with self.damage(line):
                batch = next(batches, None)
            if batch is None:
                return
            with self.damage(line):
                batch.validate(full=True)  # wild offsets would crash the process
            for start in range(0, len(batch), ROWS_AT_ONCE):
                with self.damage(line):
                    piece = list(read(batch.slice(start, ROWS_AT_ONCE), line))
                yield from piece
                line += len(piece)

    def damage(self, line: int) -> _Damage:
        """Turns what pyarrow says of a part that can't be read into an InputError; `line` rows were fine."""
        return _Damage(self.name, line)

    def _records(self, batch: Any, line: int) -> Iterator[Row]:
        for number, (record, extra) in enumerate(arrow.typed(batch), line + 1):
            try:
                yield Row(self.name, number, {**self.defaults, **arrow.with_extra(record, extra)})
            except ValueError:
                yield Row(self.name, number, None, "the column extra doesn't hold the JSON of an object", extra)

    def _cells(self, batch: Any, line: int) -> Iterator[Row]:
        names = [name for name in batch.schema.names if not name.startswith(_ROW_NUMBERS)]
        endless: dict[int, str] = {}
        columns = [self._values(name, batch.column(name), endless) for name in names]
        for place in range(len(batch)):
            if place in endless:
                problem = f"the column {endless[place]!r} holds infinity, which JSON can't say"
                yield Row(self.name, line + place + 1, None, problem)
                continue
            told = {name: column[place] for name, column in zip(names, columns, strict=True)}
            cells = {name: cell for name, cell in told.items() if cell is not None}
            yield Row(self.name, line + place + 1, {**self.defaults, **cells})

    def _values(self, name: str, column: Any, endless: dict[int, str]) -> list[Any]:
        """The values of `column` as JSON has them. Places of numbers that it doesn't have go to `endless`."""
        types = arrow.pyarrow().types
        if types.is_string(column.type) or types.is_integer(column.type):
            return list(column.to_pylist())
        if (kind := _coarse(column.type)) != column.type:
            column = column.cast(kind, safe=False)
        values = []
        for place, value in enumerate(column.to_pylist()):
            odd: set[str] = set()
            values.append(plain(value, odd))
            if "infinity" in odd:
                endless[place] = name
            if "binary" in odd and name not in self.binary:
                self.binary.add(name)
                console.warn(f"{self.name}: the column {name!r} holds binary data, which is left out")
        return values


class _Damage:
    """A context in which errors of pyarrow, of gzip and of the disk become an InputError that tells the place."""

    def __init__(self, name: str, line: int) -> None:
        self._where = f"{name}:{line + 1}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        damaged = (arrow.pyarrow().ArrowException, EOFError, OSError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError)
        if isinstance(error, OSError) and error.errno:
            raise InputError(error.strerror or "can't be read", where=self._where) from None
        if isinstance(error, damaged):
            # pyarrow's own words may quote a cell.
            raise InputError("the data ends here or is damaged", where=self._where, hint=_AGAIN) from None


# ----------------------------------------------------------------------------------------------------- streams, files


class _Watched(io.RawIOBase):
    """A stream for pyarrow, which takes one that breaks off between two batches for one that has come to its end."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self.broke_off = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        # In pieces: a damaged stream may announce more than any memory holds.
        pieces = []
        while size > 0 and (piece := self._stream.read(min(size, READ_BYTES))):
            pieces.append(piece)
            size -= len(piece)
        self.broke_off = self.broke_off or size > 0
        return b"".join(pieces)


class StreamPart(Part):
    """Arrow's IPC stream, or a file in the file format, read from what `source` opens."""

    def __init__(self, name: str, source: Callable[[], io.BufferedReader], **told: Any) -> None:
        super().__init__(name, **told)
        self._source = source
        self._file: io.BufferedReader | None = None
        self._reader: Any = None

    def open(self) -> None:
        self._file = self._source()
        if self._file.peek(8).startswith(b"ARROW1"):
            self._file.read(8)  # what follows is a stream
        self._watched = _Watched(self._file)
        self._reader = arrow.pyarrow().ipc.open_stream(self._watched)
        self.schema = self._reader.schema

    def batches(self, digest: Any) -> Iterator[Any]:
        for batch in self._reader:
            for column in batch.columns:
                for buffer in filter(None, column.buffers()):
                    digest.update(buffer)
            yield batch
        if self._watched.broke_off:
            raise EOFError
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._reader = None
            self._file.close()
            self._file = None


class ParquetPart(Part):
    """A Parquet file, of which `expected` rows are wanted if that is known."""

    def __init__(self, name: str, path: Path, *, expected: int | None = None, **told: Any) -> None:
        super().__init__(name, **told)
        self._path = path
        self._expected = expected
        self._file: Any = None
        self._done = 0.0

    def open(self) -> None:
        from pyarrow.parquet import ParquetFile

        self._file = ParquetFile(self._path, pre_buffer=False, buffer_size=READ_BYTES)
        self.schema = self._file.schema_arrow
        if self._expected is not None and self._file.metadata.num_rows != self._expected:
            raise InputError(f"this isn't the file that {INDEX} describes", where=self.name, hint=_OTHER_PARTS)

    def batches(self, digest: Any) -> Iterator[Any]:
        count = self._file.num_row_groups
        for number in range(count):
            batches = self._file.iter_batches(ROWS_AT_ONCE, row_groups=[number], use_threads=False)
            # Of a damaged row group, reading fails with an error, while to ask of its columns aborts the process.
            first = next(batches, None)
            self._hash(number, digest)
            if first is not None:
                yield first
                yield from batches
            self._done = (number + 1) / count
        self.close()

    def _hash(self, number: int, digest: Any) -> None:
        """The bytes of a row group, as they stand in the file: what is made of them may differ in unused bits."""
        group = self._file.metadata.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        end = max(start + column.total_compressed_size for start, column in zip(starts, columns, strict=True))
        with open(self._path, "rb") as file:
            file.seek(min(starts))
            while piece := file.read(min(READ_BYTES, end - file.tell())):
                digest.update(piece)

    def fraction(self) -> float | None:
        return self._done

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


# ------------------------------------------------------------------------------------------------------------ folders


def of_folder(path: Path, name: str) -> Table:
    """The rows of a folder that `parquet` or ``save_to_disk`` wrote. Raises InputError where it is none of these."""
    if (path / "dataset_dict.json").is_file():
        splits = _texts(_told(path / "dataset_dict.json", name), "splits")
        parts = [part for split in splits for part in _saved(path / split, f"{name}/{split}", split)]
    elif (path / "state.json").is_file():
        parts = _saved(path, name, None)
    elif (path / INDEX).is_file():
        parts = _indexed(path, name)
    else:
        left = any(path.glob("part-*.parquet*"))
        tables = sorted(entry.name for entry in path.iterdir() if _TABLE.search(entry.name) and entry.is_file())
        more = f" and {len(tables) - 3:,} more" if len(tables) > 3 else ""
        held = f"It holds {', '.join(tables[:3])}{more}: name one." if tables else _OTHER_FOLDERS
        raise InputError(
            f"this folder holds no {INDEX}, state.json or dataset_dict.json",
            where=name,
            hint="Whoever wrote its parts was stopped: run the same command again." if left else held,
        )
    if not parts:
        raise InputError("no rows", where=name, hint="The folder has no parts.")
    return Table(parts)


def _indexed(path: Path, name: str) -> list[Part]:
    index = _told(path / INDEX, name)
    try:
        version, listed = index["schema"], [(part["file"], part["rows"], part["bytes"]) for part in index["parts"]]
    except (KeyError, TypeError):
        raise InputError("this isn't an index of parts", where=f"{name}/{INDEX}", hint=_OTHER_PARTS) from None
    if version != arrow.SCHEMA_VERSION:
        raise InputError(f"made by another version of cxr (schema {version})", where=f"{name}/{INDEX}")
    parts: list[Part] = []
    for file, rows, size in listed:
        part = path / _inside(file, f"{name}/{INDEX}")
        if not part.is_file() or part.stat().st_size != size:
            what = "isn't the file that the index describes" if part.is_file() else "is missing"
            raise InputError(f"this part {what}", where=f"{name}/{file}", hint=_OTHER_PARTS)
        parts.append(ParquetPart(f"{name}/{file}", part, expected=rows))
    return parts


def _saved(path: Path, name: str, split: str | None) -> list[Part]:
    """The files of a dataset that ``save_to_disk`` wrote."""
    state = _told(path / "state.json", name)
    try:
        listed = [entry["filename"] for entry in state["_data_files"]]
    except (KeyError, TypeError):
        raise InputError("this isn't the state of a dataset", where=f"{name}/state.json") from None
    files = [_inside(file, f"{name}/state.json") for file in listed]
    # A dataset without splits calls itself "train" too, whatever it is: only the name of a folder counts.
    split = records.SPLIT_NAMES.get(split or "", split)
    defaults = {"split": split} if split in records.SPLITS else {}
    return [StreamPart(f"{name}/{file}", partial(_opened, path / file), defaults=dict(defaults)) for file in files]


def _inside(file: Any, where: str) -> str:
    """`file`, the bare name of a file in the folder: what names another place is not followed."""
    if not isinstance(file, str) or Path(file).name != file:
        raise InputError("it names a part that isn't a file of this folder", where=where, hint=_OTHER_PARTS)
    return file


def _opened(path: Path) -> io.BufferedReader:
    return io.BufferedReader(io.FileIO(path), READ_BYTES)


def _told(path: Path, name: str) -> dict[str, Any]:
    where = f"{name}/{path.name}"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(error.strerror or "can't be read", where=where) from None
    except ValueError:
        raise InputError("this isn't JSON", where=where) from None
    if not isinstance(told, dict):
        raise InputError("this is no object", where=where)
    return told


def _texts(told: dict[str, Any], key: str) -> list[str]:
    values = told.get(key)
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


# ------------------------------------------------------------------------------------------------------ other tables


def plain(value: Any, odd: set[str]) -> Any:
    """`value`, as pyarrow gives it, as JSON has it; what that can't say is None and noted in `odd`.

    Numbers without a fraction that a decimal type holds are integers; keys whose value is missing are left out.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if math.isinf(value):
                odd.add("infinity")
            return value if math.isfinite(value) else None
        case dict():
            cells = {str(key): plain(entry, odd) for key, entry in value.items()}
            return {key: entry for key, entry in cells.items() if entry is not None}
        case list() | tuple():
            return [plain(entry, odd) for entry in value]
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            try:
                text = value.decode()
            except UnicodeDecodeError:
                text = "\0"
            if "\0" in text:
                odd.add("binary")
            return None if "\0" in text else text
        case _:
            return str(value)


def _coarse(kind: Any) -> Any:
    """`kind` with times in microseconds where they are in nanoseconds, which Python's don't have."""
    pa = arrow.pyarrow()
    types = pa.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if types.is_struct(kind):
        return pa.struct([field.with_type(_coarse(field.type)) for field in kind])
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_coarse(kind.value_type)))
    return kind
