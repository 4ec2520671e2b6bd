"""Rows in: CSV, JSON, Arrow and Parquet, from a file, a folder or a pipe, in bounded memory.

`Input` looks at the content, not at the file's name: gzip, Arrow and Parquet by their magic, JSON lines by the first
``{``, an array of objects by its ``[``, a table's delimiter by its header. A row that can't be read (ragged, torn, not
UTF-8, not JSON) comes out as a `Row` with an `error` and the rest goes on; an input that can't be read as a whole
raises InputError. `READERS` holds the formats of text; `columnar` reads the others.

Here are also the keys by which rows are grouped to studies, sharded and sampled: they depend on nothing but themselves.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import os
import re
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import jsonlines

from cxr_reason import console, records
from cxr_reason.errors import InputError

if TYPE_CHECKING:
    from cxr_reason import columnar

HEAD_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024
LINE_BYTES = 32 * 1024 * 1024
# A study has a handful of rows; more under one id is a wrong column, and must not be collected in memory.
GROUP_ROWS = 1000

DAMAGED_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)
# Bytes that text doesn't have.
CONTROLS = bytes({*range(32), 127} - set(b"\t\n\v\f\r\x1b\x1e"))

# How Arrow's stream and file and Parquet start. UTF-16's byte order mark is two bytes of the first.
ARROW = (b"\xff\xff\xff\xff", b"ARROW1")
PARQUET = b"PAR1"
MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}


@dataclass(slots=True)
class Row:
    """One row of input, or what can be said of one that couldn't be read."""

    file: str
    """The input's name as the user gave it, ``<stdin>`` for a pipe."""
    line: int
    """The physical line on which the row starts, from 1; a CSV's header is line 1. Of Arrow and Parquet, which row."""
    data: dict[str, Any] | None
    """Column (or JSON key) to value; values of a CSV are always text. None when the row is unreadable."""
    error: str | None = None
    """Why the row is unreadable. Never quotes its text."""
    raw: str | None = None
    """What stands there, for an unreadable row: for ``--rejects`` only."""


@dataclass(slots=True)
class Group:
    """Adjacent rows with the same key: a study. Every row is readable, and there is at least one."""

    key: str
    rows: list[Row]
    barred: str | None = None
    """Why it must not be used, in a sentence."""
    prior: list[Row] | None = None
    """The rows of the patient's study before, where a command looks for it (`mining.priors`)."""
    no_prior: str | None = None
    """Why it has none, where one was looked for."""


class Source(Protocol):
    """Where rows come from: a file or a pipe (`Input`), a published archive (`layouts`), another source and the tables
    joined to it (`joins`). The same input gives the same rows in the same order, whenever it is read.
    """

    @property
    def name(self) -> str:
        """As the user gave it."""

    @property
    def path(self) -> Path | None:
        """The file or folder; None for a pipe."""

    @property
    def known(self) -> Mapping[str, str]:
        """Which column is what, {field: column}, where that needs no guess."""

    @property
    def language(self) -> str:
        """What the reports are written in, as ``en``; English is what can be read."""

    def header(self) -> list[str]:
        """The columns. Loses no row."""

    def sample(self) -> dict[str, Any]:
        """The first readable row, empty where there is none. Loses no row."""

    def rows(self) -> Iterator[Row]:
        """All rows in order, unreadable ones too. Raises InputError where the input as a whole can't be used."""

    def digest(self) -> Any:
        """A hash object over all that was read so far, frozen at this moment (`.hexdigest()` tells it)."""

    def fraction(self) -> float | None:
        """The share of the input that was read so far, in [0, 1]; None where that is unknown."""

    def rewind(self) -> None:
        """Start again at the first row. Raises InputError where that can't be done."""

    def notes(self) -> list[str]:
        """What a person should know of the rows read so far, in sentences: keys without a partner, missing reports."""

    def close(self) -> None:
        """Let go of files."""


# ---------------------------------------------------------------------------------------------------------- reading


class Input:
    """A `Source`: a file, a folder, or stdin for ``-`` and None.

    Opened when first asked; a pipe can be read only once. `formats` are those of `READERS` that the command takes;
    every command takes Arrow and Parquet. `encoding` overrides UTF-8 (with or without BOM). `unnamed` names a table's
    first column where the header doesn't, as in what pandas writes with its index.
    """

    known: Mapping[str, str] = MappingProxyType({})
    language = "en"

    def __init__(
        self,
        source: str | Path | None,
        *,
        formats: Sequence[str] = ("csv", "jsonl"),
        encoding: str | None = None,
        unnamed: str | None = None,
    ) -> None:
        self.path = None if source is None or str(source) == "-" else Path(source)
        self.name = "<stdin>" if self.path is None else str(source)
        self._formats = formats
        self._encoding = known_encoding(encoding)
        self._unnamed = unnamed
        self._file: BinaryIO | None = None
        self._lines: Lines | None = None
        self._table: columnar.Table | None = None
        self._columns: list[str] | None = None
        self._rows: Iterator[Row] = iter(())
        self._ahead: deque[Row] = deque()

    def header(self) -> list[str]:
        """The columns of a table, the keys of the first readable object of JSON lines. Loses no row."""
        self._open()
        return list(self._columns) if self._columns is not None else list(self.sample())

    def sample(self) -> dict[str, Any]:
        """The first readable row among the first hundred, empty where there is none. Loses no row."""
        self._open()
        while not any(row.data for row in self._ahead) and len(self._ahead) < 100:
            row = next(self._rows, None)
            if row is None:
                break
            self._ahead.append(row)
        return next((row.data for row in self._ahead if row.data), {})

    def rows(self) -> Iterator[Row]:
        """All rows in order, unreadable ones too. Raises InputError where the input as a whole can't be used."""
        self._open()
        empty = True
        try:
            while self._ahead:
                empty = False
                yield self._ahead.popleft()
            for row in self._rows:
                empty = False
                yield row
        finally:
            self.close()
        if empty:
            raise InputError("no rows", where=self.name, hint="The input is empty, or holds only a header.")

    def digest(self) -> Any:
        """A hash object over all that was read so far, frozen at this moment (`.hexdigest()` tells it)."""
        read = self._table or self._lines
        assert read is not None
        return read.digest.copy()

    def fraction(self) -> float | None:
        """The share of the file that was read so far, in [0, 1]; None for a pipe, or after the end."""
        if self._table is not None and self._file is None:
            return self._table.fraction()
        if self.path is None or self._file is None:
            return None
        size = os.fstat(self._file.fileno()).st_size
        return min(1.0, self._file.tell() / size) if size else None

    def rewind(self) -> None:
        """Start again at the first row. Raises InputError for a pipe."""
        if self.path is None or not (self.path.is_file() or self.path.is_dir()):
            raise InputError("a pipe can't be read a second time", where=self.name)
        self.close()
        self._lines, self._table, self._columns = None, None, None
        self._ahead.clear()

    def notes(self) -> list[str]:
        return []

    def close(self) -> None:
        if self._file is not None and self.path is not None:
            self._file.close()
        self._file = None
        if self._table is not None:
            self._table.close()

    def _open(self) -> None:
        if self._lines is not None or self._table is not None:
            return
        if self.path is not None and self.path.is_dir():
            from cxr_reason import columnar  # it imports this module, and pyarrow when it reads

            self._take(columnar.of_folder(self.path, self.name))
            return
        self._file = self._open_file()
        try:
            head, stream = _with_head(self._file, self.name)
            if head.startswith((*ARROW, PARQUET)):
                self._open_columns(head, stream)
                return
            encoding = self._encoding or _encoding_of(head, self.name)
            old_mac = b"\r" in head and b"\n" not in head
            self._lines = Lines(stream, self.name, encoding, carriage_returns=old_mac)
            self._lines.unnamed = self._unnamed
            format_name = _format_of(head, encoding, self._formats, self.name)
            self._columns, self._rows = READERS[format_name](self._lines)
        except BaseException:
            self.close()
            raise

    def _open_columns(self, head: bytes, stream: io.BufferedReader) -> None:
        from cxr_reason import columnar

        if head.startswith(ARROW):
            self._take(columnar.Table([columnar.StreamPart(self.name, lambda: stream)]))
            return
        self.close()
        if self.path is None:
            raise InputError("Parquet can't be read from a pipe", where=self.name, hint="Name the file instead.")
        with self._open_file() as file:
            if file.read(len(PARQUET)) != PARQUET:
                raise InputError("this is a gzipped Parquet file", where=self.name, hint="Unpack it: gunzip FILE")
        self._take(columnar.Table([columnar.ParquetPart(self.name, self.path)]))

    def _take(self, table: columnar.Table) -> None:
        self._table, self._columns, self._rows = table, table.columns, table.rows()

    def _open_file(self) -> BinaryIO:
        if self.path is None:
            return sys.stdin.buffer
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise InputError(error.strerror or "can't be opened", where=self.name) from None


class _Rejoined(io.RawIOBase):
    """A stream with the bytes that were taken off its start put back. Reads no more than it must: pipes stay live."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            piece, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
            buffer[: len(piece)] = piece
            return len(piece)
        return int(self._stream.readinto1(buffer))


def _with_head(stream: Any, name: str) -> tuple[bytes, io.BufferedReader]:
    """The first bytes of `stream`, unpacked if it is gzipped, and the whole stream, unpacked."""
    head, stream = _peek(stream, lambda head: len(head) >= 2)
    if head[:2] == b"\x1f\x8b":
        stream = io.BufferedReader(gzip.GzipFile(fileobj=stream, mode="rb"), HEAD_BYTES)
    try:
        # An Arrow stream may have to wait for its next batch, and any byte of it be a newline.
        head, stream = _peek(stream, lambda head: b"\n" in head.lstrip() or head.startswith((*ARROW, PARQUET)))
    except DAMAGED_GZIP:
        raise _damaged(name, 1) from None
    if not head:
        raise InputError("no rows", where=name, hint="The input is empty.")
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if kind:
        raise InputError(f"this is {kind}", where=name, hint="Give CSV, TSV, JSON lines, Arrow or Parquet.")
    return head, stream


def _peek(stream: Any, enough: Callable[[bytes], bool]) -> tuple[bytes, io.BufferedReader]:
    head = b""
    while not enough(head) and len(head) < HEAD_BYTES:
        piece = stream.read1(HEAD_BYTES)
        if not piece:
            break
        head += piece
    return head, io.BufferedReader(_Rejoined(head, stream), HEAD_BYTES)


def _damaged(name: str, line: int) -> InputError:
    what = "the gzip data ends here or is damaged"
    return InputError(what, where=f"{name}:{line}", hint="Make or copy the file again.")


def known_encoding(encoding: str | None) -> str | None:
    """The codec's own name; "utf-8-sig" is "utf-8", whose BOM is taken off anyway. None stays None."""
    if not encoding:
        return None
    try:
        "\n".encode(encoding)
        return codecs.lookup(encoding).name.removesuffix("-sig")
    except LookupError:
        raise InputError(f"there is no encoding {encoding!r}", hint="Common ones: utf-8, cp1252, utf-16.") from None


def _encoding_of(head: bytes, name: str) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    controls = len(head) - len(head.translate(None, CONTROLS))
    undecodable = len(head) - len(head.decode("utf-8", "ignore").encode()) > 3  # the head may end inside a character
    if head.count(b"\0") * 10 > len(head) or (undecodable and controls * 50 > len(head)):
        raise InputError(
            "this is binary data, or text in UTF-16",
            where=name,
            hint="Give CSV, TSV or JSON lines, plain or gzipped. UTF-16 needs --encoding utf-16-le (or utf-16-be).",
        )
    return "utf-8"


def _format_of(head: bytes, encoding: str, formats: Sequence[str], name: str) -> str:
    text = head.decode(encoding, errors="replace").lstrip("\ufeff\x1e \t\r\n")
    if text.startswith("["):
        if not re.match(r"\[\s*(?:[{\]]|$)", text):
            raise InputError("this is a JSON array, but not of objects", where=name, hint="Give one object a row.")
        return "array"
    # A torn or spoilt first line doesn't make a table of JSON lines.
    found = "jsonl" if text.startswith("{") or re.search(r'^\{"', text, re.MULTILINE) else "csv"
    if found not in formats:
        if found == "csv" and not text:
            return "jsonl"
        raise InputError(
            f"this looks like {'a table' if found == 'csv' else 'JSON lines'}, not {' or '.join(formats)}",
            where=name,
            hint="Records are JSON lines, as `cxr mine` writes them." if found == "csv" else "",
        )
    return found


class Lines:
    """The lines of a stream as text, numbered from 1 and hashed as they go.

    A line that can't be decoded or that is too long comes out spoilt (with escapes, or cut), `fault` saying why.
    """

    def __init__(self, stream: BinaryIO, name: str, encoding: str, *, carriage_returns: bool = False) -> None:
        self.name = name
        self.number = 0
        self.fault: str | None = None
        self.unnamed: str | None = None
        """What to call a table's first column if the header leaves it without a name."""
        self.digest = hashlib.blake2b(digest_size=16)
        self._declared = self._encoding = encoding
        self._readline: Callable[[int], bytes] = stream.readline
        # Bytes are split before they are decoded, which is fast and isolates what can't be decoded in its line. That
        # takes lines that end in one byte \n; anything else is decoded first and must be without a fault.
        if carriage_returns or "\n".encode(encoding) != b"\n":
            text = io.TextIOWrapper(stream, encoding=encoding, newline=None if carriage_returns else "\n")
            self._readline = lambda limit: text.readline(limit).encode()
            self._encoding = "utf-8"

    @property
    def encoding(self) -> str:
        return self._declared

    def _read(self, limit: int) -> bytes:
        try:
            line = self._readline(limit)
        except DAMAGED_GZIP:
            raise _damaged(self.name, self.number + 1) from None
        except UnicodeError:
            what = f"not {self._declared} text from about here on"
            raise InputError(what, where=f"{self.name}:{self.number + 1}") from None
        self.digest.update(line)
        return line

    def pieces(self) -> Iterator[tuple[int, str]]:
        """The text in lines, very long ones in parts, each with its number. What can't be decoded is a lone surrogate.

        For readers whose rows are no lines; `__iter__` is for those whose rows are.
        """
        decode = codecs.getincrementaldecoder(self._encoding)("surrogateescape").decode
        while line := self._read(PIECE_BYTES):
            if text := decode(line):
                yield self.number + 1, text
            self.number += line.endswith(b"\n")
        if text := decode(b"", True):
            yield self.number + 1, text

    def __iter__(self) -> Iterator[str]:
        encoding = self._encoding
        while line := self._read(LINE_BYTES):
            too_long = len(line) >= LINE_BYTES and not line.endswith(b"\n")
            if too_long:
                self._skip_rest()
            self.number += 1
            self.fault = None
            if too_long:
                self.fault = f"longer than {LINE_BYTES >> 20} MiB"
                line = line[:HEAD_BYTES] + b"\n"
            if self.number == 1 and line.startswith(codecs.BOM_UTF8):
                line = line[len(codecs.BOM_UTF8) :]
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError as error:
                text = line.decode(encoding, errors="backslashreplace")
                self.fault = self.fault or (
                    f"not {encoding} text (byte 0x{line[error.start]:02x} in column {error.start + 1}); "
                    "if the whole file is in another encoding, name it: --encoding cp1252"
                )
            if "\0" in text:
                self.fault = self.fault or "holds NUL bytes: not text"
            yield text

    def _skip_rest(self) -> None:
        while piece := self._read(LINE_BYTES):
            if piece.endswith(b"\n"):
                return


def _read_jsonl(lines: Lines) -> tuple[None, Iterator[Row]]:
    return None, _jsonl_rows(lines)


def _jsonl_rows(lines: Lines) -> Iterator[Row]:
    text = ""

    def filled() -> Iterator[str]:
        nonlocal text
        for text in lines:
            if text.strip():
                yield text

    reader = jsonlines.Reader(filled(), loads=records.Loader())
    while True:
        problem, data = None, None
        try:
            data = reader.read(type=dict)
        except EOFError:
            return
        except jsonlines.InvalidLineError as error:
            problem = json_problem(error.__cause__)
            if not text.endswith("\n"):
                problem += "; the last line is torn: it has no end"
        problem = lines.fault or problem
        if problem:
            yield Row(lines.name, lines.number, None, problem, text)
        else:
            yield Row(lines.name, lines.number, data)


def json_problem(cause: BaseException | None) -> str:
    """What is wrong with a piece of JSON, without quoting it; None where it is valid and no object."""
    if cause is None:
        return "valid JSON, but no object"
    if isinstance(cause, json.JSONDecodeError):
        return f"not valid JSON: {cause.msg} (column {cause.colno})"
    # Other errors (a number of 5,000 digits) may quote the line.
    return f"not valid JSON: {cause}" if isinstance(cause, records.Refused) else "not valid JSON"


def _read_csv(lines: Lines) -> tuple[list[str], Iterator[Row]]:
    from cxr_reason.tables import Table  # it imports this module

    table = Table(lines)
    return table.columns, table.rows()


def _read_array(lines: Lines) -> tuple[None, Iterator[Row]]:
    from cxr_reason.arrays import Array  # it imports this module

    return None, Array(lines).rows()


READERS: dict[str, Callable[[Lines], tuple[list[str] | None, Iterator[Row]]]] = {
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "array": _read_array,
}


# ---------------------------------------------------------------------------------------------- keys, hashes, groups


def stable_hash(*parts: object) -> int:
    """A 64-bit hash of `parts`, the same on every machine and in every run. Over 2**64 it is uniform in [0, 1)."""
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    text = "".join([f"{len(part)}:{part}" for part in map(str, parts)])
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def stable_id(*parts: object) -> str:
    """`stable_hash` as 16 hex digits."""
    return f"{stable_hash(*parts):016x}"


def record_id(record: Mapping[str, Any]) -> Any:
    """The `id` of `record`; one of its study, question, options and report where it has none."""
    options = record.get("options")
    parts = options if isinstance(options, list | tuple) else ()
    return record.get("id") or stable_id(record.get("study_id"), record.get("question"), *parts, record.get("report"))


def with_id(record: dict[str, Any]) -> dict[str, Any]:
    """`record` itself, with its `record_id`."""
    record["id"] = record_id(record)
    return record


def folder_of(file: str, sources: Iterable[str | Path]) -> Path:
    """Where relative paths in the rows of `file` (`Row.file`) begin, which came from one of `sources`: its folder.

    A folder of parts takes the place of a file, so there it is the folder that it lies in.
    """
    for source in sources:
        if Path(file).is_relative_to(source) and Path(source).is_dir():
            return Path(os.path.normpath(Path(source, "..")))
    return Path(file).parent


class Seen:
    """Which keys were met, in a fixed 4 MiB: a Bloom filter, whose yes is wrong for 1 key in 6,000 at a million keys.

    A set of the keys would grow with the input; the answer only decides whether to warn, so "about" will do.
    """

    BITS = 1 << 25

    def __init__(self) -> None:
        self._bits = bytearray(self.BITS // 8)

    def add(self, key: str) -> bool:
        """Note `key`; whether it was (almost certainly) noted before."""
        number = stable_hash(key)
        position, step = number & 0xFFFFFFFF, number >> 32 | 1
        seen = True
        for _ in range(4):
            position = (position + step) & (self.BITS - 1)
            byte, bit = position >> 3, 1 << (position & 7)
            if not self._bits[byte] & bit:
                seen = False
                self._bits[byte] |= bit
        return seen


def group_consecutive(rows: Iterator[Row], key: Callable[[Row], str | None]) -> Iterator[Group | Row]:
    """Adjacent rows with the same `key` as one `Group`; a row without a key is a group of its own, with key "".

    Unreadable rows pass through as they are, after the group that they interrupt. Rows of one study stand together in
    practice; a key that comes back later makes another group, and at the end a warning says how many did. More than
    `GROUP_ROWS` rows of one key are cut, so memory stays bounded.
    """
    seen = Seen()
    apart = 0
    group: Group | None = None
    waiting: list[Row] = []  # unreadable rows met inside a group: the group may go on after them
    for row in rows:
        if row.data is None:
            if group is None or len(waiting) >= GROUP_ROWS:
                yield row
            else:
                waiting.append(row)
            continue
        name = key(row) or ""
        if group is not None and name and name == group.key and len(group.rows) < GROUP_ROWS:
            group.rows.append(row)
            continue
        if group is not None:
            yield group
            yield from waiting
            waiting.clear()
        group = Group(name, [row])
        apart += bool(name) and seen.add(name)
    if group is not None:
        yield group
        yield from waiting
    if apart:
        console.warn(
            f"about {apart:,} studies have rows that don't stand together: each part is taken for a study of its own. "
            "Sort the input by study."
        )
