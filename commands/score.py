"""`cxr score`: how well a model answers and reasons, as tables, JSON, details and a page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import click

from cxr_reason import cli, console, several
from cxr_reason.engines.asking import tell
from cxr_reason.environment import install_line
from cxr_reason.radiology.verify import Silence
from cxr_reason.records import dumps_plain
from cxr_reason.rewards import JUDGES
from cxr_reason.rewards.readers import verdicts_of
from cxr_reason.scoring import compare, figures, run, statistics, tables
from cxr_reason.scoring.metrics import METRICS
from cxr_reason.sheets import read_sheet

from . import _films, _llm, _options, _review

FORMATS = ("jsonl",)


@click.command(cls=cli.Command)
@_options.inputs_argument
@click.option(
    "--judge",
    type=click.Choice(list(JUDGES)),
    default="rules",
    show_default=True,
    help="Who says what is true: our rules, the judgements stored in RadRBench's own files, a reader's sheet, or a "
    "language model.",
)
@click.option(
    "--sheet",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="The sheet that a reader has filled, for --judge sheet.",
)
@_llm.model_options
@_options.silence_option
@click.option(
    "--against",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Another model's predictions on the same questions: paired differences, with intervals and a test. "
    "Repeatable, where they are in several files.",
)
@click.option(
    "--agreement",
    nargs=2,
    metavar="A B",
    type=click.Path(exists=True, dir_okay=False),
    help="Score nothing: how far two judges agree, each by its details of the same predictions or by a filled sheet.",
)
@_options.names_option("--by", help="Scores by fields of the records too: view,sex,site.")
@_options.names_option(
    "--metrics",
    "texts",
    known=tuple(METRICS),
    help="Text metrics of others beside ours: rouge, bleu, or radeval:NAME. They need their libraries.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    default=statistics.DRAWS,
    show_default=True,
    metavar="N",
    help="Bootstrap replicates for the intervals; 0 for none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option(
    "--details",
    type=cli.OutFile(),
    metavar="FILE",
    help="A line an item, in the order of the input: scores, claims, verdicts. A killed run goes on where it stopped.",
)
@click.option("--html", type=cli.OutFile(), metavar="FILE", help="A page with figures and every case to look at.")
@_review.review_options("of the predictions", strata=run.STRATA, prefix="sample-")
@_options.no_reports_option("details, pages and the sheet")
@click.option(
    "--films",
    type=click.Choice(figures.KINDS),
    default="none",
    show_default=True,
    help="Films on the page: links beside the case, or small pictures in the page itself.",
)
@_films.image_root_option
@_options.rejects_options
@_options.stream_options
@_options.seed_option
@cli.verbosity_options
@click.pass_context
def score(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    judge: str,
    sheet: str | None,
    silence: Silence,
    against: tuple[str, ...],
    agreement: tuple[str, str] | None,
    as_json: bool,
    details: str | None,
    html: str | None,
    **given: Any,
) -> None:
    """Score predictions: how well a model answers and how well it reasons.

    Reads records with a question, an answer, a report, a reference chain (`steps`) and a `prediction`, or evaluation
    files of RadRBench-CXR; several files, such as the shards of a run, are one input. Every claim of the prediction is
    held against the report, and what it says against the reference chain. Beside the published RadRScore stand parts
    that denying everything can't buy, and what two models get that never look at a film. The tables, or --json, go to
    stdout.

    With --sample-sheet, claims of the predictions are drawn for a reader, who fills the sheet; --judge sheet then
    scores by it, and --agreement compares it with its key.
    """
    if agreement:
        if sources or against:
            raise click.UsageError("--agreement compares two files of its own: give no input and no --against.")
        told = compare.agreement(*agreement, draws=given["draws"], seed=given["seed"])
        return _put(told, compare.show, as_json)
    cli.stop_if_waiting(ctx, sources[0] if sources else None)
    files = {"--details": details, "--html": html, "--rejects": given["rejects"]}
    sample = _review.drawn(given, files, stdout="the score", prefix="sample-")
    if sample and judge == "stored":
        raise click.UsageError("--sample draws claims, and the stored judgements tell none: take --judge rules.")
    if (judge == "sheet") != (sheet is not None):
        raise click.UsageError("--judge sheet and --sheet FILE belong together.")
    if given["films"] != "none" and not html:
        raise click.UsageError("--films shows films on the page: name it with --html.")
    if given["draws"] and not statistics.available():
        console.note(f"numpy is not installed, so there are no intervals: {install_line(['cxr-reason[score]'])}")
    tries = given["tries"]
    asker = _llm.asker(ctx, given, wanted=judge == "llm", by="--judge llm")
    result, summary, failure = run.score(
        several.opened(sources, formats=FORMATS),
        judge=judge,
        options={"verdicts": verdicts_of(read_sheet(sheet))} if sheet else {},
        silence=silence,
        against=several.opened(against, formats=FORMATS) if against else None,
        details=details,
        html=html,
        sample=sample,
        asker=asker,
        tries=tries,
        **{name: value for name, value in given.items() if name not in ("sample", "strata", "tries")},
    )
    _put(result, tables.show, as_json)
    tell(summary.counts)
    if failure:
        raise failure
    console.note(f"score: {result['items']:,} judged, {summary.unreadable:,} unreadable")
    return None


def _put(told: Mapping[str, Any], show: Callable[[Mapping[str, Any], TextIO], None], as_json: bool) -> None:
    """The result, on stdout: it is this command's data."""
    if as_json:
        click.echo(dumps_plain(told))
    else:
        show(told, sys.stdout)
