"""Rows of CSV, TSV and their kin, so that one broken row costs one row.

One stray quote can swallow the rows after it: most readers go on with whatever comes of it. Here quoting is strict, and
after an error reading resumes at the next line that looks like a row.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from cxr_reason.errors import InputError
from cxr_reason.streams import HEAD_BYTES, Lines, Row

FIELD_CHARACTERS = 16 * 1024 * 1024
# Characters that may be read a second time, after broken quotes: beyond it a hostile file would cost quadratic time.
REPLAY_CHARACTERS = 4 * FIELD_CHARACTERS
# Lines after broken quotes that are passed over in search of one that looks like a row.
RESYNC_LINES = 100


class Table:
    """The rows of a CSV, its delimiter told by the header.

    Quoting is strict. After a quoting error, the lines of the broken row are read again one by one: the first that has
    the right number of columns, and whose first cell is shaped like those before, is a row again. What was passed over
    is one unreadable row.
    """

    def __init__(self, lines: Lines) -> None:
        self._name = lines.name
        self._lines = lines
        self._source = iter(lines)
        self._taken: list[tuple[int, str, str | None]] = []
        self._again: deque[tuple[int, str, str | None]] = deque()
        self._spoilt = False
        self._replays = REPLAY_CHARACTERS
        self._firsts: deque[str] = deque(maxlen=20)
        first = next((text for text in self if text.strip()), "")
        self._again.extend(self._taken[-1:] if first else ())
        self._taken.clear()
        csv.field_size_limit(max(FIELD_CHARACTERS, csv.field_size_limit()))
        self._reader = csv.reader(self, delimiter=_delimiter(first), strict=True)
        self.columns = self._header()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next line for the CSV reader, which may be one that is read again. Can go on after its end."""
        if self._again:
            entry = self._again.popleft()
        else:
            text = next(self._source)
            entry = (self._lines.number, text, self._lines.fault)
        if entry[2]:
            self._spoilt = True
        self._taken.append(entry)
        return entry[1]

    def _header(self) -> list[str]:
        try:
            columns = [name.strip() for name in next(self._reader, [])]
            problem = None
        except csv.Error as error:
            columns, problem = [], f"can't be read: {_csv_problem(error)}"
        where = f"{self._name}:{self._taken[0][0]}" if self._taken else self._name
        fault = next((fault for _, _, fault in self._taken if fault), None)
        if fault or problem:
            raise InputError(f"the header: {fault or problem}", where=where)
        if columns and not columns[0] and self._lines.unnamed:
            columns[0] = self._lines.unnamed
        places: dict[str, int] = {}
        for number, column in enumerate(columns, 1):
            if not column:
                raise InputError(
                    f"column {number} has no name", where=where, hint="Name it in the header, or leave the column out."
                )
            if places.setdefault(column, number) != number:
                # A file without a header may have text here: the name is not quoted in full.
                raise InputError(
                    f"columns {places[column]} and {number} have the same name {column[:32]!r}",
                    where=where,
                    hint="Rename one of them in the header.",
                )
        return columns

    def rows(self) -> Iterator[Row]:
        name, columns, width = self._name, self.columns, len(self.columns)
        reader, taken, firsts = self._reader, self._taken, self._firsts
        broken: _Broken | None = None
        while True:
            taken.clear()
            self._spoilt = False
            problem = None
            values: list[str] = []
            try:
                values = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                problem = _csv_problem(error)
            if problem is None and broken and self._continues(broken, values):
                problem = broken.problem
            if problem:
                broken = broken or _Broken(problem, taken[0][0])
                again = self._read_again()
                for _, text, _ in taken[:1] if again else taken:
                    broken.add(text)
                continue
            if broken:
                yield broken.row(name)
                broken = None
            line = taken[0][0]
            if self._spoilt:
                yield Row(name, line, None, next(fault for _, _, fault in taken if fault), _joined(taken))
            elif len(values) == width:
                firsts.append(values[0])
                yield Row(name, line, dict(zip(columns, values, strict=True)))
            elif any(map(str.strip, values)):
                ragged = f"{len(values)} columns where the header has {width}"
                yield Row(name, line, None, ragged, _joined(taken))
        if broken:
            yield broken.row(name)

    def _continues(self, broken: _Broken, values: list[str]) -> bool:
        """Whether `values` are still a piece of the broken row. Better to lose a row than to make one of shreds."""
        if broken.lines >= RESYNC_LINES:
            return False
        shapes = {_shape(first) for first in self._firsts}
        return len(values) != len(self.columns) or (bool(shapes) and _shape(values[0]) not in shapes)

    def _read_again(self) -> bool:
        """Give the lines after the first to the CSV reader again, unless that has been done too often."""
        rest = self._taken[1:]
        self._replays -= sum(len(text) for _, text, _ in rest)
        if self._replays >= 0:
            self._again.extendleft(reversed(rest))
        return self._replays >= 0


@dataclass(slots=True)
class _Broken:
    """A row whose quotes don't match, and the lines after it that may belong to it."""

    problem: str
    line: int
    lines: int = 0
    raw: str = ""

    def add(self, text: str) -> None:
        self.lines += 1
        if len(self.raw) < HEAD_BYTES:
            self.raw += text

    def row(self, name: str) -> Row:
        passed = f" (lines {self.line} to {self.line + self.lines - 1} are left out)" if self.lines > 1 else ""
        return Row(name, self.line, None, self.problem + passed, self.raw)


def _joined(taken: list[tuple[int, str, str | None]]) -> str:
    return "".join(text for _, text, _ in taken)


def _csv_problem(error: csv.Error) -> str:
    if "field larger" in str(error):
        return f"a field longer than {FIELD_CHARACTERS >> 20} MiB: probably a quote that is never closed"
    if "unexpected end" in str(error):
        return "the file ends inside quotes: a torn last line, or a quote that is never closed"
    if "new-line" in str(error):
        return "a carriage return outside quotes"
    return f"the quotes don't match: {error}"


def _shape(cell: str) -> str:
    """What a cell looks like: ``CXR-0012`` and ``CXR-7`` are both ``a-9``."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", cell.strip()[:64]))


def _delimiter(header: str) -> str:
    """The one of comma, tab, semicolon and bar that cuts `header` into most columns; a comma if none does."""
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(",\t;|", key=unquoted.count)
