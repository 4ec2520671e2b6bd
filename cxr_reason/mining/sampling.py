"""``--per-finding N``: of all questions, the N with the smallest hashes for each task, finding and answer.

The first pass writes every question to a file, with its cell ("binary/pneumothorax/no"). `cutoffs` reads that with N
numbers in memory for each cell, and the second pass lets through what is not above its cell's cutoff, in the order of
the input. What is chosen depends on the seed and on the questions' ids alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cxr_reason import runner
from cxr_reason.mining import tally
from cxr_reason.streams import Input, Row, Source, stable_hash


def run(
    source: Source,
    work: Callable[[Any], runner.Result],
    *,
    count: int,
    seed: int,
    output: str | None,
    output_format: str,
    force: bool,
    max_failed: float,
    dry_run: bool,
    rejects: str | None,
    **whole: Any,
) -> runner.Summary:
    """Mine as `runner.run` does, and keep `count` questions of a cell. The records of `work` must have a ``cell``."""
    with TemporaryDirectory(prefix=".mine-", dir=Path(output).resolve().parent if output else None) as folder:
        every = Path(folder) / "questions.jsonl"
        whole |= {"max_failed": max_failed, "rejects": None if dry_run else rejects}
        summary = runner.run(source, work, stage="mine", output=every, **whole)
        if not summary.records:
            return summary
        limits = cutoffs(Input(every).rows(), count=count, seed=seed)
        picked = runner.run(
            Input(every),
            partial(keep, cutoffs=limits, seed=seed),
            stage="mine",
            output=output,
            output_format=output_format,
            dry_run=dry_run,
            force=force,
        )
    summary.counts = tally.without_questions(summary.counts) + picked.counts
    summary.records = picked.records
    return summary


def cutoffs(rows: Iterable[Row], *, count: int, seed: int) -> dict[str, int]:
    """For each cell the largest hash that is among its `count` smallest."""
    smallest: dict[str, list[int]] = {}
    for row in rows:
        assert row.data is not None
        heap = smallest.setdefault(row.data["cell"], [])
        rank = -stable_hash(seed, row.data["id"])
        if len(heap) < count:
            heapq.heappush(heap, rank)
        else:
            heapq.heappushpop(heap, rank)
    return {cell: -heap[0] for cell, heap in smallest.items()}


def keep(row: Row, *, cutoffs: Mapping[str, int], seed: int) -> runner.Result:
    """The question of `row` without its cell, if it is among the chosen."""
    assert row.data is not None
    record = dict(row.data)
    cell = record.pop("cell")
    if stable_hash(seed, record["id"]) > cutoffs[cell]:
        return runner.Result()
    task, finding, _ = cell.split("/")
    return runner.Result([record], counts={tally.question_key(task, finding): 1})
