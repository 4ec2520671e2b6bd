"""What must not be in two places: a patient, a study or a film in two splits, or in another file as well.

A model that is tested on the patients that it was trained on looks better than it is. So a study is barred when its
patient, its own id or one of its films was met in another split before, or stands in a file that the input must be
apart from (``--apart-from``): the first split that a patient is met in is theirs. Films are told by the bytes of their
files, and only where that is asked for (``--check-films``), because all of them must be read.

A guard that can't see must not say that all is well: a row of such a file that can't be read, or a file that has
nothing to compare with, ends the run.

What was met is kept in a temporary SQLite database, so memory doesn't grow with the archive.
"""

from __future__ import annotations

import hashlib
import os.path
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from cxr_reason import columns, console
from cxr_reason.errors import InputError
from cxr_reason.films import digest
from cxr_reason.records import SPLIT_NAMES
from cxr_reason.shelves import explained, open_database, to_bytes
from cxr_reason.streams import Group, Input, Row

Units = Callable[[Iterator[Row]], Iterator[Group | Row]]


def split_of(row: Mapping[str, Any], mapping: Mapping[str, str]) -> str | None:
    """train, validate or test; None where the row is in none that we know."""
    return SPLIT_NAMES.get(columns.cell(row, mapping, "split").lower())


def identity(files: Iterable[str]) -> dict[str, str]:
    """What `files` of ``--apart-from`` hold, for `records.config_hash`; of a pipe, only its name."""
    return {file: digest_of(Path(file)) if os.path.isfile(file) or os.path.isdir(file) else "" for file in files}


def digest_of(path: Path) -> str:
    """A hash of the bytes of a file, or of the files of a folder and their names."""
    told = hashlib.blake2b(digest_size=16)
    files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            told.update(f"{file.relative_to(path)}\0".encode("utf-8", "surrogateescape"))
        try:
            with open(file, "rb") as stream:
                while piece := stream.read(1 << 20):
                    told.update(piece)
        except OSError as error:
            raise InputError(error.strerror or "can't be opened", where=str(file)) from None
    return told.hexdigest()


class Place(NamedTuple):
    """Where something was met first."""

    split: str
    """"" in a file that the input must be apart from."""
    file: str
    line: int
    study: str


class Places:
    """Where each key was met first, on disk."""

    def __init__(self) -> None:
        self._database = open_database()
        with explained():
            self._database.execute(
                "CREATE TABLE met (key BLOB PRIMARY KEY, split TEXT, file TEXT, line INTEGER, study BLOB) WITHOUT ROWID"
            )

    def first(self, kind: str, key: str, place: Place) -> Place:
        """Where `key` was met first: at `place`, unless it was met before."""
        if met := self.find(kind, key):
            return met
        row = (to_bytes(f"{kind} {key}"), *place[:3], to_bytes(place.study))
        with explained():
            self._database.execute("INSERT INTO met VALUES (?, ?, ?, ?, ?)", row)
        return place

    def find(self, kind: str, key: str) -> Place | None:
        """Where `key` was met first; None where it wasn't."""
        select = "SELECT split, file, line, study FROM met WHERE key = ?"
        met = self._database.execute(select, (to_bytes(f"{kind} {key}"),)).fetchone()
        if met is None:
            return None
        split, file, line, study = met
        return Place(split, file, line, study.decode("utf-8", "surrogatepass"))

    def close(self) -> None:
        self._database.close()


class Guard:
    """Bars studies that are not apart. `mapping` says which column is what, `root` where relative film paths begin.

    Raises InputError, when the first unit is asked for, where a file of `apart_from` can't be read to its last row, or
    where nothing of it can be compared with the input.
    """

    def __init__(
        self,
        mapping: Mapping[str, str],
        *,
        apart_from: Sequence[str] = (),
        films: bool = False,
        root: str | None = None,
        encoding: str | None = None,
    ) -> None:
        self._mapping = mapping
        self._apart_from = apart_from
        self._films = films
        self._root = root
        self._encoding = encoding
        self._shared = self._missing = 0

    def as_dict(self) -> dict[str, Any]:
        """For `records.config_hash`."""
        return {"apart_from": identity(self._apart_from), "films": self._films}

    def after(self, units: Units) -> Units:
        """`units` of rows, of which those that are not apart are barred."""
        if self._films or self._apart_from or "split" in self._mapping:
            return lambda rows: self.judged(units(rows))
        return units

    def notes(self) -> list[str]:
        """What a person should know of the films, in sentences."""
        told = []
        if count := self._shared:
            films = "film comes" if count == 1 else "films come"
            told.append(f"{count:,} {films} up in more than one study of a split")
        if count := self._missing:
            told.append(f"{count:,} {'film' if count == 1 else 'films'} could not be read, and so not be compared")
        return told

    def judged(self, units: Iterator[Group | Row]) -> Iterator[Group | Row]:
        """The same units, `barred` set where they are not apart."""
        places = Places()
        self._shared = self._missing = 0
        try:
            for file in self._apart_from:
                self._note(file, places)
            for unit in units:
                if isinstance(unit, Group):
                    unit.barred = self._judge(unit, places)
                yield unit
        finally:
            places.close()

    def _note(self, file: str, places: Places) -> None:
        """Note what stands in a file that the input must be apart from. Raises InputError as the class says."""
        with closing(Input(file, encoding=self._encoding)) as table:
            self._note_table(file, table, places)

    def _note_table(self, file: str, table: Input, places: Places) -> None:
        header = table.header()
        mapping = columns.guess_columns(header, table.sample())
        common = [name for name in self._compared() if name in mapping and name in self._mapping]
        if not common:
            names = " or ".join(self._compared())
            raise InputError(
                f"--apart-from: there is no {names} that both this file and the input have",
                where=f"{file}:1",
                hint=f"Its columns: {columns.listed(header)}. Name them alike; --map tells those of the input.",
            )
        if "patient_id" not in common:
            console.warn(f"{file} is not compared by patient: there is no patient_id in it, or none in the input")
        noted = missing = 0
        for row in table.rows():
            if row.data is None:
                what = f"--apart-from: this row can't be read, so nothing is kept apart from it: {row.error}"
                raise InputError(what, where=f"{row.file}:{row.line}", hint="Mend the row, or take it out.")
            study = columns.cell(row.data, mapping, "study_id")
            place = Place("", row.file, row.line, study)
            keys = list(self._keys([row.data], mapping, study, Path(file).parent))
            for kind, key in keys:
                places.first(kind, key, place)
            noted += bool(keys)
            missing += not keys
        if not noted:
            raise InputError(f"--apart-from: {' and '.join(common)} of this file are empty", where=file)
        if missing:
            console.warn(f"{file}: {missing:,} rows have nothing to compare by: {', '.join(common)} are empty")

    def _compared(self) -> list[str]:
        """The fields by which studies are told."""
        return ["patient_id", "study_id", *(["images"] if self._films else [])]

    def _judge(self, group: Group, places: Places) -> str | None:
        tables = [row.data for row in group.rows if row.data is not None]
        splits = {split_of(table, self._mapping) for table in tables}
        if len(splits) > 1:
            names = ", ".join(sorted(split or "none" for split in splits))
            return f"The rows of the study are in different splits: {names}."
        split = splits.pop()
        place = Place(split or "", group.rows[0].file, group.rows[0].line, group.key)
        folder = Path(self._root) if self._root else Path(place.file).parent
        for kind, key in self._keys(tables, self._mapping, group.key, folder):
            met = places.first(kind, key, place) if split else places.find(kind, key) or place
            if met is not place and (met.split != split if split else not met.split):
                where = f"the split {met.split}" if met.split else "a file to be apart from"
                return f"The {kind} is in {where} already ({met.file}:{met.line})."
            self._shared += kind == "film" and met.study != group.key
        return None

    def _keys(
        self, tables: Sequence[Mapping[str, Any]], mapping: Mapping[str, str], study: str, folder: Path
    ) -> Iterator[tuple[str, str]]:
        """What a study must not share with another split: {kind, key} of its patient, itself and its films."""
        if patient := columns.cell(tables[0], mapping, "patient_id"):
            yield "patient", patient
        if study:
            yield "study", study
        if self._films and (column := mapping.get("images")):
            for table in tables:
                for image in columns.image_list(table.get(column)):
                    path = image.get("path") if isinstance(image, dict) else image
                    if told := _digest(os.path.join(folder, str(path))):
                        yield "film", told
                    else:
                        self._missing += 1


def _digest(path: str) -> str | None:
    """A hash of the file's bytes; None where there is no such file."""
    try:
        with open(path, "rb") as file:
            return digest(file)
    except OSError:
        return None
