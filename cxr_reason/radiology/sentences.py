"""Sentences, words and phrases of a report, in linear time whatever the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cxr_reason.radiology.lexicon import LEXICON, Item

# "Dr. Hale", "approx. 2 cm", "p.m. today", "1. No effusion" do not end a sentence.
_ABBREVIATIONS = frozenset(
    "dr drs mr mrs ms prof st vs approx ca cf e.g i.e eg ie no nos fig p.m a.m p.o resp max min incl dept ext".split()
)
_LONGEST = 1200  # characters; a longer stretch without an end is no sentence, and is cut so that time stays linear
_BREAK = re.compile(
    r"[.!]+(?=[\s\"')\]]|$)|(?<=\w)\?(?=\s+[A-Z]|\s?$)|\.(?=[A-Z][a-z])"
    r"|\n[ \t]{0,8}(?:\n|(?=(?:[-*•]|\(?\d{1,2}[.):])\s))|(?<=[.:;]) (?=\d{1,2}[.)] )"
)
_BULLET = re.compile(r"(?:\s|[-*•>]|\(?\d{1,2}[.)](?!\d)|[a-h]\)\s)*")
_TOKEN = re.compile(
    r"\[\*\*[^\]]{0,80}\*\*\]|x{3,}|_{2,}|can['\u2019]t\b|n['\u2019]t\b|[^\W\d_]+?(?=n['\u2019]t\b)|[^\W\d_]+(?:['\u2019]s\b)?"
    r"|\d+(?:st|nd|rd|th)\b|\d+(?:[.,]\d+)*|(?<=\s)-(?=\s)|[^\s\w.'\"\u2019*()_-]",
    re.IGNORECASE,
)


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence of text[start:end], bullets and numbers in front left out."""
    position = start
    for match in _BREAK.finditer(text, start, end):
        stop = match.end()
        if match.group() == "." and _goes_on(text, position, match.start(), stop):
            continue
        yield from _pieces(text, position, stop)
        position = stop
    if position < end:
        yield from _pieces(text, position, end)


def _goes_on(text: str, position: int, dot: int, stop: int) -> bool:
    """Whether the full stop at `dot` belongs to an abbreviation, an initial or the number of a list."""
    last = text[max(text.rfind(" ", position, dot) + 1, text.rfind("\n", position, dot) + 1, position, dot - 12) : dot]
    if len(last) > 7:
        return False
    word = last.lower().lstrip("(")
    following = text[stop : stop + 2].strip()[:1]
    if word in _ABBREVIATIONS:
        return following.isdigit() if word == "no" else following.isalnum()
    if word.isdigit():
        return len(word) <= 2 and not text[position : dot - len(word)].strip()
    initial = len(word) == 1 and word.isalpha() and word not in "ab"
    return initial and last.isupper() and following.isupper() and position < dot - 3


def _pieces(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    bullet = _BULLET.match(text, start, stop)
    begin = bullet.end() if bullet else start
    while stop - begin > _LONGEST:
        cut = max(text.rfind(mark, begin + _LONGEST // 2, begin + _LONGEST) for mark in "\n;, ") + 1
        cut = cut if cut > begin else begin + _LONGEST
        yield begin, cut
        begin = cut
    if begin < stop:
        yield begin, stop


@dataclass(frozen=True, slots=True)
class Phrases:
    """What stands in one sentence: canonical words, the lexicon's phrases, and where each begins and ends."""

    words: list[str]
    items: tuple[Item, ...]
    starts: list[int]
    ends: list[int]


def phrases(sentence: str) -> Phrases:
    """Every phrase of the lexicon in a sentence, longest first from the left."""
    lower = sentence.lower()
    if len(lower) != len(sentence):  # a few letters grow when lowered
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in sentence)
    matches = list(_TOKEN.finditer(lower))
    known, canonical = LEXICON.canonicals.get, LEXICON.canonical
    words = [known(raw := m.group()) or canonical(raw) for m in matches]
    items: list[Item] = []
    starts: list[int] = []
    ends: list[int] = []
    root = LEXICON.root.next
    i, n = 0, len(words)
    while i < n:
        node = root.get(words[i])
        if node is None:
            i += 1
            continue
        best = node.item
        j = stop = i + 1
        while j < n and (node := node.next.get(words[j])) is not None:
            j += 1
            if node.item is not None:
                best, stop = node.item, j
        if best is None:
            i += 1
        else:
            items.append(best)
            starts.append(matches[i].start())
            ends.append(matches[stop - 1].end())
            i = stop
    return Phrases(words, tuple(items), starts, ends)
