"""What a command is about to write over: never what it reads, and nothing that isn't from an earlier run of it.

A run that is given again must be able to replace its own output, so files are told by what stands in them: a record by
its provenance, a line of rejects by its keys, a page by its mark, a table by its header. A sheet that a reader has
begun to fill is theirs.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from cxr_reason.errors import UsageError
from cxr_reason.pages import MARK

HEAD_BYTES = 64 * 1024
LINE_BYTES = 32 * 1024 * 1024
SHEET_BYTES = 64 * 1024 * 1024

_COLUMNS_OF_ANSWERS = ("verdict", "side_correct", "severity_correct", "reader", "comment")
_SHEET = {"id", "claim", "statement", *_COLUMNS_OF_ANSWERS}
_KEY = {"id", "claim", "verdict", "basis", "stratum", "stratum_size"}
_LABELS = {"id", "study_id", "No Finding", "normal", "acute", "understood"}


class OutputError(UsageError):
    """A file that must not be written. Raised before anything is read."""


def check(inputs: Iterable[str], outputs: Mapping[str, str], *, stage: str, force: bool = False) -> None:
    """Raise OutputError where a file of `outputs`, {option: path}, must not be written by the command `stage`.

    It must be none of `inputs`, among which "-" is stdin, and no other output; with `force`, anything else. Pipes and
    devices may be anything.
    """
    read = [(path, _identity(path)) for path in inputs]
    written: dict[object, str] = {}
    for option, path in outputs.items():
        told = _identity(path)
        if path == "-" or told is None:
            continue
        if any(told & other for _, other in read if other):
            hint = "Name another file: the input would be lost."
            raise OutputError(f"{option} {path} is what is read here", hint=hint)
        for key in told:
            if (other := written.setdefault(key, option)) != option:
                raise OutputError(f"{other} and {option} each need a file of their own", where=path)
    if not force:
        for path in outputs.values():
            _require_replaceable(path, stage)


def _identity(path: str) -> set[object] | None:
    """What two names of one file have in common; None for a pipe or a device."""
    try:
        told = os.fstat(sys.stdin.fileno()) if path == "-" else os.stat(path)
    except (AttributeError, OSError, ValueError):  # no such file yet, or no stdin
        return set() if path == "-" else {os.path.realpath(path)}
    if not (stat.S_ISREG(told.st_mode) or stat.S_ISDIR(told.st_mode)):
        return None
    same: set[object] = {(told.st_dev, told.st_ino)}
    return same if path == "-" else same | {os.path.realpath(path)}


def _require_replaceable(path: str, stage: str) -> None:
    if path == "-" or not os.path.isfile(path):
        return
    try:
        problem = _strange(Path(path), stage)
    except OSError as error:
        problem = f"this file exists and can't be read ({error.strerror or 'damaged'})"
    if problem:
        raise OutputError(problem, where=path, hint="Name another file; --force replaces this one.")


def _strange(path: Path, stage: str) -> str | None:
    """Why `path` isn't from an earlier run of `stage`; None where it is, or where nothing stands in it."""
    with open(path, "rb") as raw:
        gzipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(max(0, os.fstat(raw.fileno()).st_size - HEAD_BYTES))
        tail = raw.read()
    try:
        with gzip.open(path) if gzipped else open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
            if b"\n" not in head:
                head += file.readline(LINE_BYTES)
    except EOFError:
        head = b"?"
    if not head:
        return None
    foreign = "this file exists and isn't from cxr"
    if head.startswith((b"\xff\xff\xff\xff", b"ARROW1", b"PAR1")):
        # The names of our columns, in the schema, which stands at the start of the one and at the end of the other.
        return None if all(name in head + tail for name in (b"provenance", b"understood", b"extra")) else foreign
    text = head.decode("utf-8-sig", "replace")
    first = text.partition("\n")[0]
    if first.startswith("{"):
        return _strange_record(first, stage) if first else foreign
    if text.startswith('[\n{"image_path":') or text == "[\n\n]\n" or MARK in text:
        return None
    header, delimiter = _header(first)
    if header >= _LABELS or header >= _KEY:
        return None
    if header >= _SHEET:
        filled = _filled(path, delimiter)
        rows = "1 row of it is" if filled == 1 else f"{filled:,} rows of it are"
        return f"this sheet has been filled: {rows} no longer blank" if filled else None
    return foreign


def _strange_record(line: str, stage: str) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = {}
    if isinstance(record, dict) and {"file", "line", "stage", "reasons"} <= record.keys():
        return None
    made = record.get("provenance") if isinstance(record, dict) else None
    last = made[-1].get("stage") if isinstance(made, list) and made and isinstance(made[-1], dict) else None
    if last is None:
        return "this file exists and isn't from cxr"
    return None if last == stage else f"this file is from cxr {last}, and not from cxr {stage}"


def _header(line: str) -> tuple[set[str], str]:
    """The columns of a table and its delimiter: a spreadsheet may have saved it in another way than it was written."""
    delimiter = max(",;\t", key=line.count)
    try:
        return {name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])}, delimiter
    except csv.Error:
        return set(), delimiter


def _filled(path: Path, delimiter: str) -> int:
    """How many rows of a sheet have something in a column that is a reader's."""
    with open(path, "rb") as file:
        text = file.read(SHEET_BYTES).decode("utf-8-sig", "replace")
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return sum(any((row.get(column) or "").strip() for column in _COLUMNS_OF_ANSWERS) for row in rows)
    except csv.Error:
        return 1
