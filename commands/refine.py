"""`cxr refine`: hold chains against their reports, mend what can be mended, reject the rest with reasons."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from cxr_reason import cli, console, records
from cxr_reason.radiology.verify import Silence
from cxr_reason.refining import llm, review, study
from cxr_reason.refining.checks import CHECKS
from cxr_reason.runner import Summary, run
from cxr_reason.streams import Input

from . import _llm, _options, _review


def _checks(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The checks that ``a,b`` names, or all but those of ``-a,-b``, in the order of the table."""
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    left_out = {name[1:] for name in names if name.startswith("-")}
    asked_for = {name for name in names if not name.startswith("-")}
    unknown = sorted((left_out | asked_for) - set(CHECKS))
    if unknown:
        raise click.BadParameter(f"no check is called {unknown[0]!r}. There are: {', '.join(CHECKS)}.", ctx, param)
    return tuple(name for name in CHECKS if name not in left_out and (not asked_for or name in asked_for))


def _list_checks(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        width = max(map(len, CHECKS))
        for name, check in CHECKS.items():
            click.echo(f"{name:{width}}  {check.doc}")
        ctx.exit()


@click.command(cls=cli.Command)
@_options.input_argument
@click.option(
    "--checks",
    metavar="NAMES",
    callback=_checks,
    shell_complete=_options.completing((*CHECKS, *(f"-{name}" for name in CHECKS))),
    help="Only these, or all but these: claims,answer or -relevant,-length.  [default: all]",
)
@click.option(
    "--list-checks", is_flag=True, is_eager=True, expose_value=False, callback=_list_checks, help="Name the checks."
)
@_options.silence_option
@click.option(
    "--max-steps",
    type=click.IntRange(min=2),
    metavar="N",
    default=24,
    show_default=True,
    help="Longest chain, in steps.",
)
@click.option(
    "--max-chars",
    type=click.IntRange(min=1),
    metavar="N",
    default=6000,
    show_default=True,
    help="Longest chain, in characters.",
)
@_llm.chain_options
@_review.review_options("of the chains, also of those that are rejected,", strata=review.STRATA)
@_options.no_reports_option("the sheet and the page")
@_options.output_options
@_options.stream_options
@_options.seed_option
@cli.verbosity_options
@click.pass_context
def refine(
    ctx: click.Context,
    /,
    source: str | None,
    checks: tuple[str, ...],
    silence: Silence,
    max_steps: int,
    max_chars: int,
    **given: Any,
) -> None:
    """Check chains of reasoning against their reports, mend them or reject them.

    Reads records with a question, an answer, a report and steps, as `cxr mine` writes them or as somebody else did:
    steps may be plain texts. Every claim of every step is verified against the report. Talk of the report, of unseen
    studies, history or advice is taken out, steps that don't hold are dropped, and a chain whose answer then doesn't
    follow any more is rejected: --rejects tells why. Run on its own output it changes nothing.

    With --sheet or --html, claims are drawn for a colleague to review, beside the usual output, which stays the same.
    """
    cli.stop_if_waiting(ctx, source)
    config: dict[str, Any] = {"checks": checks, "silence": silence, "max_steps": max_steps, "max_chars": max_chars}
    output = given["output"] if given["output"] != "-" else None
    sample = _review.drawn(given, {"--output": output, "--rejects": given["rejects"]}, stdout="the records")
    model = _llm.writer(ctx, given, silence=silence, max_steps=max_steps, max_chars=max_chars)
    work: Any = partial(study.refine, **config, config=records.config_hash(config))
    if sample:
        work = partial(work, review_seed=given["seed"])
    if model:
        work, config = llm.refining(*model, work), config | model[0].identity | model[1].as_dict()
    stream = {name: value for name, value in given.items() if name not in _review.NAMES}
    stream |= {"stage": study.STAGE, "units": study.by_study, "config": config}
    records_in = Input(source, formats=("jsonl",))
    if sample:
        places = {"sheet": given["sample_sheet"], "html": given["sample_html"], "reports": given["reports"]}
        summary = review.run(records_in, work, sample, **places, **stream)
        console.note(f"{len(sample.chosen()):,} claims drawn for review, from {sample.strata:,} strata")
    else:
        summary = run(records_in, work, **stream)
    show(summary)


def show(summary: Summary) -> None:
    """What became of the records, on stderr."""
    counts = summary.counts
    names = sorted(
        {name for kind, _, name in (key.partition("/") for key in counts) if name and kind in ("mended", "rejected")},
        key=lambda name: -counts[f"rejected/{name}"],
    )
    if names:
        console.table(
            "What the checks found",
            ["check", "mended", "rejected"],
            [[name, counts[f"mended/{name}"], counts[f"rejected/{name}"]] for name in names],
        )
    console.note(
        f"refine: {summary.records + summary.rejected:,} in, {summary.records:,} kept "
        f"({counts['mended']:,} of them mended), {summary.rejected:,} rejected, {summary.unreadable:,} unreadable"
    )
    llm.tell(counts)
