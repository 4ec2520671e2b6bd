"""Parquet out: one file, or a folder of parts of the same number of rows with an index.

While a run is under way its records are kept as a compressed Arrow stream, ``OUT.partial``, which can be cut back after
any batch and continued like every other output. Parquet can't: its table of contents stands at the end, and a row group
holds far more records than a checkpoint may lose. When the stream is whole it is read once, a row group in memory at a
time, and written as Parquet beside the target; until that has its name, the stream stays, and a run that is killed does
only this again. It costs the disk the stream, which is about as large as the Parquet files, for as long as the run.

A folder is a file to those who look for its index: parts are written under other names, then the old index goes, the
parts get their names, and the new index, written last, says which they are. Files that aren't ours are left alone, and
a folder that holds others but no index is refused.

    chains/part-00000.parquet   50,000 rows each, fewer in the last
    chains/index.json           {"format", "schema", "version", "rows", "parts": [{"file", "rows", "bytes", "first",
                                "last", "sha256"}]}; first and last are ids
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from cxr_reason import __version__, arrow
from cxr_reason.errors import CxrError
from cxr_reason.sinks import FileSink, whole
from cxr_reason.writers import is_folder

PART_ROWS = 50_000
# A row group ends at whichever comes first; bytes are those of the columns in memory.
GROUP_ROWS = 4096
GROUP_BYTES = 64 << 20
INDEX = "index.json"
PART = "part-{:05d}.parquet"

_PART = re.compile(r"part-\d{5,}\.parquet(\.partial)?")


class ParquetSink(FileSink):
    """Takes the bytes of an Arrow stream; what gets the name `path` is Parquet, a folder of it where `path` is one."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._is_folder = is_folder(path)
        self.regular = self._is_folder or self.regular
        self.gzipped = False  # whatever a folder is called
        self._parts: list[dict[str, Any]] = []

    def seal(self) -> None:
        super().seal()
        try:
            if self._is_folder:
                self._seal_folder()
            else:
                self._seal_file()
        except OSError as error:
            raise self._full(error) or error from None

    def commit(self) -> None:
        if self._is_folder:
            self._name_parts()
        else:
            os.chmod(self._fresh, self._mode())
            os.replace(self._fresh, self._target)
        self.partial.unlink()
        self._release()

    def close(self, *, keep: bool) -> None:
        if self._descriptor >= 0:
            self._fresh.unlink(missing_ok=True)
            for part in self._target.glob("*.parquet.partial") if self._is_folder else ():
                if _PART.fullmatch(part.name):
                    part.unlink()
        super().close(keep=keep)

    @property
    def _fresh(self) -> Path:
        return self.partial.with_name(f"{self._target.name}.new.partial")

    def _check_target(self) -> None:
        if not self._is_folder:
            super()._check_target()
            if not self.regular:
                raise CxrError("Parquet needs a file", where=str(self.path), hint="Name one, or a folder: -o chains/")
            return
        if self._target.is_file():
            raise CxrError("this is a file", where=str(self.path), hint="Name a folder for the parts.")
        # A run that was killed while it gave the parts their names has left no index, but what it was made of.
        ours = (self._target / INDEX).exists() or self.partial.exists()
        if not ours and self._target.is_dir() and any(self._target.iterdir()):
            raise CxrError(
                f"this folder holds other files and no {INDEX}",
                where=str(self.path),
                hint="Name an empty folder, or one that doesn't exist yet.",
            )

    def _seal_file(self) -> None:
        with self._batches() as stream:
            self._write(self._fresh, (table for _, table in _groups(iter(stream), part_rows=None)))

    def _seal_folder(self) -> None:
        self._target.mkdir(exist_ok=True)
        self._parts = []
        with self._batches() as stream:
            for number, tables in groupby(_groups(iter(stream), part_rows=PART_ROWS), key=itemgetter(0)):
                name = PART.format(number)
                path = self._target / f"{name}.partial"
                held = self._write(path, (table for _, table in tables))
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                self._parts.append({"file": name, "bytes": path.stat().st_size, **held, "sha256": digest})

    def _batches(self) -> Any:
        return closing(arrow.pyarrow().ipc.open_stream(arrow.pyarrow().OSFile(os.fspath(self.partial))))

    def _write(self, path: Path, tables: Iterator[Any]) -> dict[str, Any]:
        """Write a file of these row groups; returns the number of its rows and its first and last id."""
        from pyarrow.parquet import ParquetWriter

        # Like the unfinished file, nobody else's to read until it has its name.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        rows = 0
        ids: list[Any] = []
        with open(descriptor, "wb") as file:
            with ParquetWriter(file, arrow.schema(), compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table, row_group_size=max(1, len(table)))
                    rows += len(table)
                    ids = [*ids[:1], *table.column("id").slice(0, 1), *table.column("id")[-1:]]
            file.flush()
            os.fsync(file.fileno())
        return {"rows": rows, "first": ids[0].as_py() if ids else None, "last": ids[-1].as_py() if ids else None}

    def _name_parts(self) -> None:
        index = self._target / INDEX
        index.unlink(missing_ok=True)
        names = [part["file"] for part in self._parts]
        mode = self._mode()
        for name in names:
            os.chmod(self._target / f"{name}.partial", mode)
            os.replace(self._target / f"{name}.partial", self._target / name)
        for path in self._target.iterdir():
            if _PART.fullmatch(path.name) and path.name not in names:
                path.unlink()
        rows = sum(part["rows"] for part in self._parts)
        told = {"format": "parquet", "schema": arrow.SCHEMA_VERSION, "version": __version__, "rows": rows}
        with whole(index, sync=True) as file:
            file.write(json.dumps({**told, "parts": self._parts}, indent=1, ensure_ascii=False).encode() + b"\n")


def _groups(batches: Iterator[Any], *, part_rows: int | None) -> Iterator[tuple[int, Any]]:
    """Tables of about a row group, each with the number of its part; all are in part 0 where `part_rows` is None.

    Where row groups end depends on the batches alone. Without any batch there is one table without rows.
    """
    from pyarrow import Table

    number = held = size = 0
    left = part_rows
    waiting: list[Any] = []

    def group() -> tuple[int, Any]:
        return number, Table.from_batches(waiting, arrow.schema()).combine_chunks()

    nothing = True
    for given in batches:
        batch = given
        while len(batch):
            take = min(len(batch), GROUP_ROWS - held, len(batch) if left is None else left)
            waiting.append(batch.slice(0, take))
            held += take
            size += waiting[-1].nbytes
            left = None if left is None else left - take
            batch = batch.slice(take)
            if held == GROUP_ROWS or size >= GROUP_BYTES or left == 0:
                nothing = False
                yield group()
                waiting, held, size = [], 0, 0
            if left == 0:
                number, left = number + 1, part_rows
    if waiting or nothing:
        yield group()
