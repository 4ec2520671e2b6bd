"""Several mentions of one finding: whether they contradict each other, and what they say together.

addendum > impression > findings > preliminary read; within a section the later mention.
"""

from __future__ import annotations

from copy import copy

from cxr_reason.radiology.findings import Finding
from cxr_reason.radiology.lexicon import LEXICON
from cxr_reason.radiology.sections import RANK

_FINAL = RANK.keys() - {"preliminary"}


def sides_meet(a: str | None, b: str | None) -> bool:
    """Whether statements about side a and side b can speak of the same place; no side = both."""
    return a is None or b is None or a == b or "bilateral" in (a, b)


def _opposed(a: Finding, b: Finding) -> bool:
    """Whether two mentions of one name can't both be true."""
    if {a.time, b.time} & {"history", "hypothetical"}:
        return False
    if not sides_meet(a.side, b.side):
        return False
    if a.device and {a.time, b.time} == {"current", "resolved"} and a.section == b.section:
        return False  # one is removed, another of its kind is there
    absent, other = (a, b) if a.status == "absent" else (b, a)
    if absent.status == "absent" and other.status != "absent":
        if absent.side and other.side is None:
            return False
        if absent.bound:
            return (absent.bound == "large" and other.severity == "severe") or (
                absent.bound in ("definite", "acute") and other.acuity == "acute"
            )
        return not (absent.time == "resolved" and other.time != "current")
    return {a.change, b.change} == {"better", "worse"} and a.section != b.section


def _superseded(a: Finding, b: Finding) -> bool:
    """Whether one is of the preliminary read, and the other of the final one."""
    return (a.section == "preliminary") != (b.section == "preliminary")


_MOST_COMPARED = 50  # mentions of one name: no report has more, and time stays linear for texts that are none


def mark_conflicts(found: list[Finding]) -> None:
    by_name: dict[str, list[Finding]] = {}
    for finding in found:
        by_name.setdefault(finding.name, []).append(finding)
    for mentions in by_name.values():
        if len(mentions) > 1:
            for i, a in enumerate(mentions[:_MOST_COMPARED]):
                for b in mentions[i + 1 : _MOST_COMPARED]:
                    if _opposed(a, b) and not _superseded(a, b):
                        a.conflict = b.conflict = True
            _mark_swapped_sides(mentions)
    for finding in found:
        if finding.status != "present" or finding.time != "current" or not _weighty(finding):
            continue
        entry = LEXICON.findings[finding.name]
        if not entry.acute and entry.urgency == "routine":
            continue
        for general in LEXICON.ancestors(finding.name) & by_name.keys():
            for denied in by_name[general][:_MOST_COMPARED]:
                if denied.section == "preliminary" and finding.section in _FINAL:
                    continue
                denies = (
                    denied.status == "absent" and denied.time == "current" and denied.bound in (None, finding.acuity)
                )
                if (
                    denies
                    and (denied.side not in ("left", "right") or finding.side)
                    and sides_meet(denied.side, finding.side)
                ):
                    denied.conflict = finding.conflict = True


def _mark_swapped_sides(mentions: list[Finding]) -> None:
    """Left in the findings, right in the impression: evidently one finding."""
    sides: dict[str, set[str]] = {}
    for mention in mentions:
        if mention.status == "present" and mention.time == "current" and mention.side and mention.section in _FINAL:
            sides.setdefault(mention.section, set()).add(mention.side)
    if len(sides) == 2 and sorted(map(sorted, sides.values())) == [["left"], ["right"]]:
        for mention in mentions:
            mention.conflict = mention.conflict or mention.side in ("left", "right")


def _weighty(finding: Finding) -> bool:
    return not (
        finding.calcified
        or finding.acuity in ("old", "chronic")
        or finding.severity == "mild"
        or finding.certainty != "definite"
    )


def merge(found: list[Finding]) -> list[Finding]:
    """One finding a name and side; the better section wins, then the later mention; details come from all."""
    groups: dict[tuple[str, str | None, str], list[Finding]] = {}
    by_name: dict[str, list[Finding]] = {}
    for finding in found:
        by_name.setdefault(finding.name, []).append(finding)
    drafted = "preliminary" in [finding.section for finding in found]
    for name, mentions in by_name.items():
        if drafted:  # where the final read speaks of it, the preliminary one doesn't count
            mentions = [m for m in mentions if m.section in _FINAL] or mentions
        if len(mentions) == 1:
            groups[name, None, ""] = mentions
            continue
        sides = {m.side for m in mentions if m.side and m.time in ("current", "resolved")}
        for mention in mentions:
            era = "now" if mention.time in ("current", "resolved") else mention.time
            if (
                mention.device
                and mention.time == "resolved"
                and any(m.time == "current" and not m.conflict for m in mentions)
            ):
                era = "removed"
            side = mention.side
            if side is None and len(sides) == 1:
                side = next(iter(sides))
            groups.setdefault((name, side, era), []).append(mention)
    return [_fuse(mentions) for mentions in groups.values()]


def _fuse(mentions: list[Finding]) -> Finding:
    if len(mentions) == 1:
        return mentions[0]
    order = sorted(range(len(mentions)), key=lambda i: (RANK[mentions[i].section], i), reverse=True)
    best = mentions[order[0]]
    if best.status == "absent" and best.bound:
        # a bounded absence decides nothing against what another mention states
        best = next((mentions[i] for i in order if mentions[i].status != "absent" or not mentions[i].bound), best)
    elif not best.conflict:
        # stated once outright, it is there: a hedge elsewhere mostly speaks of its cause
        best = next((mentions[i] for i in order if mentions[i].status == "present"), best)
        if best.certainty == "differential":
            same = [mentions[i] for i in order if RANK[mentions[i].section] == RANK[best.section]]
            best = next((m for m in same if m.certainty == "probable"), best)
    fused = copy(best)
    values = fused.__dict__
    for other in (mentions[i] for i in order):
        if other.status == best.status:
            for name in ("side", "site", "severity", "size", "size_mm", "change", "acuity", "device"):
                values[name] = values[name] or getattr(other, name)
            values["calcified"] = values["calcified"] or other.calcified
    fused.conflict = any(m.conflict for m in mentions)
    return fused
