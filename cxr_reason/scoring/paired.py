"""Two models on the same questions: the mean difference of each measure, its interval, and a permutation test.

Items are paired by id. A difference is the mean over the pairs of a task, then over tasks. Patients are what is drawn
for the interval, and what changes places in the test: under the null hypothesis it doesn't matter which model gave a
patient's answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

from cxr_reason.scoring import statistics
from cxr_reason.scoring.tables import FEW, figure
from cxr_reason.scoring.tally import Note, Tally, in_order

NAMED = 1000
"""Ids that only one of the two has: so many are named, the rest counted."""


def compare(
    ours: Tally,
    theirs: Tally,
    *,
    name: str,
    draws: int = statistics.DRAWS,
    permutations: int = statistics.PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """Ours minus theirs, two tallies that hold their items. `name` is what the other is called.

    Needs numpy. Each figure has "ours" and "theirs", the means over the same pairs, and "p", two-sided.
    """
    mine, others = ours.held, theirs.held
    drawn = statistics.Replicates(draws, seed=seed)
    flipped = statistics.Replicates(permutations, seed=seed, kind="signs")
    sums: dict[tuple[str, str], list[float]] = {}
    for identity, note in mine.items():
        if identity in others:
            _add(note, others[identity], sums, drawn, flipped)
    tasks = sorted({task for task, _ in sums})
    return {
        "name": name,
        "pairs": len(mine.keys() & others.keys()),
        "permutations": permutations,
        "overall": _differences(sums, tasks, drawn, flipped),
        "tasks": {task: _differences(sums, [task], drawn, flipped) for task in tasks},
        "unmatched": {"ours": _only(mine, others), "theirs": _only(others, mine)},
        "repeated": {"ours": ours.counts["repeated"], "theirs": theirs.counts["repeated"]},
    }


def _add(
    mine: Note,
    other: Note,
    sums: dict[tuple[str, str], list[float]],
    drawn: statistics.Replicates,
    flipped: statistics.Replicates,
) -> None:
    """Add a pair: [sum of ours, sum of theirs, pairs] by (task, measure), and both kinds of replicates."""
    task = mine["task"]
    differences: dict[Any, float] = {}
    counted: dict[Any, float] = {}
    for measure, value in mine["values"].items():
        if measure not in other["values"]:
            continue
        entry = sums.setdefault((task, measure), [0.0, 0.0, 0])
        entry[0] += value
        entry[1] += other["values"][measure]
        entry[2] += 1
        differences[task, measure] = value - other["values"][measure]
        counted[task, measure, "n"] = 1.0
    drawn.add(mine["cluster"], differences | counted, batch=task)
    flipped.add(mine["cluster"], differences, batch=task)


def _differences(
    sums: Mapping[tuple[str, str], list[float]],
    tasks: list[str],
    drawn: statistics.Replicates,
    flipped: statistics.Replicates,
) -> dict[str, Any]:
    found = {}
    for measure in in_order(measure for task, measure in sums if task in tasks):
        own = [task for task in tasks if (task, measure) in sums]
        entries = [sums[task, measure] for task in own]
        ours, theirs = (sum(entry[which] / entry[2] for entry in entries) / len(entries) for which in (0, 1))
        by_draw = [statistics.ratio(drawn.sums((t, measure)), drawn.sums((t, measure, "n"))) for t in own]
        by_flip = [flipped.sums((t, measure)) / n for t, (_, _, n) in zip(own, entries, strict=True)]
        told = figure(
            ours - theirs,
            int(sum(entry[2] for entry in entries)),
            statistics.interval(reduce(add, by_draw) / len(own)),
            few=any(entry[2] < FEW for entry in entries),
        )
        p = statistics.p_value(ours - theirs, reduce(add, by_flip) / len(own))
        found[measure] = {**told, "ours": round(ours, 6), "theirs": round(theirs, 6), "p": round(p, 6)}
    return found


def _only(these: Mapping[str, Note], others: Mapping[str, Note]) -> dict[str, Any]:
    missing = [identity for identity in these if identity not in others]
    return {"items": len(missing), "named": missing[:NAMED], "all_named": len(missing) <= NAMED}
