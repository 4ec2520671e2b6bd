"""`cxr score`: how well a model answers and reasons, as tables, JSON, details and a page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import click

from cxr_reason import cli, console
from cxr_reason.radiology.verify import Silence
from cxr_reason.records import dumps_plain
from cxr_reason.rewards import JUDGES
from cxr_reason.rewards.readers import verdicts_of
from cxr_reason.scoring import compare, figures, run, statistics, tables
from cxr_reason.sheets import read_sheet
from cxr_reason.streams import Input

from . import _films, _options

FORMATS = ("jsonl",)


def _fields(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


@click.command()
@_options.input_argument
@click.option(
    "--judge",
    type=click.Choice(list(JUDGES)),
    default="rules",
    show_default=True,
    help="Who says what is true: our rules, the judgements stored in RadRBench's own files, or a reader's sheet.",
)
@click.option("--sheet", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="The sheet, filled.")
@_options.silence_option
@click.option(
    "--against",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Another model's predictions on the same questions: paired differences, with intervals and a test.",
)
@click.option(
    "--agreement",
    nargs=2,
    metavar="A B",
    type=click.Path(exists=True, dir_okay=False),
    help="Score nothing: how far two judges agree, each by its details of the same predictions or by a filled sheet.",
)
@click.option(
    "--by", default="", metavar="A,B,…", callback=_fields, help="Scores by fields of the records too: view,sex,site."
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
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="A line an item, in the order of the input: scores, claims, verdicts. A killed run goes on where it stopped.",
)
@click.option(
    "--html", type=click.Path(dir_okay=False), metavar="FILE", help="A page with figures and every case to look at."
)
@click.option(
    "--no-reports",
    "reports",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Leave report text out of the details and the page.",
)
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
    source: str | None,
    judge: str,
    sheet: str | None,
    silence: Silence,
    against: str | None,
    agreement: tuple[str, str] | None,
    as_json: bool,
    details: str | None,
    html: str | None,
    **given: Any,
) -> None:
    """Score predictions: how well a model answers and how well it reasons.

    Reads records with a question, an answer, a report, a reference chain (`steps`) and a `prediction`, or evaluation
    files of RadRBench-CXR. Every claim of the prediction is held against the report, and what it says against the
    reference chain. Beside the published RadRScore stand parts that denying everything can't buy, and what two models
    get that never look at a film. The tables, or --json, go to stdout.
    """
    if agreement:
        if source or against:
            raise click.UsageError("--agreement compares two files of its own: give no input and no --against.")
        told = compare.agreement(*agreement, draws=given["draws"] or statistics.DRAWS, seed=given["seed"])
        return _put(told, compare.show, as_json)
    cli.stop_if_waiting(ctx, source)
    if "-" in (details, html):
        raise click.UsageError("--details and --html need files: stdout is for the score.")
    if (judge == "sheet") != (sheet is not None):
        raise click.UsageError("--judge sheet and --sheet FILE belong together.")
    if given["films"] != "none" and not html:
        raise click.UsageError("--films shows films on the page: name it with --html.")
    if details and details == html:
        raise click.UsageError("--details and --html need a file each.")
    if given["draws"] and not statistics.available():
        console.note("numpy is not installed, so there are no intervals: pip install 'cxr-reason[score]'")
    result, summary, failure = run.score(
        Input(source, formats=FORMATS),
        judge=judge,
        options={"verdicts": verdicts_of(read_sheet(sheet))} if sheet else {},
        silence=silence,
        against=Input(against, formats=FORMATS) if against else None,
        details=details,
        html=html,
        **given,
    )
    _put(result, tables.show, as_json)
    console.note(f"score: {result['items']:,} judged, {summary.unreadable:,} unreadable")
    if failure:
        raise failure
    return None


def _put(told: Mapping[str, Any], show: Callable[[Mapping[str, Any], TextIO], None], as_json: bool) -> None:
    """The result, on stdout: it is this command's data."""
    if as_json:
        click.echo(dumps_plain(told))
    else:
        show(told, sys.stdout)
