"""A finding in a radiologist's English: what its fields say, and not a word more.

Sentences are made from fields, never copied from the report, so that they read as seen on the film and hold no mask,
no name and no date. Each function returns every variant that tells all the details that it was given; the chain picks.
Reading a sentence back with `radiology.claims` gives the finding that it was made from.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any, NamedTuple

from cxr_reason.mining.language import MANNERS, PLACES, PLACES_SIDE_AFTER, PLACES_WITH_SIDE, SENTENCES, Manner
from cxr_reason.radiology import Finding

SIZES = {"mild": "small", "moderate": "moderate", "severe": "large"}
DEGREES = {"mild": "mildly", "moderate": "moderately", "severe": "severely"}
PLAIN = {"mild": "mild", "moderate": "moderate", "severe": "severe"}

_MASK = re.compile(r"X{2,}|_{2,}|\[\*\*|\*\*\]", re.IGNORECASE)
# In a tip, these would be taken for the side of the device.
_SIDE = re.compile(r"\b(?:left|right|bilateral)\b(?! (?:atri|ventric|main|brachio|subclav))", re.IGNORECASE)
_LEADING = {"above", "about", "approximately", "at", "below", "beneath", "beyond", "in", "inside", "just", "near", "of"}
_LEADING |= {"on", "over", "overlying", "past", "pointing", "projecting", "terminating", "under", "well", "within"}
# With these, a noun is graded by an adverb: "mildly low lung volumes".
_ADJECTIVES = {"low", "enlarged", "increased", "prominent"}
_NORMAL = re.compile(r" (?=normal|clear|intact|unremarkable|midline)")
# Bounds with a hidden word in them, or that compare with a film that isn't there.
_UNSAYABLE = {"masked", "new", "other", "interval"}
_VOWEL = re.compile(r"(?:[aeio]|u(?!n[ia]|s|t)|8|11\b|18\b)", re.IGNORECASE)
_CAPITALS = re.compile(r"\b(svc|ivc|ge|t\d{1,2}|c\d)\b")


class Details(NamedTuple):
    """What is said of one finding beside its status. A detail is None where nothing is said."""

    name: str
    side: str | None = None
    site: str | None = None
    severity: str | None = None
    size: str | None = None
    acuity: str | None = None
    calcified: bool = False
    several: bool = False
    tip: str | None = None
    bound: str | None = None


class Phrase(NamedTuple):
    text: str
    plural: bool


def details_of(finding: Finding, report: str) -> Details:
    """What may be told of `finding`: details with a masked word in them are left out."""
    manner = MANNERS[finding.name]
    start, end = finding.span
    device = finding.device or {}
    several = manner.article == "a" and manner.plural_end in report[start:end].lower()
    lung_place = finding.site in PLACES and manner.region in ("lungs", "pleura")
    return Details(
        name=finding.name,
        side=None if finding.status == "absent" and finding.side == "bilateral" else finding.side,
        site=finding.site if lung_place else None,
        severity=None if manner.device else finding.severity,
        size=None if several or finding.side == "bilateral" else _size(finding),
        acuity=finding.acuity if finding.status != "absent" else None,
        calcified=finding.calcified,
        several=several,
        tip=_place(device.get("tip")) if finding.status == "present" else None,
        bound=finding.bound,
    )


@lru_cache(maxsize=1 << 11)
def claim(details: Details, status: str, certainty: str, alternatives: tuple[str, ...] = ()) -> dict[str, Any]:
    """The finding that a sentence made from `details` claims, ready for a step's `findings`, which share it."""
    manner = MANNERS[details.name]
    said: dict[str, Any] = {"name": details.name, "label": manner.label, "status": status, "certainty": certainty}
    if alternatives:
        said["alternatives"] = list(alternatives)
    for field, value in (("bound", details.bound), ("side", details.side if says_side(details) else None)):
        if value:
            said[field] = value
    if status != "absent":
        for field in ("site", "severity", "size", "acuity"):
            if value := getattr(details, field):
                said[field] = value
        if details.calcified:
            said["calcified"] = True
        if details.tip:
            said["device"] = {"type": details.name, "tip": details.tip}
    elif details.site:
        said["site"] = details.site
    return said


def says_side(details: Details) -> bool:
    """Whether a phrase made from `details` tells its side: some nouns have no place for one ("cardiomegaly")."""
    manner = MANNERS[details.name]
    return details.side is not None and (manner.side != "own" or "{which}" in manner.noun)


@lru_cache(maxsize=1 << 11)
def phrase(details: Details, article: bool = True) -> Phrase:
    """`details` as a noun phrase: "a small left pleural effusion", "degenerative changes of the thoracic spine"."""
    manner = MANNERS[details.name]
    noun, before, after, many = _placed(details, manner)
    words = [details.bound] if details.bound else []
    if details.severity:
        grades = SIZES if manner.size else DEGREES if noun.split()[0] in _ADJECTIVES else PLAIN
        words.append(_grade(details.severity, grades))
    if details.size:
        words.append(details.size)
    if details.acuity and details.acuity not in noun:
        words.append(details.acuity)
    if details.calcified and "calcifi" not in noun:
        words.append("calcified")
    text = " ".join([*words, *before, noun]) + after
    plural = many or manner.article == "plural"
    if article and manner.article == "a" and not many:
        text = f"{'an' if _VOWEL.match(text) else 'a'} {text}"
    return Phrase(text, plural)


@lru_cache(maxsize=1 << 11)
def present(details: Details) -> tuple[str, ...]:
    """Sentences that say that it is there."""
    manner = MANNERS[details.name]
    said = phrase(details)
    if manner.device:
        return _filled(SENTENCES["device"], said, tip=_tip(details.tip))
    own = _own(manner.present, details)
    # Nouns that are sentences in disguise ("elevation of the hemidiaphragm") are better said as such.
    general = () if own and "{which}" in manner.noun else _filled(SENTENCES["present"], said)
    return own + general


def borderline(details: Details) -> tuple[str, ...]:
    """Sentences for a finding that is just about there: a heart of borderline size."""
    return MANNERS[details.name].borderline or hedged(details, "probable")


@lru_cache(maxsize=1 << 11)
def hedged(details: Details, certainty: str) -> tuple[str, ...]:
    """Sentences that leave it open, with the given grade: probable, possible or differential."""
    return _filled(SENTENCES[certainty], phrase(details))


@lru_cache(maxsize=1 << 11)
def versus(rivals: tuple[Details, ...]) -> tuple[str, ...]:
    """Sentences for findings that compete with each other."""
    return _filled(SENTENCES["versus"], Phrase(" versus ".join(phrase(rival).text for rival in rivals), False))


@lru_cache(maxsize=1 << 11)
def absent(details: Details) -> tuple[str, ...]:
    """Sentences that deny it, within its bound where it has one."""
    manner = MANNERS[details.name]
    own = tuple(
        text.format(side=details.side)
        for text in manner.absent
        if details.site is None
        and ("{side}" in text) == (details.side in ("left", "right"))
        and (details.bound is None or (details.bound == "gross" and _NORMAL.search(text)))
    )
    if details.bound:
        own = tuple(_NORMAL.sub(f" {details.bound}ly ", text, count=1) for text in own)
    return own or _filled(SENTENCES["absent"], phrase(details, article=False))


@cache
def is_sayable(name: str, bound: str) -> bool:
    """Whether an absence within `bound` can be said: "the lungs are grossly clear", but not "no gross opacity"."""
    words = set(bound.split())
    if "gross" in words:
        return bound == "gross" and any(_NORMAL.search(text) for text in MANNERS[name].absent)
    return not words & _UNSAYABLE


@lru_cache(maxsize=1 << 11)
def none_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """Sentences that deny several findings at once: "There is no pleural effusion or pneumothorax."."""
    return _filled(SENTENCES["absent"], Phrase(listed([phrase(Details(name), False).text for name in names]), False))


@lru_cache(maxsize=1 << 11)
def not_suggested(name: str) -> tuple[str, ...]:
    """Sentences that infer its absence from silence; they never say that it was looked for."""
    return _filled(SENTENCES["silent"], phrase(Details(name)))


@lru_cache(maxsize=1 << 11)
def changed(details: Details, change: str) -> tuple[str, ...]:
    """Sentences that say how it has changed: worse, stable, better, new or resolved."""
    return _filled(SENTENCES[change], phrase(details, article=False))


@lru_cache(maxsize=1 << 12)
def on_film(details: Details, kind: str, article: bool) -> tuple[str, ...]:
    """Sentences that say what one of two films shows. `kind` is "before_present", "now_absent" and their like."""
    return _filled(SENTENCES[kind], phrase(details, article))


def millimeters(size: str | None) -> float | None:
    """A size as `details_of` words it, in millimetres."""
    if size is None:
        return None
    number, unit = size.split()
    return float(number) * (10 if unit == "cm" else 1)


def listed(texts: list[str], word: str = "or") -> str:
    """ "a", "a or b", "a, b or c"."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {word} {texts[-1]}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def fill(template: str, said: Phrase, **slots: str) -> str:
    """`template` with its slots filled: {np}, {Np} and {n} by `said`, verbs in its number, the others by `slots`."""
    verbs = ("are", "Are", "have", "Have") if said.plural else ("is", "Is", "has", "Has")
    slots |= zip(("is", "Is", "has", "Has"), verbs, strict=True)
    return template.format(np=said.text, Np=capital(said.text), n=said.text, **slots)


# ---------------------------------------------------------------------------------------------------------- details


def _filled(templates: tuple[str, ...], said: Phrase, **slots: str) -> tuple[str, ...]:
    return tuple(fill(template, said, **slots) for template in templates)


def _own(templates: tuple[str, ...], details: Details) -> tuple[str, ...]:
    """Those of a finding's own sentences that have a place for every detail."""
    told_elsewhere = details.site or details.size or details.acuity or details.calcified
    if told_elsewhere or (details.side == "bilateral" and says_side(details)):
        return ()
    degree = _grade(details.severity, DEGREES) + " " if details.severity else ""
    severity = _grade(details.severity, PLAIN) + " " if details.severity else ""
    return tuple(
        text.format(side=details.side, degree=degree, severity=severity)
        for text in templates
        if ("{side}" in text) == says_side(details)
        and (not details.severity or "{degree}" in text or "{severity}" in text)
    )


def _placed(details: Details, manner: Manner) -> tuple[str, list[str], str, bool]:
    """The noun, the words of place before it, those after it, and whether it became several by its sides."""
    side, site = details.side, details.site
    countable = manner.article == "a"
    many = countable and (details.several or side == "bilateral")
    if manner.side == "own":
        if side == "bilateral":
            noun = manner.plural if "{which}" in manner.plural else manner.noun  # "both hila", but "hyperinflation"
            return noun.format(which="both"), [], "", False
        noun = manner.plural if many else manner.noun
        return noun.format(which=f"the {side}" if side else "a"), [], "", many
    if manner.side == "direction":
        return manner.noun, [], f" to the {side}" if side in ("left", "right") else "", False
    noun = manner.plural if many else manner.noun
    where = "" if side is None else " on both sides" if side == "bilateral" else f" on the {side}"
    if manner.side == "after":
        return noun, [], where, many
    if site is None:
        return noun, [side] if side else [], "", many
    noun = _plural_short(manner) if many else manner.short
    if site in PLACES_SIDE_AFTER:
        return noun, [PLACES[site]], where, many
    together = PLACES_WITH_SIDE.get(f"{side} {site}")
    return noun, [together] if together else [side, PLACES[site]] if side else [PLACES[site]], "", many


def _plural_short(manner: Manner) -> str:
    """The plural of the short noun, by the plural of the long one: "lung masses" gives "masses"."""
    count = len(manner.short.split())
    return " ".join(manner.plural.split()[-count:])


def _grade(severity: str, words: dict[str, str]) -> str:
    """ "mild-moderate" as "mild to moderate", in `words`."""
    return " to ".join(words.get(part, part) for part in severity.split("-"))


def _size(finding: Finding) -> str | None:
    """Its measured size, where it is a thing with one and no word says how large it is."""
    millimeters = finding.size_mm
    if not millimeters or finding.severity or not MANNERS[finding.name].size:
        return None
    return f"{millimeters / 10:g} cm" if millimeters >= 10 else f"{millimeters:g} mm"


def _tip(tip: str | None) -> str:
    """Where the tip of a device is, as the end of a clause."""
    if not tip:
        return ""
    first = tip.split()[0].lower()
    where = "" if first in _LEADING or first[0].isdigit() else "in " if first == "the" else "in the "
    return f", its tip {where}{tip}"


def _place(text: str | None) -> str | None:
    """Where a tip is, in lower case but for abbreviations; None where a word is hidden or it is no short place."""
    if not text or len(text) > 60 or _MASK.search(text) or _SIDE.search(text):
        return None
    return _CAPITALS.sub(lambda match: match[0].upper(), text.lower())
