"""``--per-finding N``: of all questions, the N with the smallest hashes for each task, finding and answer.

The first pass writes every question to a file, with its cell ("binary/pneumothorax/no"). `cutoffs` reads that with N
numbers in memory for each cell, and the second pass lets through what is not above its cell's cutoff, in the order of
the input. What is chosen depends on the seed and on the questions' ids alone.

The file of all questions stands beside the output, as ``OUT.questions.partial``: a run that was killed in either pass
goes on, and the file is gone when the output is there. For stdout it is a temporary one.
"""

from __future__ import annotations

import heapq
import os.path
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
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
    config: Mapping[str, Any],
    **whole: Any,
) -> runner.Summary:
    """Mine as `runner.run` does, and keep `count` questions of a cell. The records of `work` must have a ``cell``."""
    with ExitStack() as stack:
        beside = output is not None and not dry_run and (os.path.isfile(output) or not os.path.exists(output))
        if output is not None and beside:
            target = Path(output).resolve()
            every = target.with_name(f"{target.name}.questions.partial")
            if target.parent.is_dir():
                every.touch(mode=0o600)  # like all that is unfinished; what replaces it keeps its mode
            stack.callback(_drop_empty, every)
        else:
            every = Path(stack.enter_context(TemporaryDirectory(prefix="cxr-mine-"))) / "questions.jsonl"
        # However many rows are broken: what the others give is written first.
        whole |= {"max_failed": 1.0, "rejects": None if dry_run else rejects, "force": force, "config": config}
        summary = runner.run(source, work, stage="mine", output=every, **whole)
        if summary.records:
            limits = cutoffs(Input(every).rows(), count=count, seed=seed)
            picked = runner.run(
                Input(every),
                partial(keep, cutoffs=limits, seed=seed),
                stage="mine",
                output=output,
                output_format=output_format,
                dry_run=dry_run,
                force=force,
                config={**config, "per_finding": count},
            )
            summary.counts = tally.without_questions(summary.counts) + picked.counts
            summary.records = picked.records
        every.unlink(missing_ok=True)
    runner.require_few_failures(summary, source.name, max_failed=max_failed, rejects=rejects)
    return summary


def _drop_empty(path: Path) -> None:
    if path.is_file() and not path.stat().st_size:
        path.unlink()


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
