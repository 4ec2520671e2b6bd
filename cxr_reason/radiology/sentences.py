"""Sentences and words of a report, in linear time whatever the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

# "Dr. Hale", "approx. 2 cm", "p.m. today", "1. No effusion" do not end a sentence.
_ABBREVIATIONS = frozenset(
    "dr drs mr mrs ms prof st vs approx ca cf e.g i.e eg ie no nos fig p.m a.m p.o y.o resp max min incl dept ext".split()
)
_BREAK = re.compile(r"[.!]+(?=[\s\"')\]]|$)|(?<=\w)[?]+(?=\s+[A-Z]|\s*$)|\.(?=[A-Z][a-z])|\n[ \t]*(?:\n|(?=(?:[-*•]|\(?\d{1,2}[.):])\s))|(?<=[.:;]) (?=\d{1,2}[.)] )")
_BULLET = re.compile(r"\s*(?:(?:[-*•>]+|\(?\d{1,2}[.)](?!\d)|[a-h]\))\s*)*")
_LAST = re.compile(r"(\S+)$")
_TOKEN = re.compile(
    r"\[\*\*.*?\*\*\]|x{3,}|_{2,}|can['’]t\b|n['’]t\b|[^\W\d_]+?(?=n['’]t\b)|[^\W\d_]+(?:'s)?|\d+(?:st|nd|rd|th)\b|\d+(?:[.,]\d+)*|[^\s\w]", re.IGNORECASE
)


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence of text[start:end], bullets and numbers in front left out."""
    position = start
    for match in _BREAK.finditer(text, start, end):
        stop = match.end()
        if match.group()[0] == "." and len(match.group()) == 1:
            if last := _LAST.search(text, max(position, match.start() - 24), match.start()):
                word = last.group(1).lower().lstrip("(")
                if word in _ABBREVIATIONS and text[stop : stop + 2].strip()[:1].isalnum():
                    if not (word == "no" and not text[stop : stop + 2].strip().isdigit()):
                        continue
                if word.isdigit() and len(word) <= 2 and not text[position : match.start() - len(word)].strip():
                    continue  # the number of a list
                if len(word) == 1 and word.isalpha() and word not in "ab" and text[stop : stop + 2].strip()[:1].isupper():
                    if last.group(1).isupper() and position < match.start() - 3:
                        continue  # an initial
        if (begin := _BULLET.match(text, position, stop).end()) < stop:  # type: ignore[union-attr]
            yield begin, stop
        position = stop
    if position < end:
        begin = _BULLET.match(text, position, end).end()  # type: ignore[union-attr]
        if begin < end:
            yield begin, end


def words(sentence: str) -> list[re.Match[str]]:
    """Its words, numbers, masks and marks, as matches that carry their offsets."""
    return list(_TOKEN.finditer(sentence))
