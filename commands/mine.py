"""`cxr mine`: from reports to questions with chains of reasoning."""

from __future__ import annotations

import os.path
from functools import partial
from typing import Any

import click

from cxr_reason import cli
from cxr_reason.joins import Join
from cxr_reason.layouts import LAYOUTS, open_source
from cxr_reason.mining.dates import DAY_FIRST, MONTH_FIRST
from cxr_reason.records import SPLITS, TASKS

from . import _llm, _options


def _tasks(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    named = tuple(name.strip() for name in value.split(",")) if value else TASKS
    if unknown := [name for name in named if name not in TASKS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(TASKS)}.", ctx, param)
    return tuple(task for task in TASKS if task in named)


@click.command(cls=cli.Command)
@_options.input_argument
@click.option(
    "--tasks",
    metavar="A,B,…",
    callback=_tasks,
    shell_complete=_options.completing(TASKS),
    help=f"Which of {', '.join(TASKS)}.  [default: all; temporal where a prior study is known]",
)
@click.option(
    "--findings",
    "findings_only",
    is_flag=True,
    is_eager=True,  # the format depends on it
    help="One record a report with what it says, or with -o labels.csv a row; no questions.",
)
@click.option("--per-finding", type=click.IntRange(1), metavar="N", help="At most N for each task, finding and answer.")
@click.option("--open-ended", is_flag=True, help="Ask single and multiple without options too.")
@click.option(
    "--negatives",
    type=click.Choice(["stated", "region", "silent"]),
    default="region",
    show_default=True,
    help="What a No may rest on: the finding denied, its region called normal, or silence.",
)
@click.option(
    "--uncertain",
    type=click.Choice(["exclude", "present", "absent"]),
    default="exclude",
    show_default=True,
    help="What a hedged finding counts as.",
)
@click.option(
    "--definition",
    type=click.Choice(["any", "chexpert", "acute"]),
    default="any",
    show_default=True,
    help="What makes a film abnormal; the question says it.",
)
@click.option(
    "--labels",
    type=click.Choice(["own", "input"]),
    default="own",
    show_default=True,
    help="Whose CheXpert labels decide: those read here, or the input's columns. Where both exist, both are kept and "
    "compared.",
)
@click.option(
    "--tell-view",
    is_flag=True,
    help="Tell the films' views in the questions; heart size on AP or portable films is asked only so.",
)
@click.option(
    "--date-order",
    type=click.Choice([DAY_FIRST, MONTH_FIRST]),
    help="How to read 05/03/2024 in the column of times.  [default: as its other dates tell]",
)
@click.option("--split", type=click.Choice(SPLITS), help="Only studies of this split.")
@_options.apart_from_option("Leave out")
@click.option("--check-films", is_flag=True, help="Read the image files too: the same film must not be in two splits.")
@click.option(
    "--image-root",
    metavar="FOLDER",
    help="Write FOLDER before the images' relative paths, into the records. Later commands then need no --image-root: "
    "theirs only says where to look.",
)
@click.option(
    "--layout",
    type=click.Choice(list(LAYOUTS)),
    help="INPUT is the folder of this published archive, as unpacked: docs/archives.md.",
)
@click.option(
    "--dedupe-normals",
    "plain_normals",
    type=_options.ShareType(),
    default="100%",
    show_default=True,
    help="Share of the normal reports in stock phrases to keep.",
)
@_llm.chain_options
@_options.table_options
@_options.join_option
@partial(_options.output_options, tables=True)
@_options.stream_options
@_options.seed_option
@cli.verbosity_options
@click.pass_context
def mine(
    ctx: click.Context,
    /,
    source: str | None,
    overrides: dict[str, str],
    encoding: str | None,
    layout: str | None,
    joins: tuple[Join, ...],
    **given: Any,
) -> None:
    """Turn reports into questions with chains of reasoning.

    INPUT is a table (CSV, TSV) or JSON lines, gzipped or not, one row an image or a study; - or nothing is stdin. With
    --layout it is the folder of a published archive. Every question comes with its answer and with steps that rest on
    spans of the report. `cxr refine` checks them.
    """
    from cxr_reason.mining import stage

    if layout and source in (None, "-"):
        raise click.UsageError(f"--layout {layout} reads a folder: name it.")
    cli.stop_if_waiting(ctx, source)
    if given["per_finding"] and given["shard"]:
        raise click.UsageError("--per-finding needs the whole input: leave --shard out.")
    if given["per_finding"] and given["findings_only"]:
        raise click.UsageError("--per-finding picks questions, and --findings makes none.")
    if given["output_format"] == "radrbench" and given["findings_only"]:
        raise click.UsageError("--format radrbench holds questions, and --findings makes none.")
    if given["per_finding"] and given["backend"] == "llm":
        raise click.UsageError("--per-finding picks from all questions: pipe them to cxr refine --backend llm.")
    if given["backend"] == "llm" and given["findings_only"]:
        raise click.UsageError("--backend llm writes chains, and --findings asks no questions.")
    model = _llm.writer(ctx, given)
    table = open_source(source, layout=layout, joins=joins, encoding=encoding, image_root=given["image_root"])
    ctx.call_on_close(table.close)
    # The paths of an archive's images begin in its folder, wherever in it the reports lie.
    archive = (source if os.path.isdir(source) else os.path.dirname(source)) if layout and source else None
    given |= {"film_root": given["image_root"] or archive, "encoding": encoding}
    joined = {"layout": layout, "joins": list(map(str, joins))}
    stage.run(table, overrides=overrides, joined=joined, model=model, **given)
