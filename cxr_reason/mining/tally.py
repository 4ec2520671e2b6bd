"""The counts of a run as a table: what the reports say of each finding, and how many questions are about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cxr_reason import columns
from cxr_reason.mining.tasks import Question
from cxr_reason.radiology import Reading

STATES = ("present", "absent", "uncertain", "silent", "conflict")
COLUMNS = ("finding", *STATES, "questions")
SHOWN = 20
"""Rows of the table on a terminal."""
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


def further_rows(tables: Sequence[Mapping[str, Any]], mapping: Mapping[str, str]) -> dict[str, int]:
    """The rows of a study after its first, by what they bring: another report, an image or other cells, or nothing."""
    counts = dict.fromkeys(("rows/another report", "rows/repeated", "rows/further"), 0)
    texts: set[str] = set()
    for number, table in enumerate(tables):
        text = columns.compose_report(table, mapping)
        if number:
            kind = "repeated" if table in tables[:number] else "another report" if text not in texts else "further"
            counts[f"rows/{kind}"] += 1
        texts |= {text, ""}
    return {key: number for key, number in counts.items() if number}


def rows_told(counts: Mapping[str, int]) -> str | None:
    """How many rows belong to a study already met, in a sentence; None where each row is a study."""
    glued, repeated, further = (counts.get(f"rows/{kind}", 0) for kind in ("another report", "repeated", "further"))
    if not (total := glued + repeated + further):
        return None
    parts = [
        f"{further:,} with the same report" if further else "",
        f"{glued:,} with another, which is joined to it" if glued else "",
        f"{repeated:,} repeated in full" if repeated else "",
    ]
    return (
        f"{total:,} {'row is' if total == 1 else 'rows are'} of a study already met: {', '.join(filter(None, parts))}"
    )


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
