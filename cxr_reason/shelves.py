"""Tables on disk: rows found by a key, and rows brought together, in memory that doesn't grow with them.

Published archives keep a study's report, images and labels in tables of a million rows, in any order. They are put into
a temporary SQLite database. SQLite deletes its file as soon as it is open, so that nothing stays behind even when this
process is killed; it lies in `SQLITE_TMPDIR`, `TMPDIR`, a job's own disk (`cluster.scratch`), or /var/tmp.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from cxr_reason.cluster import scratch
from cxr_reason.errors import CxrError, InputError
from cxr_reason.streams import Input, Row

if TYPE_CHECKING:
    import sqlite3

CACHE_KIB = 4096


class Shelf:
    """A table that is read once and then found by one of its columns.

    `table` must be readable to its last row: a hole in it would take labels or images from a study without a word.
    Raises InputError, naming the file and the line, for a row that can't be read, and for a key that comes twice unless
    `many` rows of one key are normal. Rows without a key can't be found; `keyless` counts them.
    """

    def __init__(self, table: Input, key: str, *, many: bool = False) -> None:
        self.name = table.name
        self.key = key
        self.columns: list[str] = []
        """All columns but the key; those of JSON lines in the order in which they are met."""
        self.keys = 0
        """Distinct keys."""
        self.found = 0
        """Distinct keys that `find` was asked for."""
        self.keyless = 0
        self._database = open_database()
        try:
            with closing(table):
                require_columns(table, [key])
                rows = self._fill(table)
                self.digest: bytes = table.digest().digest()
                """A hash of all that the table holds."""
            if rows > self.keys and not many:
                self._refuse_duplicate()
        except BaseException:
            self.close()
            raise
        self._met = bytearray(rows // 8 + 1)

    def find(self, key: str) -> list[dict[str, Any]]:
        """The rows of `key` in their order, without the key; empty where there is none."""
        with explained():
            entries = self._database.execute(
                "SELECT rowid, data FROM entry WHERE key = ? ORDER BY rowid", (to_bytes(key),)
            ).fetchall()
        if not entries:
            return []
        byte, bit = entries[0][0] >> 3, 1 << (entries[0][0] & 7)
        if not self._met[byte] & bit:
            self._met[byte] |= bit
            self.found += 1
        return [self._unpacked(data) for _, data in entries]

    def first(self, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """The first rows with their keys, as they stand in the table; they don't count as found."""
        with explained():
            entries = self._database.execute("SELECT key, data FROM entry ORDER BY rowid LIMIT ?", (count,)).fetchall()
        return ((key.decode("utf-8", "surrogatepass"), self._unpacked(data)) for key, data in entries)

    def forget(self) -> None:
        """Nothing has been found yet."""
        self.found = 0
        self._met = bytearray(len(self._met))

    def close(self) -> None:
        self._database.close()

    def _fill(self, table: Input) -> int:
        """Put the rows of `table` down; returns how many have a key."""
        database = self._database
        with explained():
            database.execute("CREATE TABLE entry (key BLOB NOT NULL, line INTEGER NOT NULL, data BLOB NOT NULL)")
            database.execute("BEGIN")
            database.executemany("INSERT INTO entry VALUES (?, ?, ?)", self._entries(table))
            database.execute("COMMIT")
            database.execute("CREATE INDEX by_key ON entry (key)")
            self.keys, rows = database.execute(
                "SELECT count(*), coalesce(sum(n), 0) FROM (SELECT count(*) AS n FROM entry GROUP BY key)"
            ).fetchone()
        return int(rows)

    def _entries(self, table: Input) -> Iterator[tuple[bytes, int, bytes]]:
        known: set[str] = set()
        for row in table.rows():
            if row.data is None:
                raise InputError(
                    row.error or "can't be read",
                    where=f"{row.file}:{row.line}",
                    hint="A table that is joined must be readable to its last row: mend this one.",
                )
            key = key_text(row.data.pop(self.key, None))
            if not key:
                self.keyless += 1
                continue
            for column in row.data:
                if column not in known:
                    known.add(column)
                    self.columns.append(column)
            # Not JSON, which has no lone surrogates and no numbers as long as those of JSON lines may be. What is
            # unpacked was packed by this process.
            yield to_bytes(key), row.line, marshal.dumps([row.data.get(column) for column in self.columns])

    def _unpacked(self, data: bytes) -> dict[str, Any]:
        # Earlier rows of JSON lines may have fewer columns.
        return {
            name: value for name, value in zip(self.columns, marshal.loads(data), strict=False) if value is not None
        }

    def _refuse_duplicate(self) -> None:
        first, second = self._database.execute(
            "SELECT (SELECT min(line) FROM entry WHERE key = twice.key),"
            " (SELECT line FROM entry WHERE key = twice.key ORDER BY rowid LIMIT 1 OFFSET 1)"
            " FROM (SELECT key FROM entry GROUP BY key HAVING count(*) > 1 ORDER BY min(rowid) LIMIT 1) AS twice"
        ).fetchone()
        raise InputError(
            f"the key in column {self.key!r} stands in line {first} already",
            where=f"{self.name}:{second}",
            hint="Each key may come once in a table that is joined: leave one of the rows, or join by another column.",
        )


def together(rows: Iterable[Row], keys: Callable[[dict[str, Any]], Sequence[str]]) -> Iterator[Row]:
    """The same rows, those that share the first of their `keys` together, among them those that share the second.

    What comes first stays first: groups stand in the order in which their first rows came, and rows of a group keep
    theirs. Unreadable rows come before all others. `keys` gives two texts.
    """
    database = open_database()
    try:
        with explained():
            database.execute("CREATE TABLE place (wide BLOB NOT NULL, narrow BLOB NOT NULL)")
            database.execute("CREATE TABLE held (data BLOB NOT NULL)")
            database.execute("BEGIN")
        for row in rows:
            if row.data is None:
                yield row
                continue
            wide, narrow = keys(row.data)
            with explained():
                database.execute("INSERT INTO place VALUES (?, ?)", (to_bytes(wide), to_bytes(narrow)))
                packed = marshal.dumps((row.file, row.line, row.data))
                database.execute("INSERT INTO held VALUES (?)", (packed,))
        with explained():
            database.execute("COMMIT")
            # Numbers are sorted here, never the rows themselves.
            database.execute(
                "CREATE TABLE turn AS SELECT rowid AS number FROM (SELECT rowid, min(rowid) OVER (PARTITION BY wide)"
                " AS a, min(rowid) OVER (PARTITION BY wide, narrow) AS b FROM place) ORDER BY a, b, rowid"
            )
        numbers = database.execute("SELECT number FROM turn ORDER BY rowid")
        for (number,) in numbers:
            with explained():
                (packed,) = database.execute("SELECT data FROM held WHERE rowid = ?", (number,)).fetchone()
            yield Row(*marshal.loads(packed))
    finally:
        database.close()


def key_text(value: Any) -> str:
    """A key as it is compared: without spaces around it, 12 and "12" the same, "" for none."""
    if value is None or isinstance(value, bool | list | dict):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def require_columns(table: Input, columns: Iterable[str]) -> None:
    """Raise InputError, naming the file, unless `table` has all of `columns`."""
    header = table.header()
    for column in columns:
        if column not in header:
            listed = ", ".join(name[:32] for name in header[:40])
            raise InputError(
                f"there is no column {column!r}. Columns: {listed}",
                where=f"{table.name}:1",
                hint="Is this the file that its name says? Its columns must have their published names.",
            )


def to_bytes(text: str) -> bytes:
    """As SQLite keeps it: its own texts have no lone surrogates."""
    return text.encode("utf-8", "surrogatepass")


def open_database() -> sqlite3.Connection:
    import sqlite3  # where tables are joined, and nowhere else

    """A new SQLite database in a file of its own. Use it within `explained`."""
    if folder := scratch():
        os.environ.setdefault("SQLITE_TMPDIR", folder)
    database = sqlite3.connect("", isolation_level=None)  # "": a file of its own, deleted while it is open
    # A crash loses the database anyway, so nothing is done for its sake.
    for pragma in ("temp_store = FILE", "journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
        database.execute(f"PRAGMA {pragma}")
    return database


@contextmanager
def explained() -> Iterator[None]:
    """Turns what SQLite raises, most of all for want of room, into a CxrError."""
    import sqlite3

    try:
        yield
    except sqlite3.OperationalError as error:
        raise CxrError(
            f"the temporary database for joined tables: {error}",
            hint="It needs about as much room as the tables. TMPDIR names a folder that has it.",
        ) from None
