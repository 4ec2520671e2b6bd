"""What a reading lets us say of a film, sorted for asking: what is there, what isn't, and what must not be asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from cxr_reason.mining import wording
from cxr_reason.mining.chains import Denial, Sight
from cxr_reason.mining.language import MANNERS, REGIONS
from cxr_reason.radiology import LEXICON, Finding, Reading

NEGATIVES = ("stated", "region", "silent")
"""On what a No may rest; each holds those before it."""

_ORDER = {region: number for number, region in enumerate(REGIONS)}
_URGENCY = {"critical": 0, "urgent": 1, "routine": 2}


@dataclass(slots=True)
class View:
    """One report, ready for asking."""

    seen: list[Sight]
    """Present, without conflict, in the order in which a film is read."""
    suspected: list[Sight]
    absent: list[Sight]
    """Denied in the report's own words, bounds included; nothing that is kin to what is there or suspected."""
    denials: dict[str, Denial]
    """What a No or a wrong option may be made of, by name."""
    conflicts: frozenset[str]


def look(reading: Reading, *, negatives: str = "region") -> View:
    """Sort the findings of `reading`. `negatives` is one of `NEGATIVES`."""
    seen: list[Finding] = []
    suspected: list[Finding] = []
    absent: list[Finding] = []
    awkward: list[Finding] = []
    conflicts = frozenset(finding.name for finding in reading.findings if finding.conflict)
    for finding in reading.findings:
        if finding.name in conflicts or finding.time != "current":
            if finding.time != "hypothetical":
                awkward.append(finding)
        elif finding.status == "present":
            seen.append(finding)
        elif finding.status == "uncertain":
            suspected.append(finding)
        elif finding.certainty == "definite":
            absent.append(finding)
        else:
            awkward.append(finding)
    sure = _together(seen, reading.text)
    open_ = [sight for sight in _together(suspected, reading.text) if not _covered(sight, sure)]
    none = _together(absent, reading.text)
    positive = {sight.name for sight in sure} | {sight.name for sight in open_} | {found.name for found in awkward}
    blocked = _kin(frozenset(positive))
    denials = _denials(none, blocked, negatives)
    if negatives == "silent":
        touched = frozenset(finding.name for finding in reading.findings)
        unmentioned = (name for name in _silent(touched) if name not in blocked and name not in denials)
        denials |= {name: Denial(name, "silent", None) for name in unmentioned}
    return View(sure, open_, [sight for sight in none if sight.name not in blocked], denials, conflicts)


def urgency(sight: Sight) -> int:
    """0 for critical, 1 for urgent, 2 for routine findings."""
    return _URGENCY[LEXICON.findings[sight.name].urgency]


@cache
def kin(name: str) -> frozenset[str]:
    """All findings that can't be offered as wrong beside `name`: itself, its ancestors, descendants and signs."""
    return frozenset(other for other in LEXICON.findings if LEXICON.related(name, other))


@lru_cache(maxsize=4096)
def _kin(names: frozenset[str]) -> frozenset[str]:
    """What must not be denied beside `names`: their kin, and what shares a CheXpert label with one of them."""
    labels = {LEXICON.findings[name].label for name in names} - {None, "Support Devices"}
    alike = (name for name, entry in LEXICON.findings.items() if entry.label in labels)
    return frozenset(alike).union(*(kin(name) for name in names))


@cache
def _denied_with(name: str, bound: str | None) -> tuple[str, ...]:
    """What goes with a denial of `name`: the kinds of it that a normal region excludes, or the acute ones alone."""
    below = sorted(LEXICON.descendants(name))
    askable = [other for other in below if MANNERS[other].asked and not MANNERS[other].beyond]
    if bound == "acute":
        return tuple(other for other in askable if LEXICON.findings[other].acute)
    return tuple(askable) if bound is None else ()


@lru_cache(maxsize=512)
def _silent(touched: frozenset[str]) -> tuple[str, ...]:
    """What readers always report, and this report doesn't mention."""
    return tuple(
        name
        for name, entry in LEXICON.findings.items()
        if entry.reported and MANNERS[name].asked and not kin(name) & touched
    )


def _denials(absent: Iterable[Sight], blocked: frozenset[str], negatives: str) -> dict[str, Denial]:
    stated: dict[str, Denial] = {}
    region: dict[str, Denial] = {}
    for sight in absent:
        details = sight.details
        if details.side or details.site or (details.bound not in (None, "acute")):
            continue
        # "The lungs are clear" beside a granuloma can't be meant to the letter, so nothing follows from it.
        if details.bound is None and sight.name in blocked:
            continue
        if details.bound is None and MANNERS[sight.name].asked:
            stated.setdefault(sight.name, Denial(sight.name, "stated", sight))
        if negatives != "stated":
            for name in _denied_with(sight.name, details.bound):
                if name not in blocked:
                    region.setdefault(name, Denial(name, "region", sight))
    return region | stated


def _together(findings: Iterable[Finding], report: str) -> list[Sight]:
    """The mentions of one finding on one side as one, with the details of all of them."""
    merged: list[Sight] = []
    by_name: dict[str, list[Sight]] = {}
    for finding in findings:
        details = wording.details_of(finding, report)
        others = by_name.setdefault(finding.name, [])
        for sight in others:
            joined = _join(sight.details, details)
            if joined is not None and sight.certainty == finding.certainty:
                sight.details = joined
                sight.spans.append(list(finding.span))
                sight.change = sight.change or finding.change
                break
        else:
            sight = Sight(
                details, finding.status, finding.certainty, finding.alternatives, [list(finding.span)], finding.change
            )
            others.append(sight)
            merged.append(sight)
    for sight in merged:
        sight.spans.sort()
        sight.claim = wording.claim(sight.details, sight.status, sight.certainty, sight.alternatives)
    merged.sort(key=lambda sight: _ORDER[MANNERS[sight.name].region])
    return merged


def _join(one: wording.Details, other: wording.Details) -> wording.Details | None:
    """Both together, or None where they disagree: then they are two."""
    if one == other:
        return one
    if any(first and second and first != second for first, second in zip(one, other, strict=True)):
        return None
    # A bound limits its own statement only.
    return other._replace(**_said(one)) if one.bound == other.bound else None


def _said(details: wording.Details) -> dict[str, Any]:
    return {field: value for field, value in details._asdict().items() if value}


def _covered(suspected: Sight, seen: Iterable[Sight]) -> bool:
    """Whether what is suspected here is certain elsewhere in the report, on the same side."""
    return any(
        suspected.name == sight.name
        and (suspected.details.side is None or suspected.details.side == sight.details.side)
        for sight in seen
    )
