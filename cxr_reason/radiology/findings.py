"""What one sentence states, as findings: names, status, attributes, sizes, devices."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from cxr_reason.radiology.assertions import Statement, assertions
from cxr_reason.radiology.lexicon import LEXICON
from cxr_reason.radiology.sentences import Phrases, lowered, phrases


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
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value:
                out[name] = value
        if self.time != "current":
            out["time"] = self.time
        out["span"] = self.span
        out["section"] = self.section
        return out


_OPTIONAL = tuple(
    f.name for f in fields(Finding) if f.name not in ("name", "label", "status", "certainty", "time", "span", "section")
)


def statements(text: str, start: int, end: int) -> list[Finding]:
    """The findings that the sentence text[start:end] states; spans count in the text, the section is "body"."""
    parts = phrases(lowered(text[start:end]))
    sized = _NUMBER_LETTER in parts.letters
    return stated_findings(assertions(parts.items), parts, text, start, end, "body", sized=sized)


_NUMBER_LETTER = LEXICON.letters["0"]


def stated_findings(
    statements: tuple[Statement, ...],
    parts: Phrases,
    text: str,
    start: int,
    end: int,
    section: str,
    *,
    sized: bool,
) -> list[Finding]:
    found = []
    span = parts.spans()
    for shared, first, last, event in statements:
        low, high = span(first, last)
        finding = Finding.__new__(Finding)  # a copy of the shared fields: several times as fast as __init__
        finding.__dict__ = {**shared, "span": [start + low, start + high], "section": section}
        if shared["name"] in _DEVICES:
            finding.device = _device(finding, text[start:end], low, event)
        found.append(finding)
    if sized and _UNIT.search(text, start, end):
        for size in _SIZE.finditer(text, start, end):
            _attach_size(size, found)
    return found


_DEVICES = frozenset(entry.name for entry in LEXICON.findings.values() if entry.device)
_SIZE = re.compile(
    r"(?<![\w.])(\d+(?:\.\d+)?)(?:\s*(?:[x\u00d7]|by|-|to)\s*\d+(?:\.\d+)?){0,3}[\s-]?"
    r"(mm|cm|millimeters?|centimeters?|millimetres?|centimetres?)\b", re.IGNORECASE,
)  # fmt: skip
_UNIT = re.compile(r"[mM][mM]|[cC][mM]|[mM][eE][tT]")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _attach_size(size: re.Match[str], found: list[Finding]) -> None:
    """A measurement belongs to the nearest finding that is no device and not denied."""
    start, end = size.span()
    candidates = [f for f in found if f.status != "absent" and f.device is None]
    if not candidates:
        return
    near = min(candidates, key=lambda f: f.span[0] - end if f.span[0] >= end else start - f.span[1] + 3)
    if near.size is None:
        scale = 10.0 if size.group(2)[0] in "cC" else 1.0
        near.size = " ".join(size.group().split())
        near.size_mm = round(max(float(x) for x in _NUMBER.findall(size.group())) * scale, 2)


_PLACED = re.compile(r"tip|termin|end|lie|proj|cours|seen|cm |mm ")
_TIP = re.compile(
    r"\b(?:tips?|terminat\w+|ends|ending|lies|projects?|projecting|coursing|courses|seen)\b[^.;]*?\b"
    r"(?:in|at|above|over|overlying|near|within|below|into|to|from|beyond|past|by|with)\s+(?P<place>[^.;,]+)",
    re.IGNORECASE,
)  # fmt: skip
_DISTANCE = re.compile(
    r"\b(\d+(?:\.\d+)?\s*(?:mm|cm)\s+(?:above|below|from|proximal to|distal to|superior to|beyond)[^.;,]*)",
    re.IGNORECASE,
)
_POSITION = re.compile(
    r"\b((?:good|satisfactory|appropriate|standard|stable|unchanged|expected|adequate|correct|proper|acceptable)"
    r" (?:position|placement|location)"
    r"|malpositioned|malposition|misplaced|kinked|coiled|too (?:high|low)|low[- ]lying|high[- ]lying)\b", re.IGNORECASE,
)  # fmt: skip
_POSITIONED = re.compile(r"posit|plac|locat|kink|coil|too |lying", re.IGNORECASE)
_EVENTS = {"new": "placed"}


def _device(finding: Finding, sentence: str, start: int, event: str | None) -> dict[str, str]:
    """{type, tip, position, event}: what the sentence says of a device; keys without a statement are left out."""
    device = {"type": finding.name}
    if finding.status != "absent":
        tail = sentence[start:]
        if _PLACED.search(tail) and (match := _DISTANCE.search(tail) or _TIP.search(tail)):
            device["tip"] = " ".join((match.groupdict().get("place") or match.group(1)).split())
        if _POSITIONED.search(sentence) and (match := _POSITION.search(sentence)):
            device["position"] = match.group(1).lower()
    if event := event or _EVENTS.get(finding.change or ""):
        device["event"] = event
    return device
