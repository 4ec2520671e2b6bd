"""Does a report bear a claim out?

`verify(claim, report)` answers supported, contradicted or unverifiable, with its basis: `stated` (the report speaks of
this finding), `region` (it speaks of the whole region: "the lungs are clear") or `silent` (it doesn't speak of it).
The truth table is docs/verify.md; tests/test_verify.py tests it cell by cell. In short:

- A claim asserts no more than the report: a side, severity, change or certainty that the report doesn't state makes it
  unverifiable; one that differs makes it contradicted.
- A present child bears out its parent; an absent parent denies its children. Never the other way round.
- A bounded absence ("no large effusion") bears out the same bound only.
- A report that contradicts itself decides nothing.
- Silence: with `silence="normal"`, as the published factuality has it, an unmentioned finding is absent. With
  `silence="unknown"` every silent claim is unverifiable.
- Limits: a region denied within limits ("no acute process") decides nothing beyond them. With `limits="silent"` what
  lies beyond them is unmentioned, and judged as silence is: scores, which take silence as normal, ask it so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from cxr_reason.radiology.findings import Finding, placed, said
from cxr_reason.radiology.lexicon import LEXICON
from cxr_reason.radiology.mentions import sides_meet
from cxr_reason.radiology.places import height
from cxr_reason.radiology.reading import Reading, read
from cxr_reason.radiology.sentences import sentences

Decision = Literal["supported", "contradicted", "unverifiable"]
Basis = Literal["stated", "region", "silent"]
Silence = Literal["normal", "unknown"]
Limits = Literal["strict", "silent"]

_GRADE = {"differential": 1, "possible": 1, "probable": 2, "definite": 3}
_WORST: dict[str, int] = {"supported": 0, "unverifiable": 1, "contradicted": 2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one claim. `spans` are [start, end) in the report; `reason` is for people."""

    verdict: Decision
    basis: Basis
    spans: list[list[int]] = field(default_factory=list)
    reason: str = ""


def claims(text: str) -> list[Finding]:
    """The findings that a piece of prose claims of the film before it; general knowledge and plans claim nothing."""
    return list(_claims(text))


@lru_cache(maxsize=4096)
def _claims(text: str) -> tuple[Finding, ...]:
    found = []
    for start, end in sentences(text, 0, len(text)):
        found += [f for f in placed(said(text[start:end]), start) if f.time in ("current", "resolved")]
    return tuple(found)


def verify(
    claim: str | Finding, report: str | Reading, *, silence: Silence = "normal", limits: Limits = "strict"
) -> Verdict:
    """Judge a claim by a report. A text with several claims is worth as much as its worst one.

    Raises ValueError for an unknown `silence` or `limits`. A text that claims nothing is unverifiable.
    """
    if silence not in ("normal", "unknown"):
        raise ValueError(f"silence must be 'normal' or 'unknown', not {silence!r}")
    if limits not in ("strict", "silent"):
        raise ValueError(f"limits must be 'strict' or 'silent', not {limits!r}")
    reading = read(report) if isinstance(report, str) else report
    if isinstance(claim, Finding):
        return _verify(claim, reading, silence, limits)
    made = _claims(claim)
    if not made:
        return Verdict("unverifiable", "silent", reason="claims nothing about the film")
    verdicts = [_verify(c, reading, silence, limits) for c in made]
    worst = max(verdicts, key=lambda v: _WORST[v.verdict])
    return Verdict(worst.verdict, worst.basis, [s for v in verdicts for s in v.spans], worst.reason)


# ---------------------------------------------------------------------- one claim
def _verify(claim: Finding, reading: Reading, silence: Silence, limits: Limits) -> Verdict:
    facts = reading.current_facts
    below = LEXICON.descendants(claim.name)
    above = LEXICON.ancestors(claim.name)
    same = [f for f in facts if f.name == claim.name]
    if same and any(f.conflict for f in same if sides_meet(f.side, claim.side)):
        return _say("unverifiable", "stated", same, "the report contradicts itself here")
    # what the report affirms of the finding or of a special form of it, and what it denies of it or of its region
    affirmed = [*same, *[f for f in facts if f.name in below]] if below else same
    here = [f for f in affirmed if not _elsewhere(claim, f, reading)] if claim.site else affirmed
    if affirmed and not here and claim.status != "absent" and all(f.status != "absent" for f in affirmed):
        return _say("contradicted", "stated", affirmed, "the report names another place")
    affirmed = here
    present = [f for f in affirmed if f.status == "present"]
    uncertain = [f for f in affirmed if f.status == "uncertain"]
    excluding = _excluded_by(claim.name)
    absent = [f for f in facts if f.status == "absent" and not f.conflict]
    denied = [f for f in absent if f.name == claim.name or f.name in above]
    denied = _both_sides([f for f in denied if sides_meet(f.side, claim.side)])
    if excluding:
        denied += [f for f in absent if f.name in excluding and not f.bound and sides_meet(f.side, claim.side)]
    if limits == "silent":
        denied = [f for f in denied if not LEXICON.is_region(f.name) or _reaches(f, claim)]
    if claim.status == "absent" and not same and any(f.conflict for f in present):
        return _say("unverifiable", "stated", present, "the report contradicts itself here")
    if claim.status == "absent":
        return _absent(claim, facts, present, uncertain, denied, above, silence)
    return _positive(claim, facts, present, uncertain, denied, above, silence)


def _elsewhere(claim: Finding, fact: Finding, reading: Reading) -> bool:
    """Whether a finding that is there is so at another height of the lung than claimed, wherever it is mentioned."""
    claimed = height(claim.site)
    if claimed is None or fact.status == "absent":
        return False
    places = [
        height(f.site)
        for f in reading.findings
        if f.name == fact.name and f.status != "absent" and sides_meet(f.side, claim.side)
    ]
    return bool(places) and all(place is not None and place != claimed for place in places)


def _both_sides(denied: list[Finding]) -> list[Finding]:
    """The denials, and where left and right of one name are denied alike, one of both sides beside them."""
    pairs = []
    for left in denied:
        for right in denied:
            if left.side == "left" and right.side == "right" and (left.name, left.bound) == (right.name, right.bound):
                pairs.append(
                    replace(left, side=None, span=[min(left.span[0], right.span[0]), max(left.span[1], right.span[1])])
                )
    return denied + pairs


def _reaches(fact: Finding, claim: Finding) -> bool:
    """Whether a denial speaks of the claim, within its limits."""
    if claim.status == "absent":
        return _covers(fact, claim)
    if fact.side in ("left", "right") and claim.side is None:
        return False
    if fact.site and LEXICON.is_region(fact.name) and fact.site != claim.site:
        return False
    return _within_bound(fact.bound, claim)


def _excluded_by(name: str) -> tuple[str, ...]:
    return _EXCLUDED.get(name, ())


_EXCLUDED: dict[str, tuple[str, ...]] = {k: tuple(v) for k, v in LEXICON.data["excluded_by"].items()}


def _say(verdict: Decision, basis: Basis, facts: list[Finding], reason: str) -> Verdict:
    return Verdict(verdict, basis, [list(f.span) for f in facts], reason)


def _basis(claim: Finding, fact: Finding) -> Basis:
    return "stated" if fact.name == claim.name or not LEXICON.is_region(fact.name) else "region"


def _positive(
    claim: Finding, facts: list[Finding], present: list[Finding], uncertain: list[Finding], denied: list[Finding],
    above: frozenset[str], silence: Silence,
) -> Verdict:  # fmt: skip
    """A claim that the finding is there, or may be."""
    if claim.status == "uncertain" and any(_same_side(f, claim) for f in uncertain):
        present = [f for f in present if _same_side(f, claim)]  # left certain, right suspected: a claim about the right
    if present:
        return _compare(claim, present)
    if uncertain:
        near = [f for f in uncertain if sides_meet(f.side, claim.side)]
        if not near:
            return _say("contradicted", "stated", uncertain, "the report names the other side")
        if claim.status == "present":
            return _say("unverifiable", "stated", near, "the report only says that it may be there")
        if max(_GRADE[f.certainty] for f in near) < _GRADE[claim.certainty]:
            return _say("unverifiable", "stated", near, "the claim is surer than the report")
        return _compare(claim, near)
    for fact in denied:
        if _reaches(fact, claim):
            return _say("contradicted", _basis(claim, fact), [fact], "the report denies it")
    if denied:
        return _say("unverifiable", _basis(claim, denied[0]), denied, "the report denies it within limits only")
    general = [f for f in facts if f.name in above and f.status != "absent" and not LEXICON.is_region(f.name)]
    if general:
        return _say("unverifiable", "stated", general, "the report is less specific")
    if silence == "unknown":
        return Verdict("unverifiable", "silent", reason="the report doesn't mention it")
    return Verdict("contradicted", "silent", reason="the report doesn't mention it, which is taken as normal")


def _same_side(fact: Finding, claim: Finding) -> bool:
    return fact.side == claim.side or fact.side == "bilateral"


def _within_bound(bound: str | None, claim: Finding) -> bool:
    """Whether a finding as claimed falls under an absence with this bound."""
    if bound is None:
        return True
    if bound in ("acute", "new acute"):
        return claim.acuity == "acute" or (LEXICON.findings[claim.name].acute and claim.acuity is None)
    if bound == "large":
        return claim.severity == "severe"
    if bound == "new":
        return claim.change == "new"
    return False


def _compare(claim: Finding, facts: list[Finding]) -> Verdict:
    """The best verdict that any of the facts gives a claim of the same finding."""
    verdicts = [_details(claim, facts, fact) for fact in facts]
    return min(verdicts, key=lambda v: _WORST[v.verdict])


def _details(claim: Finding, facts: list[Finding], fact: Finding) -> Verdict:
    if fact.conflict:
        return _say("unverifiable", "stated", [fact], "the report contradicts itself here")
    if claim.side and claim.side != fact.side and fact.side != "bilateral":
        sides = {f.side for f in facts}
        if fact.side is None:
            return _say("unverifiable", "stated", [fact], "the report doesn't say which side")
        if not (claim.side == "bilateral" and {"left", "right"} <= sides):
            return _say("contradicted", "stated", [fact], f"the report says {fact.side}")
    if claim.severity and (reason := _severity(claim.severity, fact.severity)):
        return _say("contradicted" if fact.severity else "unverifiable", "stated", [fact], reason)
    if claim.acuity and claim.acuity != fact.acuity:
        if fact.acuity is None:
            return _say("unverifiable", "stated", [fact], "the report doesn't say how old it is")
        if "acute" in (claim.acuity, fact.acuity):
            return _say("contradicted", "stated", [fact], f"the report says {fact.acuity}")
    if claim.change and claim.change != fact.change:
        if fact.change is None:
            return _say("unverifiable", "stated", [fact], "the report names no change")
        return _say("contradicted", "stated", [fact], f"the report says {fact.change}")
    if claim.size_mm:
        if fact.size_mm is None:
            return _say("unverifiable", "stated", [fact], "the report gives no size")
        if not 0.8 <= claim.size_mm / max(fact.size_mm, 1e-9) <= 1.25:
            return _say("contradicted", "stated", [fact], f"the report says {fact.size}")
    return _say("supported", "stated", [fact], "")


def _severity(claimed: str, stated: str | None) -> str:
    """Why a severity doesn't fit; empty where it does. A range fits each of its ends."""
    if stated is None:
        return "the report doesn't say how severe"
    return "" if set(claimed.split("-")) & set(stated.split("-")) else f"the report says {stated}"


def _absent(
    claim: Finding,
    facts: list[Finding],
    present: list[Finding],
    uncertain: list[Finding],
    denied: list[Finding],
    above: frozenset[str],
    silence: Silence,
) -> Verdict:  # fmt: skip
    """A claim that the finding is not there."""
    own = [f for f in denied if f.name == claim.name and _covers(f, claim)]
    if LEXICON.is_region(claim.name) and own:
        return _say("supported", "stated", own, "")  # "the lungs are clear" beside an old granuloma
    for fact in present:
        if sides_meet(fact.side, claim.side) and (verdict := _against(claim, fact)):
            return _say(verdict, "stated", [fact], "the report says that it is there")
    for fact in uncertain:
        if sides_meet(fact.side, claim.side):
            verdict = "contradicted" if fact.certainty == "probable" else "unverifiable"
            return _say(verdict, "stated", [fact], "the report says that it may be there")
    covering = [f for f in denied if _covers(f, claim)]
    if covering:
        best = min(covering, key=lambda f: f.name != claim.name)
        return _say("supported", _basis(claim, best), [best], "")
    if denied:
        return _say("unverifiable", _basis(claim, denied[0]), denied, "the report denies it within limits only")
    if claim.bound and any(_against(claim, f) is None for f in present):
        return _say("supported", "stated", present, "")
    general = [f for f in facts if f.name in above and f.status == "present" and not LEXICON.is_region(f.name)]
    if any(sides_meet(f.side, claim.side) for f in general):
        return _say("unverifiable", "stated", general, "the report is less specific")
    if silence == "unknown":
        return Verdict("unverifiable", "silent", reason="the report doesn't mention it")
    return Verdict("supported", "silent", reason="the report doesn't mention it, which is taken as normal")


def _against(claim: Finding, fact: Finding) -> Decision | None:
    """What a present fact says of a denial; None where the denial's bound leaves room for it."""
    if claim.bound is None:
        return "contradicted"
    if claim.bound == "large" and fact.severity:
        return "contradicted" if "severe" in fact.severity else None
    if claim.bound == "acute" and (fact.acuity or fact.calcified or LEXICON.findings[fact.name].acute):
        return None if fact.calcified or fact.acuity in ("old", "chronic") else "contradicted"
    if claim.bound == "new" and fact.change:
        return "contradicted" if fact.change == "new" else None
    return "unverifiable"


def _covers(fact: Finding, claim: Finding) -> bool:
    """Whether a denial is at least as wide as the claimed one."""
    if fact.side and fact.side != "bilateral" and fact.side != claim.side:
        return False
    if fact.site and LEXICON.is_region(fact.name) and fact.site != claim.site:
        return False
    if fact.bound is None:
        return True
    if fact.bound == claim.bound:
        return True
    region = LEXICON.is_region(fact.name) and fact.name != claim.name
    return fact.bound == "acute" and region and LEXICON.findings[claim.name].acute
