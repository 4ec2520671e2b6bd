"""`language.toml`, read once: how findings are said, where one looks for them, and the sentences of a chain."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from cxr_reason.radiology import LEXICON


@dataclass(frozen=True, slots=True)
class Manner:
    """How one finding is said. The fields are those that `language.toml` explains at its top."""

    name: str
    label: str | None
    region: str
    article: str
    """ "a" for what can be counted, "" for what can't, "plural" for what is always several."""
    noun: str
    plural: str
    plural_end: str
    """Its last word, by which more than one is known in a report."""
    short: str
    size: bool
    side: str
    device: bool
    present: tuple[str, ...]
    borderline: tuple[str, ...]
    absent: tuple[str, ...]
    asks: tuple[str, ...]
    sign: str
    rates: tuple[float, float]
    """Of 100 reports, how many say that it is there, and how many deny it by name."""
    beyond: bool
    asked: bool
    told: bool


@dataclass(frozen=True, slots=True)
class Region:
    """Where to look: whole sentences for a plan, and the region's name with its article."""

    name: str
    look: tuple[str, ...]
    place: str
    clear: float
    """Of 100 reports, how many call it normal as a whole."""


def _manner(name: str, said: dict[str, Any]) -> Manner:
    entry = LEXICON.findings[name]
    article = said.get("article", "a" if entry.article in ("a", "an") else entry.article)
    noun = said.get("noun") or entry.noun
    plural = said.get("plural") or (noun if article == "plural" else f"{noun}s")
    return Manner(
        name=name,
        label=entry.label,
        region=entry.region,
        article=article,
        noun=noun,
        plural=plural,
        plural_end=plural.split()[-1],
        short=said.get("short") or noun,
        size=said.get("size", False),
        side=said.get("side", "before"),
        device=entry.device,
        present=tuple(said.get("present", ())),
        borderline=tuple(said.get("borderline", ())),
        absent=tuple(said.get("absent", ())),
        asks=tuple(said.get("asks", ())),
        sign=said.get("sign", ""),
        rates=tuple(said.get("rates", (0.0, 0.0))),
        beyond=said.get("beyond", False),
        asked=said.get("asked", True),
        told=said.get("told", True),
    )


@dataclass(frozen=True, slots=True)
class Views:
    """What shows on which film, as `language.toml` explains under ``[views]``."""

    lateral_findings: frozenset[str]
    lateral_sites: frozenset[str]
    lateral_words: re.Pattern[str]
    magnified: frozenset[str]
    technical: frozenset[str]
    technique_words: re.Pattern[str]


def _views(table: dict[str, list[str]]) -> Views:
    views = Views(
        lateral_findings=frozenset(table["lateral_findings"]),
        lateral_sites=frozenset(table["lateral_sites"]),
        lateral_words=re.compile("|".join(table["lateral_words"])),
        magnified=frozenset(table["magnified"]),
        technical=frozenset(table["technical"]),
        technique_words=re.compile("|".join(table["technique_words"])),
    )
    assert (views.lateral_findings | views.magnified | views.technical) <= LEXICON.findings.keys()
    return views


def _lists(table: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(texts) for key, texts in table.items()}


_TABLES = tomllib.loads(files(__package__).joinpath("language.toml").read_text(encoding="utf-8"))

MANNERS: dict[str, Manner] = {name: _manner(name, _TABLES["findings"].get(name, {})) for name in LEXICON.findings}
REGIONS: dict[str, Region] = {
    name: Region(name, tuple(said["look"]), said["place"], _TABLES["clear"].get(name, 0))
    for name, said in _TABLES["regions"].items()
}
"""In the order in which a film is read."""
SENTENCES = _lists(_TABLES["sentences"])
PLANS = _lists(_TABLES["plans"])
CONCLUSIONS = _lists(_TABLES["conclusions"])
QUESTIONS = _lists(_TABLES["questions"])
DEFINITIONS = {name: tuple(said["asks"]) for name, said in _TABLES["definitions"].items()}
PLACES: dict[str, str] = _TABLES["places"]
PLACES_WITH_SIDE: dict[str, str] = _TABLES["places_with_side"]
PLACES_SIDE_AFTER = frozenset(_TABLES["places_side_after"])
VIEWS = _views(_TABLES["views"])
FINE_GRADES = {word: number for number, words in enumerate(_TABLES["grades"]["words"]) for word in words}
"""Words of degree, from the least up: those of one number mean the same."""
LASTING = frozenset(_TABLES["grades"]["lasting"])
"""Findings that are overlooked sooner than they come or go."""
