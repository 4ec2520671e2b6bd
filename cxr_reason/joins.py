"""``--join FILE:key``: the columns of other tables, added to the rows of an input.

A row gets the columns of the one row of the table that has its key; a row without a partner goes on without them. Both
sides are counted. Tables lie on disk meanwhile (`shelves`), so their size is no matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_reason import console
from cxr_reason.columns import listed
from cxr_reason.errors import EXIT_USAGE, InputError
from cxr_reason.shelves import Shelf, key_text
from cxr_reason.streams import Input, Row, Source


class JoinError(InputError):
    """A ``--join`` that can't be: a column that isn't there, or that both sides have."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True, slots=True)
class Join:
    """A table to be joined: `ours` is the column of the input, `theirs` the table's, with the same keys in both."""

    file: str
    ours: str
    theirs: str

    @classmethod
    def parse(cls, text: str) -> Join:
        """Read ``FILE:key`` or ``FILE:ours=theirs``; the file's name may have colons. Raises ValueError."""
        file, _, key = text.rpartition(":")
        ours, equals, theirs = (part.strip() for part in key.partition("="))
        if not file or not ours or (equals and not theirs):
            raise ValueError(f"{text!r}: write FILE:COLUMN, as in labels.csv:study_id, or FILE:OURS=THEIRS")
        return cls(file, ours, theirs or ours)

    def __str__(self) -> str:
        return f"{self.file}:{self.ours}={self.theirs}"


class Joined:
    """A `Source`: the rows of another, with the columns of `joins`. The tables are read when it is made.

    Raises JoinError for a column of keys that isn't there, or a column that the rows have already; see `Shelf` for what
    else a table may not be.
    """

    def __init__(self, source: Source, joins: Sequence[Join], *, encoding: str | None = None) -> None:
        self._source = source
        self._joins = list(joins)
        self._header = source.header()
        self._shelves: list[Shelf] = []
        self._matched = [0] * len(self._joins)
        self._lonely = [0] * len(self._joins)
        self._ended = False
        try:
            for join in self._joins:
                self._shelves.append(self._shelf(join, encoding))
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def path(self) -> Path | None:
        return self._source.path

    @property
    def known(self) -> Mapping[str, str]:
        return self._source.known

    @property
    def language(self) -> str:
        return self._source.language

    def header(self) -> list[str]:
        return list(self._header)

    def sample(self) -> dict[str, Any]:
        return self._source.sample()

    def rows(self) -> Iterator[Row]:
        for row in self._source.rows():
            if row.data is not None:
                self._add(row, row.data)
            yield row
        self._ended = True
        for join, matched, lonely in zip(self._joins, self._matched, self._lonely, strict=True):
            if lonely and not matched:
                console.warn(f"{join.file}: not one row found its key; is {join.ours!r} the right column?")

    def digest(self) -> Any:
        digest = self._source.digest()
        for shelf in self._shelves:
            digest.update(shelf.digest)
        return digest

    def fraction(self) -> float | None:
        return self._source.fraction()

    def rewind(self) -> None:
        self._source.rewind()
        self._matched, self._lonely, self._ended = [0] * len(self._joins), [0] * len(self._joins), False
        for shelf in self._shelves:
            shelf.forget()

    def notes(self) -> list[str]:
        """For each table, how many rows found a partner; and once all rows are read, how many of its keys did not."""
        notes = self._source.notes()
        for shelf, matched, lonely in zip(self._shelves, self._matched, self._lonely, strict=True):
            told = [f"{matched:,} of {matched + lonely:,} rows found their key"]
            if self._ended:
                told.append(f"{shelf.keys - shelf.found:,} of its {shelf.keys:,} keys found no row")
            if shelf.keyless:
                told.append(f"{shelf.keyless:,} of its rows have no key")
            notes.append(f"{shelf.name}: {', '.join(told)}")
        return notes

    def close(self) -> None:
        self._source.close()
        for shelf in self._shelves:
            shelf.close()

    def _shelf(self, join: Join, encoding: str | None) -> Shelf:
        table = Input(join.file, encoding=encoding)
        if table.path is None and self._source.path is None:
            raise JoinError("--join -: stdin is the input already", hint="Give one of the two as a file.")
        with closing(table):
            sides = ((join.ours, self._header, self._source.name), (join.theirs, table.header(), table.name))
            for column, header, name in sides:
                if column not in header:
                    raise JoinError(
                        f"--join {join.file}: there is no column {column!r}. Columns: {listed(header)}",
                        where=f"{name}:1",
                        hint=f"Where the two have other names, write --join {join.file}:OURS=THEIRS.",
                    )
            console.note(f"reading {table.name}")
            shelf = Shelf(table, join.theirs)
        if both := [column for column in shelf.columns if column in self._header]:
            shelf.close()
            raise JoinError(
                f"--join {join.file}: the rows have a column {both[0]!r} already",
                where=f"{table.name}:1",
                hint="Rename it in one of the two, or leave it out.",
            )
        self._header += shelf.columns
        return shelf

    def _add(self, row: Row, data: dict[str, Any]) -> None:
        for number, (join, shelf) in enumerate(zip(self._joins, self._shelves, strict=True)):
            key = key_text(data.get(join.ours))
            found = shelf.find(key) if key else []
            if not found:
                self._lonely[number] += 1
                continue
            self._matched[number] += 1
            # A later line of JSON may have columns that the first one hasn't.
            if both := next((column for column in found[0] if column in data), None):
                row.raw = json.dumps(data, ensure_ascii=False)
                row.data, row.error = None, f"has a column {both!r} already, which {join.file} would add"
                return
            data |= found[0]
