"""Formats of records, as bytes: what ``--format`` names.

A file is a head, batches and a tail. What comes of a unit (a row or a study) is encoded by itself, so that a record
that can't be said costs its unit only; `units` of them, counted over the whole input, make a batch. Both happen in the
worker processes. Where batches end depends on the input alone, never on time, so the bytes are the same with any number
of processes, and after a run was killed and continued. `WRITERS` holds the formats.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cxr_reason import arrow, radrbench, records
from cxr_reason.sinks import FileSink

Records = Iterable[Mapping[str, Any]]


class Writer(Protocol):
    """A format. `encode` and `batch` are pure and run in workers; the rest is asked for by the one who writes."""

    suffixes: tuple[str, ...]
    """Names that ask for this format; ``.gz`` may follow."""
    units: int
    """How many units of the input make a batch; divides `runner.MEMBER_UNITS`. 1 says that it doesn't matter: the batch
    of any number of units is then their batches with the separator between them."""
    separator: bytes
    """What stands between two batches."""

    def head(self) -> bytes: ...

    def tail(self) -> bytes: ...

    def encode(self, study: Records) -> Any:
        """The records of one unit, ready for `batch`. Raises ValueError like `records.dumps`."""

    def batch(self, encoded: Sequence[Any]) -> bytes:
        """What `encode` made of several units, none of them without records. May not fail."""

    def sink(self, path: str | Path) -> FileSink:
        """Where the bytes go if not to stdout. Raises CxrError where the format can't be written there."""


class JsonLines:
    """One object a line."""

    suffixes: tuple[str, ...] = (".jsonl", ".ndjson")
    units = 1
    separator = b""

    def head(self) -> bytes:
        return b""

    def tail(self) -> bytes:
        return b""

    def encode(self, study: Records) -> Any:
        return b"".join(records.dump_lines(study))

    def batch(self, encoded: Sequence[Any]) -> bytes:
        return self.separator.join(encoded)

    def sink(self, path: str | Path) -> FileSink:
        return FileSink(path)


class RadRBench(JsonLines):
    """A JSON array of items in RadRBench-CXR's own layout, one a line."""

    suffixes: tuple[str, ...] = ()
    separator = b",\n"

    def head(self) -> bytes:
        return b"[\n"

    def tail(self) -> bytes:
        return b"\n]\n"

    def encode(self, study: Records) -> Any:
        """Raises ValueError like `radrbench.to_item` too."""
        return self.separator.join(records.dumps_plain(radrbench.to_item(record)) for record in study)


class Labels(JsonLines):
    """A table for a spreadsheet, a row a study: ids, labels and what else is one number; no report text.

    RFC 4180 in UTF-8, with tabs for `delimiter` as TSV. Labels are 1, 0, -1, blank where unmentioned; `normal` and
    `acute` are 1 or 0, blank where the report doesn't say.
    """

    def __init__(self, delimiter: str, suffix: str) -> None:
        self.suffixes = (suffix,)
        self._delimiter = delimiter

    def head(self) -> bytes:
        return self._rows([(*_IDS, *records.LABELS, *_NUMBERS)])

    def encode(self, study: Records) -> Any:
        from cxr_reason.sheets import safe  # it imports the engine

        lines = []
        for record in study:
            labels = record.get("labels") or {}
            ids = ["" if (value := record.get(name)) is None else safe(value) for name in _IDS]
            numbers = [_number(record.get(name)) for name in _NUMBERS]
            lines.append([*ids, *(_number(labels.get(label)) for label in records.LABELS), *numbers])
        return self._rows(lines)

    def _rows(self, lines: Iterable[Sequence[str]]) -> bytes:
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=self._delimiter).writerows(lines)
        return file.getvalue().encode("utf-8", "backslashreplace")


_IDS = ("id", "study_id", "patient_id", "split", "study_time")
_NUMBERS = ("normal", "acute", "understood")


def _number(value: Any) -> str:
    return "" if value is None else str(int(value) if isinstance(value, bool) else value)


class ArrowStream:
    """Arrow's IPC stream, which needs no seeking and so goes through pipes: a schema, record batches, an end mark.

    A message doesn't depend on those before it, so that a batch can be made anywhere and a file be cut after any.
    """

    suffixes: tuple[str, ...] = (".arrow", ".arrows")
    # Enough that what a batch costs by itself (some 8 KB) doesn't count, and few enough that rows flow through a pipe.
    units = 64
    separator = b""
    compression: str | None = None

    def head(self) -> bytes:
        arrow.pyarrow()
        return bytes(arrow.schema().serialize())

    def tail(self) -> bytes:
        return arrow.END_OF_STREAM

    def encode(self, study: Records) -> Any:
        return arrow.prepare(study)

    def batch(self, encoded: Sequence[Any]) -> bytes:
        rows = [row for study in encoded for row in study]
        return b"".join(arrow.message(batch, compression=self.compression) for batch in arrow.build(rows))

    def sink(self, path: str | Path) -> FileSink:
        return FileSink(path)


class Parquet(ArrowStream):
    """Parquet, made of a compressed Arrow stream when that is whole: see `parquet.ParquetSink`."""

    suffixes: tuple[str, ...] = (".parquet",)
    compression = "zstd"

    def sink(self, path: str | Path) -> FileSink:
        from cxr_reason.parquet import ParquetSink

        return ParquetSink(path)


WRITERS: dict[str, Writer] = {
    "jsonl": JsonLines(),
    "arrow": ArrowStream(),
    "parquet": Parquet(),
    "radrbench": RadRBench(),
    "csv": Labels(",", ".csv"),
    "tsv": Labels("\t", ".tsv"),
}
TABLES = ("csv", "tsv")
"""Formats that hold what a study's report says, and no questions."""


def is_folder(output: str | Path) -> bool:
    """Whether `output` names a folder, for parts: by a slash at its end, or because there is one."""
    return str(output).endswith(os.sep) or Path(output).is_dir()


def format_of(output: str | Path) -> str | None:
    """The format that the name `output` asks for, None where it tells none."""
    if is_folder(output):
        return "parquet"
    name = str(output).lower().removesuffix(".gz")
    return next((format_name for format_name, writer in WRITERS.items() if name.endswith(writer.suffixes)), None)
