"""Several files as one input: the shards of a run, one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_reason import console
from cxr_reason.errors import InputError
from cxr_reason.streams import Input, Row, Source


class Several:
    """A `Source`: the rows of `parts`, in their order. A row keeps the name and the line of its own file.

    A file of no bytes, as a shard without rows leaves it, is passed over and said.
    """

    def __init__(self, parts: Sequence[Input]) -> None:
        self.parts = list(parts)
        self._read: list[Input] = []
        """Those that were begun."""

    @property
    def name(self) -> str:
        return ", ".join(part.name for part in self.parts)

    @property
    def path(self) -> Path | None:
        """The first file; None where any of them is a pipe, which can't be read a second time."""
        return None if any(part.path is None for part in self.parts) else self.parts[0].path

    @property
    def known(self) -> Mapping[str, str]:
        return self.parts[0].known

    @property
    def language(self) -> str:
        return self.parts[0].language

    def header(self) -> list[str]:
        return self.parts[0].header()

    def sample(self) -> dict[str, Any]:
        return self.parts[0].sample()

    def rows(self) -> Iterator[Row]:
        for part in self.parts:
            if part.path is not None and part.path.is_file() and not part.path.stat().st_size:
                console.note(f"{part.name} is empty: there is nothing in it to read")
                continue
            self._read.append(part)
            yield from part.rows()
        if not self._read:
            raise InputError("no rows", where=self.name, hint="All of these are empty.")

    def digest(self) -> Any:
        digest = hashlib.blake2b(digest_size=16)
        for part in self._read:
            digest.update(part.digest().digest())
        return digest

    def fraction(self) -> float | None:
        if self.path is None or not self._read:
            return None
        here = self._read[-1].fraction()
        return (len(self._read) - (0 if here is None else 1 - here)) / len(self.parts)

    def rewind(self) -> None:
        for part in self.parts:
            part.rewind()
        self._read.clear()

    def notes(self) -> list[str]:
        return [note for part in self.parts for note in part.notes()]

    def close(self) -> None:
        for part in self.parts:
            part.close()


def paths_of(source: Source) -> list[Path]:
    """The files and folders that `source` is made of."""
    parts = source.parts if isinstance(source, Several) else [source]
    return [part.path for part in parts if part.path is not None]


def opened(names: Sequence[str], *, formats: Sequence[str]) -> Source:
    """The files of `names` as one input; stdin where there is none."""
    parts = [Input(name, formats=formats) for name in names or ("-",)]
    return parts[0] if len(parts) == 1 else Several(parts)
