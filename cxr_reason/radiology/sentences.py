"""Sentences, words and phrases of a report, in linear time whatever the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cxr_reason.radiology.lexicon import LEXICON, Item, Place

# "Dr. Hale", "approx. 2 cm", "p.m. today", "1. No effusion" do not end a sentence.
_ABBREVIATIONS = frozenset(
    [
        "dr",
        "drs",
        "mr",
        "mrs",
        "ms",
        "prof",
        "st",
        "vs",
        "approx",
        "ca",
        "cf",
        "e.g",
        "i.e",
        "eg",
        "ie",
        "no",
        "nos",
        "fig",
        "p.m",
        "a.m",
        "p.o",
        "resp",
        "max",
        "min",
        "incl",
        "dept",
        "ext",
    ]
)
_WORD_BEFORE = re.compile(r"[A-Za-z]{4}")
_ENDS_OF_ABBREVIATIONS = frozenset(word[-4:] for word in _ABBREVIATIONS if len(word) >= 4)
_LONGEST = 1200  # characters; a longer stretch without an end is no sentence, and is cut so that time stays linear
# Every branch begins with a literal, which lets `re` skip fast to the next candidate.
_BREAK = re.compile(
    r"\.(?=[\s\"')\]]|$|[A-Z][a-z])|!(?=\s|$)|\?(?=\s+[A-Z]|\s?$)|\n(?=[ \t]{0,8}(?:\n|(?:[-*•]|\(?\d{1,2}[.):])\s))"
)
_BULLET = re.compile(r"(?:\s|[-*•>]|\(?\d{1,2}[.)](?!\d)|[a-h]\)\s)*")
_TOKEN = re.compile(
    r"([tlc]\d{1,2}\b|[a-z\u00c0-\u024f]+(?:['\u2019][a-z]{1,2}\b)?|\d+(?:[.,/:]\d+)*(?:st|nd|rd|th)?|[^\s\w.'\"\u2019*()_\[\]-]"
    r"|(?<=\s)-(?=\s)|_{2,}|\[\*\*[^\]]{0,80}\*\*\]|[^\W\d_]+)"
)


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence of text[start:end], bullets and numbers in front left out."""
    position = start
    for match in _BREAK.finditer(text, start, end):
        stop = match.end()
        mark = match.group()
        if mark == "." and _goes_on(text, position, match.start(), stop):
            continue
        if mark == "?" and not text[match.start() - 1].isalnum():
            continue  # "? effusion" asks, it doesn't end
        if stop - position <= _LONGEST:
            if (begin := _BULLET.match(text, position, stop).end()) < stop:  # type: ignore[union-attr]
                yield begin, stop
        else:
            yield from _pieces(text, position, stop)
        position = stop
    if position < end:
        yield from _pieces(text, position, end)


def _goes_on(text: str, position: int, dot: int, stop: int) -> bool:
    """Whether the full stop at `dot` belongs to an abbreviation, an initial or the number of a list."""
    if _WORD_BEFORE.match(text, dot - 4) and text[dot - 4 : dot].lower() not in _ENDS_OF_ABBREVIATIONS:
        return False  # most sentences end so
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


def lowered(text: str) -> str:
    """`text` in lower case, letter by letter: a few letters grow when lowered, and these stay."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def words(sentence: str) -> list[str]:
    """The words, numbers, masks and marks of a sentence in lower case."""
    return _TOKEN.split(sentence)[1::2]


def phrases(sentence: str) -> tuple[str, tuple[Item, ...], list[Place], list[str]]:
    """What stands in a sentence (in lower case): its words as letters; the lexicon's phrases, longest first from the
    left, and where they stand among the words; and its parts (what is between words, word, between, ..., between).
    """
    parts = _TOKEN.split(sentence)
    letters = "".join(map(_letter, parts[1::2]))
    items, places = LEXICON.phrases(letters)
    return letters, items, places, parts


_letter = LEXICON.letters.__getitem__
