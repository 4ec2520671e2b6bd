"""Rows of a JSON array, one item in memory at a time, so that a broken item costs one item.

A parser of the whole array would hold it all, and give up at the first fault. Here brackets alone tell where an item
ends, whatever the layout: an item a line, indented over many, all on one line. After a fault inside an item, reading
goes on where the next one seems to begin, at the key and the indentation with which the first item began, and what is
then found is an item if it has most of the keys that items have.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator

from cxr_reason import records
from cxr_reason.streams import HEAD_BYTES, LINE_BYTES, Lines, Row, json_problem

# A whole string, a quote whose string goes on in the next piece, or a bracket.
_TOKEN = re.compile(r'"(?:[^"\\\n]++|\\.)*+"|["{}\[\]]')
_IN_STRING = re.compile(r'["\n]|\\.?', re.DOTALL)
_SCALAR = re.compile(r'"(?:[^"\\\n]++|\\.)*+"|[^,\]\s]+')
_FIRST_KEY = re.compile(r'\{\s*("(?:[^"\\\n]++|\\.)*+")\s*:')
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_OPENER = {"}": "{", "]": "["}
_NO_OBJECT = json_problem(None)
# Text that may be read again after faults, for each character that was read once: a hostile file must not cost more.
REPLAYS = 4

Pieces = list[tuple[int, str]]


class Array:
    """The rows of the JSON array whose text `lines` gives; arrays after each other are read as one."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._source = lines.pieces()
        self._again: deque[tuple[int, str]] = deque()
        self._line, self._piece, self._at = 1, "", 0
        """A piece is a line or a part of one; `_at` is where reading has come to in it."""
        self._read = self._replayed = 0
        self._begins: re.Pattern[str] | None = None
        """How an item begins."""
        self._keys: frozenset[str] = frozenset()
        """Those of the first item."""
        self._astray = self._given_up = False
        """Whether a fault was met and no item since, or not even the beginning of one."""

    def rows(self) -> Iterator[Row]:
        inside = False
        while mark := self._next_mark():
            if not inside and mark == "[":
                inside = True
                self._at += 1
            elif not inside:
                yield self._unreadable(self._line, "something stands after the end of the array", self._piece)
                return
            elif mark == "]":
                inside = False
                self._at += 1
            elif mark not in "{[":
                yield self._no_object()
            elif row := self._item():
                yield row
        if inside and not self._given_up:
            yield self._unreadable(self._line, "the array is torn: it has no end", "")

    # ---------------------------------------------------------------------------------------------------------- items

    def _item(self) -> Row | None:
        """The item that begins here; afterwards reading has come to its end, or to the next item if it has a fault.

        None for a shred of an item that had one.
        """
        line, held = self._line, Pieces()
        if self._begins is None:
            self._begins = self._beginning()
        fault = self._scan(held)
        if fault:
            return self._unreadable(line, fault, self._resume(held))
        text = "".join(piece for _, piece in held)
        if _UNDECODABLE.search(text):
            return self._unreadable(line, f"not {self._lines.encoding} text", text)
        try:
            data = records.loads(text)
        except ValueError as error:
            return self._unreadable(line, _problem(error, line, text), text)
        if not isinstance(data, dict):
            return self._unreadable(line, _NO_OBJECT, text)
        self._keys = self._keys or frozenset(data)
        if self._astray and 2 * len(self._keys & data.keys()) < len(self._keys):
            self._resume([(self._line, self._piece[self._at :])])
            return None
        self._astray = False
        return Row(self._lines.name, line, data)

    def _scan(self, held: Pieces) -> str:
        """Put the pieces of one item into `held`; what is wrong, "" for nothing. The rest of the last is `_piece`."""
        open_brackets: list[str] = []
        in_string = escaped = False
        named = True  # whether a value may begin: an object's must have a name and a colon
        size, start = 0, self._at
        while True:
            piece, at = self._piece, self._at
            if escaped:
                at, escaped = at + 1, False
            fault = ""
            while not fault:
                if in_string:
                    found = _IN_STRING.search(piece, at)
                    if found is None:
                        break
                    at = found.end()
                    in_string = found[0] != '"'
                    escaped = found[0] == "\\"
                    if found[0][-1] == "\n":
                        fault = "a text runs over the end of its line"
                    continue
                found = _TOKEN.search(piece, at)
                if found is None:
                    named = named or ":" in piece[at:]
                    break
                token, before, at = found[0], at, found.end()
                if token in _OPENER:
                    if open_brackets[-1] != _OPENER[token]:
                        fault = "its brackets don't match"
                        break
                    open_brackets.pop()
                    named = False
                    if not open_brackets:
                        self._at = at
                        held.append((self._line, piece[start:at]))
                        return ""
                elif token in "{[":
                    if open_brackets and open_brackets[-1] == "{" and not named and ":" not in piece[before:at]:
                        fault = "its brackets don't match"
                        break
                    open_brackets.append(token)
                    named = token == "["
                else:
                    in_string = token == '"'
                    named = False
            held.append((self._line, piece[start:]))
            size += len(piece) - start
            if size > LINE_BYTES:
                fault = f"longer than {LINE_BYTES >> 20} MiB"
            if not fault and not self._more():
                fault = "the array is torn: it ends inside this item"
            if fault:
                return fault
            start = 0

    def _beginning(self) -> re.Pattern[str] | None:
        """What the first item begins with: its indentation if it begins a line, and its first key."""
        ahead = self._piece[self._at :]
        while not (key := _FIRST_KEY.match(ahead)):
            more = next(self._source, None) if len(ahead) < HEAD_BYTES else None
            if more is None:
                return None
            self._again.append(more)
            ahead += more[1]
        before = self._piece[: self._at]
        alone = not before.strip(" \t") and self._line > 1 and self._piece.endswith("\n")
        first_on_line = f"^{before}" if alone else ""
        return re.compile(rf"{first_on_line}(\{{\s*{re.escape(key[1])}\s*:)", re.MULTILINE)

    def _resume(self, held: Pieces) -> str:
        """Go to where the next item begins; what was passed over, as far as it is of use."""
        self._astray = True
        text = "".join(piece for _, piece in held)
        affordable = self._replayed <= REPLAYS * (self._read + LINE_BYTES)
        found = self._begins.search(text, 1) if self._begins and affordable else None
        if found:
            passed = text[: found.start(1)]
            self._replayed += len(text) - len(passed)
            self._put_back(held, len(passed))
            return passed
        window, start = held[-1:], int(len(held) == 1)  # not the item in hand again
        while self._begins and self._more():
            window.append((self._line, self._piece))
            joined = "".join(piece for _, piece in window)
            if found := self._begins.search(joined, start):
                self._put_back(window, found.start(1))
                break
            window, start = window[-1:], 0
        else:
            while self._more():
                pass
            self._piece, self._at, self._given_up = "", 0, True
        return text[:HEAD_BYTES]

    def _put_back(self, pieces: Pieces, offset: int) -> None:
        """Read on at `offset` of `pieces`, which were read last."""
        while offset >= len(pieces[0][1]):
            offset -= len(pieces.pop(0)[1])
        self._again.extendleft(reversed(pieces))
        self._more()
        self._at = offset

    def _no_object(self) -> Row:
        """What stands here instead of an item: a number or a text, or the shreds of an item."""
        line = self._line
        found = _SCALAR.match(self._piece, self._at)
        if found and (self._piece[found.end() :].strip() or "]")[0] in ",]":
            self._at = found.end()
            return self._unreadable(line, _NO_OBJECT, found[0])
        return self._unreadable(line, "not valid JSON", self._resume([(line, self._piece[self._at :])]))

    # ----------------------------------------------------------------------------------------------------------- text

    def _next_mark(self) -> str:
        """The next character that is no blank and no comma, without taking it; "" at the end."""
        while True:
            while self._at < len(self._piece):
                if self._piece[self._at] not in " \t\r\n,\ufeff":
                    return self._piece[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Go to the next piece; False at the end."""
        if not self._again and (piece := next(self._source, None)):
            self._again.append(piece)
            self._read += len(piece[1])
        if not self._again:
            return False
        self._line, self._piece = self._again.popleft()
        self._at = 0
        return True

    def _unreadable(self, line: int, problem: str, raw: str) -> Row:
        raw = raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return Row(self._lines.name, line, None, problem, raw)


def _problem(error: ValueError, line: int, text: str) -> str:
    """Like `json_problem`, the line counted in the file."""
    if isinstance(error, json.JSONDecodeError) and "\n" in text:
        return f"not valid JSON: {error.msg} (line {line + error.lineno - 1}, column {error.colno})"
    return json_problem(error)
