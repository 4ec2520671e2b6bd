"""The process reward: how true and how complete the reasoning of one completion is, as a whole and step by step.

*Whole*: the harmonic mean of factuality and completeness, over claims of which each finding of a side counts once.

- A true denial weighs nothing where the reference chain doesn't deny the same, whether the report is silent or says so
  too: twelve normal organs beside one error are worth no more than the error alone.
- What is there weighs as much as all that isn't. Of the findings of reference chains three in four are denials; counted
  alike, denying everything would be worth 0.75. So where the reference chain has ``a`` denials and ``p`` findings that
  are present or suspected, everything that concerns presence (findings told as there, denials of what is there) has
  the weight ``a / p``, never less than 1, and the rest 1.
- What only fills (such a denial, a finding told more than twice) adds `FILLING` to what factuality is divided by, so
  padding costs.
- What is told as there and denied as well isn't told: who says both is right once in two without looking.
- The report's silence is taken as normal. Where it is taken as unknown, a claim that the report neither bears out nor
  contradicts only fills: where reports leave out what is there, a true finding isn't paid for as an error.

*Steps*: the share of a step's weighing claims that the report supports. A step that claims nothing that weighs (a plan,
the answer) has no verdict.

This is the ratio of ChestX-Reasoner's process reward (arXiv 2504.20930 names factuality and completeness and released
no code) with the guards that `cxr_reason.rewards.guards` tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cxr_reason.radiology import Finding
from cxr_reason.rewards import prose
from cxr_reason.rewards.rules import Examined, same_thing, takes_back

FILLING = 0.1
"""What a claim that only fills adds to the denominator of factuality, in claims."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a completion's reasoning and what it is worth."""

    start: int
    end: int
    """Characters of the completion, ``[start, end)``."""
    claims: tuple[tuple[str, float, bool], ...]
    """What it claims of each finding, once: (finding, weight, whether the report supports it)."""

    @property
    def verdict(self) -> float:
        """The share of its claims that are supported, by weight, in [0, 1]."""
        return sum(weight for _, weight, true in self.claims if true) / sum(weight for _, weight, _ in self.claims)


def score(told: Examined) -> float | None:
    """The process reward of one completion, in [0, 1]; None where there is nothing to judge by."""
    if not told.judged:
        return None
    claims, reference = told.line["claims"], told.line["reference"]
    presence = _presence(reference)
    weights = [_weight(claim, told, presence) for claim in claims]
    supported = sum(weight for claim, weight in zip(claims, weights, strict=True) if claim["verdict"] == "supported")
    made = sum(weights) + FILLING * (weights.count(0.0) + _again(told))
    wanted = [
        (presence if finding.status != "absent" else 1.0, entry["state"] == "told" and not _taken_back(finding, told))
        for finding, entry in zip(told.reference, reference, strict=True)
    ]
    whole = sum(weight for weight, _ in wanted)
    factuality = supported / made if made else 0.0
    completeness = sum(weight for weight, there in wanted if there) / whole if whole else 0.0
    return _harmonic(factuality, completeness)


def steps(told: Examined, completion: str) -> list[Step]:
    """The steps of `completion` that claim something that weighs, in order, with their verdicts."""
    if not told.judged:
        return []
    presence = _presence(told.line["reference"])
    known = {
        (claim["finding"], claim["side"], claim["status"] == "absent", claim.get("film") == "prior"): (
            _weight(claim, told, presence),
            claim["verdict"] == "supported",
        )
        for claim in told.line["claims"]
    }
    found = []
    for step, place in zip(told.steps, prose.spans(completion, told.steps), strict=True):
        made = dict.fromkeys(key for key in _keys(step) if key in known)
        claims = tuple((f"{key[0]} (prior)" if key[3] else key[0], *known[key]) for key in made if known[key][0])
        if place and claims:
            found.append(Step(*place, claims))
    return found


def _keys(step: prose.Step) -> Iterator[tuple[str, str | None, bool, bool]]:
    """What tells each claim of a step: its finding, its side, whether it denies, whether it is of the film before."""
    for claims, prior in ((step.claims, False), (step.before, True)):
        yield from ((claim.name, claim.side, claim.status == "absent", prior) for claim in claims)


def _presence(reference: list[dict[str, Any]]) -> float:
    """What a claim of presence weighs, where one of absence weighs 1."""
    absent = sum(entry["status"] == "absent" for entry in reference)
    present = len(reference) - absent
    return max(1.0, absent / present) if present else 1.0


def _weight(claim: Mapping[str, Any], told: Examined, presence: float) -> float:
    if claim["verdict"] == "unverifiable" and claim["basis"] == "silent":
        return 0.0
    if claim["status"] != "absent" or claim["verdict"] == "contradicted":
        return presence
    reference = told.before if claim.get("film") == "prior" else told.reference
    fills = claim["verdict"] == "supported" and not _denied(claim["finding"], reference)
    return 0.0 if fills else 1.0


def _taken_back(finding: Finding, told: Examined) -> bool:
    """Whether the opposite of `finding` is told, too."""
    return any(takes_back(claim, finding) for step in told.steps for claim in step.claims)


def _denied(name: str, reference: tuple[Finding, ...]) -> bool:
    return any(finding.status == "absent" and same_thing(name, finding.name) for finding in reference)


def _again(told: Examined) -> int:
    """How often a finding is told once more than twice: a step and the conclusion may both name it."""
    times = Counter(key for step in told.steps for key in set(_keys(step)))
    return sum(count - 2 for count in times.values() if count > 2)


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
