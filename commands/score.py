"""`cxr score`: how well a model answers and reasons."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import click

from cxr_reason import cli, console
from cxr_reason.radiology.verify import Silence
from cxr_reason.rewards import JUDGES
from cxr_reason.rewards.ratios import PARTS
from cxr_reason.rewards.readers import verdicts_of
from cxr_reason.runner import Summary, run
from cxr_reason.scoring import items
from cxr_reason.sheets import read_sheet
from cxr_reason.streams import Input

from . import _options


@click.command()
@_options.input_argument
@click.option(
    "--judge",
    type=click.Choice(list(JUDGES)),
    default="rules",
    show_default=True,
    help="Who says what is true: our rules, the judgements in RadRBench's evaluation files, or a reader's sheet.",
)
@click.option("--sheet", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="The sheet, filled.")
@click.option(
    "--silence",
    type=click.Choice(["normal", "unknown"]),
    default="normal",
    show_default=True,
    help="What is made of a finding that the report doesn't mention.",
)
@click.option(
    "--details", type=click.Path(dir_okay=False), metavar="FILE", help="Write the lines here, and none to stdout."
)
@_options.output_options
@_options.stream_options
@cli.verbosity_options
@click.pass_context
def score(
    ctx: click.Context,
    /,
    source: str | None,
    judge: str,
    sheet: str | None,
    silence: Silence,
    details: str | None,
    **given: Any,
) -> None:
    """Score predictions: accuracy, and RadRScore with its parts, without a paid judge.

    Reads records with a `prediction`, their report and their reference chain, or RadRBench-CXR's evaluation files.
    Every claim of a prediction is verified against the report, every finding of the reference chain looked up in it.
    """
    cli.stop_if_waiting(ctx, source)
    if (judge == "sheet") != (sheet is not None):
        raise click.UsageError("--judge sheet and --sheet FILE belong together.", ctx)
    options = {"verdicts": verdicts_of(read_sheet(sheet))} if sheet else {}
    config = {"judge": judge, "silence": silence, "sheet": options}
    work = partial(items.score, judged_by=judge, silence=silence, options=options)
    if details and given["output"]:
        raise click.UsageError("--details and -o write the same lines: give one of them.", ctx)
    stream = given | {"output": details or given["output"], "stage": items.STAGE, "units": items.items}
    show(run(Input(source, formats=("jsonl",)), work, config=config, **stream))


def show(summary: Summary) -> None:
    """The means over all items, on stderr."""
    counts: dict[str, float] = defaultdict(float, summary.counts)
    judged = [part for part in PARTS if counts[f"judged/{part}"]]
    console.table(
        "Scores",
        ["part", "items", "mean"],
        [[part, int(n := counts[f"judged/{part}"]), f"{counts[f'sum/{part}'] / n:.4f}"] for part in judged],
    )
    console.note(
        f"score: {summary.records:,} items, {counts['sum/correct'] / max(1, summary.records):.4f} right, "
        f"{int(counts['unread']):,} answers unread, {summary.unreadable:,} unreadable"
    )
