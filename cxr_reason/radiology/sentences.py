"""Sentences, words and phrases of a report, in linear time whatever the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from cxr_reason.radiology.lexicon import LEXICON, Item, Token

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
_LONGEST = 1200  # characters; a longer stretch without an end is no sentence, and is cut so that time stays linear
# Every branch begins with a literal, which lets `re` skip fast to the next candidate.
_BREAK = re.compile(
    r"\.(?=[\s\"')\]]|$|[A-Z][a-z])|!(?=\s|$)|\?(?=\s+[A-Z]|\s?$)|\n(?=[ \t]{0,8}(?:\n|(?:[-*•]|\(?\d{1,2}[.):])\s))"
)
_BULLET = re.compile(r"(?:\s|[-*•>]|\(?\d{1,2}[.)](?!\d)|[a-h]\)\s)*")
_TOKEN = re.compile(
    r"[tlc]\d{1,2}\b|[a-z\u00c0-\u024f]+(?:['\u2019][a-z]{1,2}\b)?|\d+(?:[.,]\d+)*(?:st|nd|rd|th)?|[^\s\w.'\"\u2019*()_\[\]-]"
    r"|(?<=\s)-(?=\s)|_{2,}|\[\*\*[^\]]{0,80}\*\*\]|[^\W\d_]+"
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


class Phrases(NamedTuple):
    """What stands in one sentence: its words, the lexicon's phrases, and where each of these begins and ends."""

    tokens: list[Token]
    items: tuple[Item, ...]
    starts: list[int]
    ends: list[int]


def tokens(sentence: str) -> tuple[list[Token], list[re.Match[str]]]:
    """Its words, numbers, masks and marks as the lexicon spells them, and the matches that tell where they stand."""
    lower = sentence.lower()
    if len(lower) != len(sentence):  # a few letters grow when lowered
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in sentence)
    matches = list(_TOKEN.finditer(lower))
    known, learn = LEXICON.tokens.get, LEXICON.token
    return [known(raw := m.group()) or learn(raw) for m in matches], matches


def phrases(sentence: str) -> Phrases:
    """Every phrase of the lexicon in a sentence, longest first from the left."""
    words, matches = tokens(sentence)
    items: list[Item] = []
    starts: list[int] = []
    ends: list[int] = []
    stop = -1
    for i in [i for i, word in enumerate(words) if word.node]:
        if i < stop:
            continue
        node = words[i].node
        assert node is not None
        best, after = node.item, i + 1
        for j in range(after, len(words)):
            node = node.next.get(words[j].word)
            if node is None:
                break
            if node.item is not None:
                best, after = node.item, j + 1
        if best is not None:
            items.append(best)
            starts.append(matches[i].start())
            ends.append(matches[after - 1].end())
            stop = after
    return Phrases(words, tuple(items), starts, ends)
