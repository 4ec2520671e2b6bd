"""What one sentence states, as findings: names, status, attributes, sizes, devices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate, pairwise
from math import isfinite
from typing import Any, NamedTuple

from cxr_reason.radiology.assertions import assertions
from cxr_reason.radiology.attributes import lateral, may_be
from cxr_reason.radiology.heads import NORMAL
from cxr_reason.radiology.lexicon import LEXICON, Item
from cxr_reason.radiology.sentences import lowered, phrases


@dataclass
class Finding:
    """One finding as a report states it.

    status: present, absent, uncertain. certainty: definite, probable, possible, differential. time: current, history,
    resolved, hypothetical. bound: what an absence is limited to ("large", "focal"). side: left, right, bilateral.
    severity: mild, moderate, severe or a range "mild-moderate". change: new, worse, stable, better, resolved. size_mm
    in millimetres. span: [start, end) in the report's text.
    """

    name: str
    label: str | None
    status: str
    certainty: str = "definite"
    alternatives: list[str] = field(default_factory=list)
    time: str = "current"
    bound: str | None = None
    side: str | None = None
    site: str | None = None
    severity: str | None = None
    size: str | None = None
    size_mm: float | None = None
    change: str | None = None
    acuity: str | None = None
    calcified: bool = False
    device: dict[str, str] | None = None
    conflict: bool = False
    span: list[int] = field(default_factory=lambda: [0, 0])
    section: str = "body"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; empty fields and a time of "current" are left out."""
        out: dict[str, Any] = {
            "name": self.name,
            "label": self.label,
            "status": self.status,
            "certainty": self.certainty,
        }
        told = self.__dict__
        for name in _OPTIONAL:
            if value := told[name]:
                out[name] = value
        if self.time != "current":
            out["time"] = self.time
        out["span"] = self.span
        out["section"] = self.section
        return out


_OPTIONAL = tuple(
    f.name for f in fields(Finding) if f.name not in ("name", "label", "status", "certainty", "time", "span", "section")
)


class Said(NamedTuple):
    """What a sentence says, wherever it stands: its words as letters and by their classes (lexicon.py), the limits of
    the film that it names, the fields of each of its findings with the span in the sentence, whether it may tell of
    something that we couldn't read, and whether it corrects what was said before.
    """

    letters: str
    classes: str
    limits: tuple[str, ...]
    stated: list[tuple[dict[str, Any], int, int]]
    unread: bool = False
    corrects: bool = False


def said(sentence: str) -> Said:
    """Read one sentence."""
    letters, items, places, parts = phrases(lowered(sentence))
    statements, limits, corrects = assertions(items)
    found: list[tuple[dict[str, Any], int, int]] = []
    if statements:
        ends = list(accumulate(map(len, parts)))
        devices = 0
        for shared, first, last, event in statements:
            low, high = ends[2 * places[first][1]], ends[2 * places[last][2] - 1]
            if shared["name"] in _DEVICES:
                devices += 1
                if event == "removed" and _DRAWN_BACK.search(sentence, low):
                    shared, event = {**shared, **_STILL_THERE}, "repositioned"
                shared = {**shared, "device": _device(shared, sentence, low, event)}
            found.append((shared, low, high))
        if devices > 1:
            _own_tips(found, sentence)
        if _NUMBER_LETTER in letters and _UNIT.search(sentence):
            for size in _SIZE.finditer(sentence):
                _attach_size(size, found)
    classes = letters.translate(LEXICON.kinds)
    return Said(letters, classes, limits, found, not found and _tells_something(items, classes), corrects)


def _tells_something(items: Sequence[Item], classes: str) -> bool:
    """Whether a sentence of which nothing is read may yet tell of something: it names a part of the body or a finding,
    or has a word that we don't know, and neither denies, advises, calls normal or unchanged, nor speaks of the film.
    """
    for item in items:
        word = item.word
        if (
            item.cue in _HARMLESS
            or item.film
            or word.change == "stable"
            or (word.quality and word.quality.name in NORMAL)
        ):
            return False
    return "u" in classes or any(item.head or (item.word.organ not in (None, "chest")) for item in items)


_HARMLESS = frozenset({"no", "not_seen", "hypothetical", "advised", "limited_view", "general"})


_OPENINGS = [
    "".join(map(LEXICON.letters.__getitem__, words.split())) for words in LEXICON.data["diagnosis"]["pointing"]
]
_OPENING = re.compile("|".join(_OPENINGS))
POINTING = frozenset(opening[0] for opening in _OPENINGS)
"""The letters of the words with which a sentence may point back: see `referred`."""


def referred(told: Said, sentence: str, before: Said) -> Said:
    """What a sentence says, given what the sentence before it says: "Opacity in the left base. This may be
    atelectasis." A diagnosis takes the side of its sign, where the sentence before speaks of no other side.
    """
    if not _OPENING.match(told.letters):
        return told
    shown = [f for f, _, _ in before.stated if f["status"] == "present" and lateral(f["name"])]
    sides = {fields["side"] for fields in shown}
    if len(sides) != 1 or (side := sides.pop()) is None:
        return told
    signs = {fields["name"] for fields in shown}
    _, items, places, parts = phrases(lowered(sentence))
    company = (k for k, item in enumerate(items) if item.cue == "with" or item.text in _COMPANY)
    end = next((len("".join(parts[: 2 * places[k][1] + 1])) for k in company), len(sentence))

    def takes(fields: dict[str, Any]) -> bool:
        return (
            fields["side"] is None
            and fields["status"] != "absent"
            and lateral(fields["name"])
            and any(may_be(sign, fields["name"]) for sign in signs)
        )

    stated = [({**f, "side": side} if low < end and takes(f) else f, low, high) for f, low, high in told.stated]
    return told._replace(stated=stated)


_COMPANY = frozenset({"associated with", "in association with", "with associated"})


def placed(said: Said, start: int, section: str = "body") -> list[Finding]:
    """The findings of a sentence that starts at `start` of a text; their spans count in the text."""
    found = []
    for told, low, high in said.stated:
        finding = Finding.__new__(Finding)  # a copy of the shared fields: several times as fast as __init__
        finding.__dict__ = {**told, "span": [start + low, start + high], "section": section}
        found.append(finding)
    return found


def _own_tips(found: list[tuple[dict[str, Any], int, int]], sentence: str) -> None:
    """Take from each device of a sentence the tip that is told after the next one's name: "NG tube in place; right PICC
    with its tip in the SVC". In a plain list the tip may be of all.
    """
    devices = [(n, told, low, high) for n, (told, low, high) in enumerate(found) if told["device"]]
    for (n, told, low, high), (_, other, following, _) in pairwise(devices):
        part = other["name"] in LEXICON.data["parts"]  # a port's catheter
        if "tip" in told["device"] and following - high > _LISTED and not part:
            own = _device(told, sentence[:following], low, told["device"].get("event"))
            if "tip" not in own:
                device = {key: value for key, value in told["device"].items() if key != "tip"}
                found[n] = {**told, "device": device}, low, high


_LISTED = len(", and the ")  # as far apart as two names of a plain list are at most
_NUMBER_LETTER = LEXICON.letters["0"]
_DEVICES = frozenset(entry.name for entry in LEXICON.findings.values() if entry.device)
_SIZE = re.compile(
    r"(?<![\w.])(\d+(?:\.\d+)?)(?:\s*(?:[x\u00d7]|by|-|to)\s*\d+(?:\.\d+)?){0,3}[\s-]?"
    r"(mm|cm|millimeters?|centimeters?|millimetres?|centimetres?)\b", re.IGNORECASE,
)  # fmt: skip
_UNIT = re.compile(r"[mM][mM]|[cC][mM]|[mM][eE][tT]")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _attach_size(size: re.Match[str], found: list[tuple[dict[str, Any], int, int]]) -> None:
    """A measurement belongs to the nearest finding that is no device and not denied."""
    start, end = size.span()
    candidates = [n for n, (told, _, _) in enumerate(found) if told["status"] != "absent" and told["device"] is None]
    if not candidates:
        return
    near = min(candidates, key=lambda n: found[n][1] - end if found[n][1] >= end else start - found[n][2] + 3)
    told, low, high = found[near]
    if told["size"] is None:
        scale = 10.0 if size.group(2)[0] in "cC" else 1.0
        value = round(max(float(x) for x in _NUMBER.findall(size.group())) * scale, 2)
        told = {**told, "size": " ".join(size.group().split()), "size_mm": value if isfinite(value) else None}
        found[near] = told, low, high


_PLACED = re.compile(r"tip|termin|end|lie|proj|cours|seen|[cm]m ", re.IGNORECASE)
# How far a place reaches: up to a comma or dash, a loud mark, or advice ("2 cm above the carina - suggest retraction")
_PLACE = (
    r"(?:(?!\s[-\u2013\u2014]|\b(?:suggest|recommend|advise|consider|should|needs?|could be|may be|and should)\b)"
    r"[^.;,!?\u2014])+"
)
_TIP = re.compile(
    r"\b(?:tips?|terminat\w+|ends|ending|lies|projects?|projecting|coursing|courses|seen)\b[^.;]*?\b"
    r"(?:in|at|over|overlying|near|within|(?P<past>above|below|beyond|past)|into|to|from|by|with)\s+"
    rf"(?P<place>{_PLACE})", re.IGNORECASE,
)  # fmt: skip
_DISTANCE = re.compile(
    r"\b(\d+(?:\.\d+)?\s*(?:mm|cm)\s+(?:above|below|from|proximal to|distal to|superior to|beyond)\b"
    rf"{_PLACE})", re.IGNORECASE,
)  # fmt: skip
_UNSEEN_TIP = re.compile(
    r"\b(?:tips?|side ?port|(?:distal )?end)\b[^.;,]{0,40}?"
    r"\b(?:not (?:well |clearly |definitely )?(?:seen|visuali[sz]ed|visible|identified|included|imaged)|excluded"
    r"|(?:off|beyond|outside|out of|below) (?:the )?(?:\w+ )?(?:film|image|field|view|margin))",
    re.IGNORECASE,
)
_POSITION = re.compile(
    r"\b((?:good|satisfactory|appropriate|standard|stable|unchanged|expected|adequate|correct|proper|acceptable)"
    r" (?:position|placement|location)"
    r"|malpositioned|malposition|misplaced|kinked|coiled|too (?:high|low)|low[- ]lying|high[- ]lying)\b", re.IGNORECASE,
)  # fmt: skip
_POSITIONED = re.compile(r"posit|plac|locat|kink|coil|too |lying", re.IGNORECASE)
_EVENTS = {"new": "placed"}
# "withdrawn, now 5 cm above the carina": what was drawn back and is told a place is still there
_DRAWN_BACK = re.compile(
    r"\b(?:withdrawn|pulled|drawn)\b[^;]*?"
    r"\b(?:now|currently|tips?|terminat\w+|position|(?:above|below|into|to|at) the|mm|cm)\b", re.IGNORECASE,
)  # fmt: skip
_STILL_THERE = {"status": "present", "time": "current", "change": None}


def _device(shared: dict[str, Any], sentence: str, start: int, event: str | None) -> dict[str, str]:
    """{type, tip, position, event}: what the sentence says of a device; keys without a statement are left out."""
    device = {"type": shared["name"]}
    if shared["status"] != "absent":
        tail = sentence[start:]
        if (
            _PLACED.search(tail)
            and (match := _DISTANCE.search(tail) or _TIP.search(tail))
            and not _UNSEEN_TIP.search(tail)
        ):
            told = match.groupdict()
            place = f"{told['past'] or ''} {told['place']}" if "place" in told else match.group(1)
            device["tip"] = " ".join(place.split())
        if _POSITIONED.search(sentence) and (match := _POSITION.search(sentence)):
            device["position"] = match.group(1).lower()
    if event := event or _EVENTS.get(shared["change"] or ""):
        device["event"] = event
    return device
