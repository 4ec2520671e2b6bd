"""Where in a report the evidence stands: headings, and what each section is worth.

addendum > impression > findings and text without heading > preliminary. Indication, history, technique and comparison
never hold evidence (`SILENT`): what they name was asked or known, not seen.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from cxr_reason.radiology.lexicon import LEXICON

SILENT = "silent"
RANK = {"addendum": 3, "impression": 2, "findings": 1, "body": 1, "preliminary": 0}


class Section(NamedTuple):
    """Text[start:end] under one heading, the heading left out; `name` is a key of RANK, or SILENT."""

    name: str
    start: int
    end: int


_KIND = {heading: kind for kind, headings in LEXICON.data["sections"].items() for heading in headings}
_LONGEST = max(len(h.split()) for h in _KIND)
_REACH = 60  # characters before a colon in which its heading stands
_START = re.compile(r"[.;:!?]")
_ALONE = re.compile(r"\n[ \t]*([A-Z][A-Z ]{2,40}[A-Z])[ \t]*(?=\n)")
_BLANK = re.compile(r"\n[ \t]*\n")
_SENTENCE = re.compile(r"[.!?]\s")


def _headings(text: str) -> list[tuple[str, int, int]]:
    """(kind, start, end) of every heading: at the start of a line or sentence with a colon, or in capitals anywhere
    with a colon, or in capitals alone on its line.
    """
    found = []
    at = text.find(":")
    while at >= 0:
        begin = max(0, at - _REACH)
        line = max(begin, text.rfind("\n", begin, at) + 1)
        if known := _heading(text[line:at], line > begin or begin == 0):
            kind, start = known
            found.append((kind, line + start, at + 1))
        at = text.find(":", at + 1)
    if "\n" in text:
        for alone in _ALONE.finditer("\n" + text):  # places count from the "\n" before a line
            if named := _KIND.get(" ".join(alone.group(1).lower().split())):
                found.append((named, alone.start(), alone.end() - 1))
        found.sort(key=lambda mark: mark[1])
    return found


@lru_cache(maxsize=4096)
def _heading(window: str, opens: bool) -> tuple[str, int] | None:
    """The kind of the heading that ends `window`, the text before a colon, and where in it it starts.

    `opens`: whether a line or the text starts with `window`.
    """
    cut = max((m.end() for m in _START.finditer(window)), default=0)
    head = window[cut:].strip(" \t*#>_-(")
    words = head.lower().split()
    if words and words[-1].lstrip("#").isdigit():
        words.pop()
    if (cut > 0 or opens) and (kind := _KIND.get(" ".join(words).removesuffix("(s)"))):
        return kind, cut
    for n in range(min(_LONGEST, len(words)), 0, -1):
        if (kind := _KIND.get(" ".join(words[-n:]))) and (last := " ".join(head.split()[-n:])).isupper():
            return kind, cut + window[cut:].rfind(last.split()[0])
    return None


def sections(text: str) -> list[Section]:
    """Cut a report at its headings. Text before the first heading is "body".

    A silent section that no heading follows ends at a blank line, else at its line, else at its first sentence, so that
    "Indication: cough. The lungs are clear." still has findings.
    """
    marks = _headings(text)
    if not marks:
        return [Section("body", 0, len(text))]
    findings = any(kind in ("findings", "final") for kind, _, _ in marks)
    found = [Section("body", 0, marks[0][1])] if text[: marks[0][1]].strip() else []
    preliminary = False
    for i, (kind, _, start) in enumerate(marks):
        end = marks[i + 1][1] if i + 1 < len(marks) else len(text)
        if kind in ("preliminary", "final", "addendum"):
            preliminary = kind == "preliminary"
        name = "body" if kind == "final" else "preliminary" if preliminary and kind != SILENT else kind
        if (
            kind == SILENT
            and (rest := _rest_of_silent(text, start, end, last=i + 1 == len(marks) or not findings)) < end
        ):
            found += [Section(SILENT, start, rest), Section("preliminary" if preliminary else "body", rest, end)]
        else:
            found.append(Section(name, start, end))
    return found


def _rest_of_silent(text: str, start: int, end: int, *, last: bool) -> int:
    """Where a silent section stops being silent."""
    blank = _BLANK.search(text, start + 1, end)
    if blank and text[start : blank.start()].strip():
        return blank.end()
    if not last:
        return end
    body = start + len(text[start:end]) - len(text[start:end].lstrip())
    line = text.find("\n", body, end)
    if line >= 0:
        return line + 1
    sentence = _SENTENCE.search(text, body, end)
    return sentence.end() if sentence else end
