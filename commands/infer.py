"""`cxr infer`: a model's answers to questions about films."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from cxr_reason import cli, console, engines
from cxr_reason.engines.base import Sampling
from cxr_reason.films import Films
from cxr_reason.inference import stage
from cxr_reason.inference.blind import BLIND
from cxr_reason.runner import Summary
from cxr_reason.sinks import claim_stdout
from cxr_reason.streams import Input

from . import _engines, _films, _options


def _instruction(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The text, or what stands in the file of that name."""
    if value is None or not value.strip():
        return value
    path = Path(value)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # too long for a name, or no UTF-8
        pass
    if " " not in value and ("/" in value or path.suffix):
        raise click.BadParameter(f"there is no readable file {value}.", ctx, param)
    return value


@click.command(cls=cli.Command)
@_options.input_argument
@click.option(
    "--ckpt", metavar="MODEL", help="The model: a folder, a name of the hub, tiny, or one that the endpoint has."
)
@_engines.engine_options
@_engines.sampling_options
@click.option("--vote", is_flag=True, help="Of --n texts, predict one with the answer that most give.")
@click.option(
    "--instruction",
    metavar="FILE|TEXT",
    callback=_instruction,
    help="What follows the question.  [default: to think and answer, in tags]",
)
@click.option("--no-think", "think", is_flag=True, flag_value=False, default=True, help="Ask for the answer alone.")
@click.option(
    "--blind",
    type=click.Choice(BLIND),
    help="A control: a blank film of the same size, or another patient's, in the place of each.",
)
@_options.no_reports_option("the predictions")
@_films.film_options
@_options.output_options
@_options.part_options
@_options.seed_option
@cli.verbosity_options
@click.pass_context
def infer(
    ctx: click.Context,
    /,
    source: str | None,
    ckpt: str | None,
    engine_settings: dict[str, Any],
    sampling: Sampling,
    vote: bool,
    instruction: str | None,
    think: bool,
    blind: str | None,
    reports: bool,
    films: Films,
    **given: Any,
) -> None:
    """Answer questions about films with a model.

    Reads records with a question and images, as `cxr mine` and `cxr refine` write them, or items of RadRBench-CXR, and
    adds the model's text as `prediction`. Lines come in the order of the input, each as it is done; a run with -o that
    was killed goes on after the last of them. A film that can't be read rejects its own item.
    """
    cli.stop_if_waiting(ctx, source)
    if vote and sampling.n < 2:
        raise click.UsageError("--vote needs several texts: add --n 5 --temperature 0.7.")
    if not think and instruction is not None:
        raise click.UsageError("--no-think is an instruction of its own: leave out one of the two.")
    if blind == "shuffle" and source in (None, "-"):
        raise click.UsageError("--blind shuffle looks through the whole input for other films: name a file.")
    claim_stdout()
    if not console.is_verbose():
        warnings.simplefilter("ignore")  # of other people's libraries, to other people's users
    plan = engines.plan(model=ckpt, **engine_settings)
    summary, pace = stage.infer(
        Input(source, formats=("jsonl",)),
        plan,
        films=films,
        sampling=sampling,
        settings=stage.Settings(think=think, instruction=instruction, vote=vote, blind=blind, reports=reports),
        **given,
    )
    show(summary, pace)


def show(summary: Summary, pace: stage.Pace) -> None:
    """What became of the questions, on stderr."""
    counts = summary.counts
    done = f"{counts['asked']:,} could be asked" if counts["asked"] else f"{summary.records:,} predicted"
    cut = f" ({counts['cut_off']:,} texts cut off by --max-tokens)" if counts["cut_off"] else ""
    console.note(
        f"infer: {summary.rows:,} in, {done}{cut}, {summary.rejected:,} rejected, {summary.unreadable:,} unreadable"
    )
    if pace.tokens:
        rate = pace.tokens / max(pace.taken, 1e-9)
        console.note(
            f"{pace.tokens:,} tokens, {rate:,.0f} a second, in {pace.taken:.1f} s after {pace.loading:.1f} s of loading"
        )
