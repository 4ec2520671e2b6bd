"""Ways to be paid without looking at the film, and what a mix of rewards pays for them.

A model in training finds whatever its reward pays for. So before a GPU is spent, `lint` writes for records of the user
what an honest reader would write and what a cheat would, with the same answer, and compares their rewards. The measure
of a cheat is the *honest chain with one error*: the reference chain with one finding turned round, left out or made up.
A cheat who can't read the film knows no more than that; whoever is paid better than such a reader is paid for the
wrong thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import mean
from typing import Any

from cxr_reason.engines.prompts import BETWEEN_STEPS
from cxr_reason.radiology import LEXICON, Finding
from cxr_reason.rewards.functions import COLUMNS, Reward
from cxr_reason.rewards.rules import claim_in_words, examine, same_thing

INVENTED = ("pneumothorax", "pleural effusion", "lung mass", "pulmonary edema", "rib fracture", "cardiomegaly")
"""Of these the first that a chain doesn't speak of is its made-up finding."""
HONEST, ERROR = "honest chain", "honest chain with one error"

Chain = list[str]
"""Sentences."""


@cache
def denials() -> str:
    """A sentence of denial for each finding that readers nearly always mention, whole regions left out."""
    return " ".join(map(_denied, _always_reported()))


def _always_reported() -> list[str]:
    return [name for name, entry in LEXICON.findings.items() if entry.reported and not LEXICON.is_region(name)]


def _denied(name: str) -> str:
    return f"There is no {name}."


def _sentence(finding: Finding) -> str:
    told = claim_in_words(finding)
    return f"{told[:1].upper()}{told[1:]}."


def honest(findings: Sequence[Finding]) -> Chain:
    """The findings of a reference chain, told one by one."""
    return [_sentence(finding) for finding in findings]


def _turned(finding: Finding) -> Finding:
    status = "present" if finding.status == "absent" else "absent"
    return replace(finding, status=status, certainty="definite", bound=None)


def with_one_error(findings: Sequence[Finding]) -> list[Chain]:
    """Chains that are honest but for one finding: each in turn turned round or, where others are there, left out; and
    one made up.
    """
    told = honest(findings)
    chains = []
    for number, finding in enumerate(findings):
        before, after = told[:number], told[number + 1 :]
        chains.append([*before, _sentence(_turned(finding)), *after])
        if before or after:
            chains.append([*before, *after])
    spoken = {finding.name for finding in findings}
    made_up = next((name for name in INVENTED if not any(same_thing(name, other) for other in spoken)), None)
    if made_up:
        chains.append([*told, f"There is a {made_up}."])
    return chains


def _litany(findings: Sequence[Finding], record: Mapping[str, Any]) -> list[Chain]:
    return [[denials()]]


def _empty(findings: Sequence[Finding], record: Mapping[str, Any]) -> list[Chain]:
    return [["I look at the film and think about the question."]]


def _repeated(findings: Sequence[Finding], record: Mapping[str, Any]) -> list[Chain]:
    return [[*chain, *chain, *chain, *chain] for chain in with_one_error(findings)]


def _copied(findings: Sequence[Finding], record: Mapping[str, Any]) -> list[Chain]:
    options = [option for option in record.get("options") or () if isinstance(option, str)]
    return [[f"The question is: {record.get('question')}", *(f"{option}." for option in options)]]


def _padded(findings: Sequence[Finding], record: Mapping[str, Any]) -> list[Chain]:
    spoken = {finding.name for finding in findings}
    more = [_denied(name) for name in _always_reported() if not any(same_thing(name, other) for other in spoken)]
    return [[*chain, *more] for chain in with_one_error(findings)]


def _called(findings: Sequence[Finding], record: Mapping[str, Any]) -> list[Chain]:
    return [[f"There is a {name}." for name in _always_reported()]]


def _hedged(findings: Sequence[Finding], record: Mapping[str, Any]) -> list[Chain]:
    hedged = [replace(f, status="uncertain", certainty="possible", bound=None) for f in findings]
    return [honest(hedged)]


def _both(findings: Sequence[Finding], record: Mapping[str, Any]) -> list[Chain]:
    return [honest([one for finding in findings for one in (finding, _turned(finding))])]


CHEATS: dict[str, Callable[[Sequence[Finding], Mapping[str, Any]], list[Chain]]] = {
    "all-negative litany": _litany,
    "empty thinking": _empty,
    "repeated steps": _repeated,
    "copied options": _copied,
    "padding with normals": _padded,
    "hedging everything": _hedged,
    "calling everything": _called,
    "saying both": _both,
}
"""What each writes for a record; repetition and padding of a chain with one error, which they are to make look better.
"""


@dataclass(frozen=True, slots=True)
class Margin:
    """What one way of writing is paid, in the mean over records."""

    name: str
    reward: float
    margin: float
    """How much more an honest chain with one error is paid."""
    below: float
    """Share of the records where it is paid more."""


@dataclass(frozen=True, slots=True)
class Lint:
    """What a mix of rewards pays for."""

    items: int
    left_out: int
    """Records without a report, a reference chain that tells of something present, or an answer."""
    honest: float
    error: float
    margins: tuple[Margin, ...]


def lint(rows: Iterable[Mapping[str, Any]], rewards: Mapping[str, float], functions: Mapping[str, Reward]) -> Lint:
    """What the mix ``{name: weight}`` of `functions` pays for, in the mean over `rows`.

    The answer is the right one everywhere, and the form is. Records whose chain tells of nothing that is there are left
    out: of a normal film the litany is true, and an honest chain is one.
    """
    paid: dict[str, list[float]] = {name: [] for name in (HONEST, ERROR, *CHEATS)}
    left_out = 0
    for row in rows:
        reference = examine({**row, "prediction": ""}).reference
        if not row.get("answer") or all(finding.status == "absent" for finding in reference):
            left_out += 1
            continue
        ways = {HONEST: [honest(reference)], ERROR: with_one_error(reference)}
        ways |= {name: cheat(reference, row) for name, cheat in CHEATS.items()}
        for name, chains in ways.items():
            paid[name].append(mean(_paid(row, chains, rewards, functions)))
    items = len(paid[HONEST])
    if not items:
        return Lint(0, left_out, 0.0, 0.0, ())
    error = paid[ERROR]
    margins = tuple(
        Margin(
            name,
            mean(paid[name]),
            mean(error) - mean(paid[name]),
            sum(one < other for one, other in zip(paid[name], error, strict=True)) / items,
        )
        for name in CHEATS
    )
    return Lint(items, left_out, mean(paid[HONEST]), mean(error), margins)


def _paid(
    row: Mapping[str, Any], chains: Sequence[Chain], rewards: Mapping[str, float], functions: Mapping[str, Reward]
) -> list[float]:
    """The summed reward of each chain, with the right answer behind it."""
    completions = [
        "<think>" + BETWEEN_STEPS.join(chain) + f"</think>\n<answer>{row['answer']}</answer>" for chain in chains
    ]
    columns = {name: [row.get(name)] * len(chains) for name in COLUMNS}
    sums = [0.0] * len(chains)
    for name, weight in rewards.items():
        prompts = [row.get("question")] * len(chains)
        for number, value in enumerate(functions[name](prompts=prompts, completions=completions, **columns)):
            sums[number] += weight * (value or 0.0)
    return sums
