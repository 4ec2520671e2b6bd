"""The counts of a run as a table: what the reports say of each finding, and how many questions are about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cxr_reason.mining.tasks import Question
from cxr_reason.radiology import Reading

STATES = ("present", "absent", "uncertain", "silent", "conflict")
COLUMNS = ("finding", *STATES, "questions")
WHOLE_FILM = "(whole film)"

_WEIGHT = {"absent": 0, "uncertain": 1, "present": 2, "conflict": 3}


def count(reading: Reading, asked: Sequence[Question], more: Mapping[str, int] = MappingProxyType({})) -> Counter[str]:
    """The counts of one report: each finding once, by the weightiest thing said of it, each question, and `more`."""
    states: dict[str, str] = {}
    for finding in reading.findings:
        if finding.time == "current":
            state = "conflict" if finding.conflict else finding.status
            known = states.get(finding.name)
            if known is None or _WEIGHT[state] > _WEIGHT[known]:
                states[finding.name] = state
    counts = Counter({"reports": 1, **more})
    for name, state in states.items():
        counts[f"finding/{name}/{state}"] = 1
    for question in asked:
        counts[question_key(question.task, question.finding)] += 1
    return counts


def question_key(task: str, finding: str) -> str:
    return f"question/{task}/{finding}"


def without_questions(counts: Mapping[str, int]) -> Counter[str]:
    return Counter({key: number for key, number in counts.items() if not key.startswith("question/")})


def rows(counts: Mapping[str, int]) -> list[tuple[str | int, ...]]:
    """The table, most often present first. A finding is silent in the reports that don't mention it."""
    said: dict[str, dict[str, int]] = {}
    asked: Counter[str] = Counter()
    for key, number in counts.items():
        kind, _, rest = key.partition("/")
        if kind == "finding":
            name, _, state = rest.rpartition("/")
            said.setdefault(name, dict.fromkeys(STATES, 0))[state] = number
        elif kind == "question":
            asked[rest.partition("/")[2] or WHOLE_FILM] += number
    for states in said.values():
        states["silent"] = counts.get("reports", 0) - sum(states.values())
    nothing = dict.fromkeys(STATES, 0)
    names = sorted(said.keys() | asked.keys(), key=lambda name: (-said.get(name, nothing)["present"], name))
    return [(name, *said.get(name, nothing).values(), asked[name]) for name in names]


def left_out(counts: Mapping[str, int]) -> dict[str, int]:
    """Why studies were left out, and how many."""
    return {rest[0]: number for rest, number in _left_out(counts) if len(rest) == 1}


UNASKED = ("not asked because", "studies", "findings")
_TEMPORAL = "no question about change: "


def unasked(counts: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Why questions weren't asked, and of how many studies or findings, most often first."""
    rows = []
    for rest, number in _left_out(counts):
        if len(rest) == 2:
            kind, reason = rest
            said = reason if kind == "finding" else _TEMPORAL + reason
            rows.append((said, number, 0) if kind == "temporal" else (said, 0, number))
    return sorted(rows, key=lambda row: (-row[1] - row[2], row[0]))


def _left_out(counts: Mapping[str, int]) -> list[tuple[list[str], int]]:
    return [(key.split("/", 2)[1:], number) for key, number in counts.items() if key.startswith("left out/")]
