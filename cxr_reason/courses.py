"""From one film to the next: what two readings of the same finding say of its course.

Mining asks by it and refining checks by it, so it stands below both. A course is told by grades ("small", then
"large"), or by presence: denied, then there, or there, then denied. A side is compared with the same side alone, a zone
with the same zone, and all sides must go one way. Grades that overlap ("small to moderate", "moderate") tell nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cxr_reason.radiology import Finding
from cxr_reason.radiology.places import same_place

OF_CHANGE = {"better": "improved", "resolved": "improved", "stable": "stable", "worse": "worse", "new": "worse"}
"""What a word of change (`Finding.change`) makes of a course."""

_GRADES = {"mild": 1, "moderate": 2, "severe": 3}


class Course(NamedTuple):
    """`answer` is improved, stable or worse; `by` is "grade", "appeared" or "gone", None where sides differ in it."""

    answer: str
    by: str | None


def course(before: Iterable[Finding], now: Iterable[Finding]) -> Course | None:
    """The course of one finding, of which `before` and `now` say what they say; None where they don't tell.

    What is neither definitely there nor definitely denied tells nothing, and so does a denial within a bound.
    """
    earlier, later = _by_side(before), _by_side(now)
    if earlier is None or later is None:
        return None
    earlier, later = _spread(earlier, later), _spread(later, earlier)
    # A denial of the finding on no side in particular is no side of its own beside the other film's left or right.
    sides: set[str | None] = {side for side in earlier.keys() | later.keys() if side is not None}
    sides = sides or {None}
    steps = {_step(_on(side, earlier), _on(side, later)) for side in sides}
    if None in steps or len({step.answer for step in steps if step}) != 1:
        return None
    told = [step for step in steps if step]
    return told[0] if len(told) == 1 else Course(told[0].answer, None)


_Sides = Mapping[str | None, Finding]


def _by_side(findings: Iterable[Finding]) -> _Sides | None:
    """Each side's statement; None where one of them is no plain one, or two speak of one side."""
    sides: dict[str | None, Finding] = {}
    for finding in findings:
        plain = finding.status != "uncertain" and finding.certainty == "definite" and not finding.bound
        if not plain or finding.side in sides:
            return None
        sides[finding.side] = finding
    return sides


def _spread(sides: _Sides, others: _Sides) -> _Sides:
    """With "bilateral" as left and right, where the other film tells them apart."""
    both = sides.get("bilateral")
    if both is None or len(sides) > 1 or not {"left", "right"} & others.keys():
        return sides
    return {"left": both, "right": both}


def _on(side: str | None, sides: _Sides) -> Finding | None:
    """What is said of `side`: by name, or by a denial that names none."""
    own = sides.get(side)
    if own is None and (general := sides.get(None)) is not None and general.status == "absent":
        return general
    return own


def _step(before: Finding | None, now: Finding | None) -> Course | None:
    if before is None or now is None or not same_place(before.site, now.site):
        return None
    if before.status == "absent" or now.status == "absent":
        if before.status == now.status:
            return None
        return Course("worse", "appeared") if before.status == "absent" else Course("improved", "gone")
    was, is_now = _range(before.severity), _range(now.severity)
    if was is None or is_now is None:
        return None
    (low, high), (lower, higher) = was, is_now
    if high < lower:
        return Course("worse", "grade")
    if higher < low:
        return Course("improved", "grade")
    return Course("stable", "grade") if low == high == lower == higher else None


def _range(severity: str | None) -> tuple[int, int] | None:
    """The ends of a severity, "mild-moderate" as (1, 2)."""
    grades = [_GRADES[part] for part in severity.split("-") if part in _GRADES] if severity else []
    return (min(grades), max(grades)) if grades else None
