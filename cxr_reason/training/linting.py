"""`cxr rl --lint`: what the rewards of a run pay for, on its own records, before a GPU is spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

from cxr_reason import console, radrbench
from cxr_reason.rewards import guards
from cxr_reason.streams import Input
from cxr_reason.training import rewarding
from cxr_reason.training.runs import Run
from cxr_reason.training.settings import RlSettings

MOST = 1000
"""Records that are looked at, the first ones."""


def lint(run: Run) -> guards.Lint:
    """What the rewards of `run` pay for on its first `MOST` records. Raises CxrError for an unknown reward."""
    chosen = cast(RlSettings, run.settings)
    weights = chosen.rewards
    functions = {name: rewarding.resolve(name, silence=chosen.silence) for name in weights}
    return guards.lint(islice(_rows(run), MOST), weights, functions)


def _rows(run: Run) -> Iterator[Mapping[str, Any]]:
    for name in run.inputs:
        source = Input(None if name == "-" else Path(name), formats=("jsonl", "array"))
        for row in radrbench.records_of(source.rows()):
            if row.data is None:
                console.warn(f"{row.file}:{row.line}: {row.error}", kind="records that can't be used")
            else:
                yield row.data


def table(told: guards.Lint) -> str:
    """`told` as a table in Markdown, and a sentence on it."""
    lines = [
        f"{told.items:,} records whose chain tells of something present ({told.left_out:,} others left out); the "
        "answer is right everywhere.",
        "",
        "| what is written | reward | below one error by | below in |",
        "| --- | ---: | ---: | ---: |",
        f"| {guards.HONEST} | {told.honest:.3f} | | |",
        f"| {guards.ERROR} | {told.error:.3f} | | |",
    ]
    lines += [f"| {one.name} | {one.reward:.3f} | {one.margin:+.3f} | {one.below:.0%} |" for one in told.margins]
    paid = [one.name for one in told.margins if one.margin <= 0]
    if not told.items:
        verdict = "Nothing could be looked at: no record has a report, a chain and an answer."
    elif paid:
        verdict = f"Paid as well as an honest chain with one error: {', '.join(paid)}. A model will find that out."
    else:
        verdict = "Every cheat is paid less than an honest chain with one error."
    return "\n".join([*lines, "", verdict])
