"""Options that several commands share, as decorators: the same name means the same thing everywhere.

They are stacked under ``@click.command()`` in this order: `input_argument` or `inputs_argument`, `table_options` and
`join_option` (where tables are read), `output_options`, `stream_options`, `seed_option`, then
`cxr_reason.cli.verbosity_options`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from cxr_reason import console
from cxr_reason.cli import OutFile
from cxr_reason.cluster import Shard, shard_from_environment
from cxr_reason.joins import Join
from cxr_reason.writers import TABLES, WRITERS, format_of

Command = TypeVar("Command", bound=Callable[..., Any])


class ShardType(click.ParamType[Shard]):
    """``i/n``, 0-based."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        if isinstance(value, Shard):
            return value
        try:
            return Shard.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ShareType(click.ParamType[float]):
    """A share of the whole: ``0.05`` or ``5%``, as a float in [0, 1]."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = -1
        if not 0 <= share <= 1:
            self.fail(f"{text!r} is no share: give 5% or 0.05.", param, ctx)
        return share


def _shard(ctx: click.Context, param: click.Parameter, value: Shard | None) -> Shard | None:
    if value is not None:
        return value
    shard = shard_from_environment()
    if shard is not None:
        console.note(f"shard {shard}, from Slurm's job array (--shard 0/1 takes the whole input)")
    return shard


def _mapping(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    told: dict[str, str] = {}
    for text in value:
        field, _, column = (part.strip() for part in text.partition("="))
        if not (field and column):
            raise click.BadParameter(f"{text!r}: write FIELD=COLUMN, as in study_id=uid.", ctx, param)
        if told.setdefault(field, column) != column:
            raise click.BadParameter(f"{field!r} is given twice: {told[field]} and {column}.", ctx, param)
    return told


def _joins(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Join, ...]:
    try:
        return tuple(map(Join.parse, value))
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from None


def _format(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """The format that is asked for, or else the one that the output's name tells."""
    output = ctx.params.get("output")
    output = None if output == "-" else output
    told = format_of(output) if output else None
    if value is not None and told is not None and told != value:
        raise click.BadParameter(f"{output} asks for {told}: change the one or the other.", ctx, param)
    if output and output.lower().endswith((".xlsx", ".xls", ".ods")):
        raise click.BadParameter(f"{output}: a workbook can't be written. Spreadsheets open .csv.", ctx, param)
    if (value or told) in TABLES and not ctx.params.get("findings_only"):
        what = f"{output} asks for a table" if told else f"{value} is a table"
        hint = "`cxr mine --findings` alone writes one; records take .jsonl, .arrow or .parquet"
        raise click.BadParameter(f"{what}, which has a row a study and no questions: {hint}.", ctx, param)
    if (value or told) == "parquet":
        if output is None:
            hint = "name one, -o chains.parquet, or a folder for its parts, -o chains/"
            raise click.BadParameter(f"Parquet needs a file and can't go to stdout: {hint}.", ctx, param)
        if output.endswith(".gz"):
            raise click.BadParameter("Parquet is compressed by itself: leave the .gz out.", ctx, param)
    return value or told or "jsonl"


def own_files(files: Mapping[str, str | None], *, stdout: str) -> None:
    """Raise UsageError where one of `files` (by option) is stdout, which is for `stdout`."""
    if option := next((option for option, path in files.items() if path == "-"), None):
        raise click.UsageError(f"{option} needs a file: stdout is for {stdout}.")


def completing(known: Sequence[str]) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What the shell may put after the last comma of ``A,B,…``."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        named = before.split(",")
        return [
            CompletionItem(f"{before}{comma}{name}") for name in known if name.startswith(last) and name not in named
        ]

    return complete


def names_option(*declared: str, known: Sequence[str] = (), **attributes: Any) -> Callable[[Command], Command]:
    """An option that takes names, ``A,B,…``, and gives a tuple of each once; they must be `known`, if that is given."""

    def names(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
        told = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
        if unknown := [name for name in told if known and name not in known]:
            raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}.", ctx, param)
        return told

    if known:
        attributes["shell_complete"] = completing(known)
    return click.option(*declared, metavar="A,B,…", callback=names, **{"default": "", **attributes})


def no_reports_option(places: str) -> Callable[[Command], Command]:
    """`reports`, true unless report text is to be left out of `places`."""
    return click.option(
        "--no-reports",
        "reports",
        is_flag=True,
        flag_value=False,
        default=True,
        help=f"Leave report text out of {places}.",
    )


def input_argument(command: Command) -> Command:
    """`source`: a file, or None or "-" for stdin."""
    return click.argument("source", metavar="[INPUT]", required=False, type=click.Path(allow_dash=True))(command)


def inputs_argument(command: Command) -> Command:
    """`sources`: files that are read one after the other; none, or "-", for stdin."""
    return click.argument("sources", metavar="[INPUT]…", nargs=-1, type=click.Path(allow_dash=True))(command)


def table_options(command: Command) -> Command:
    """`overrides` (field to column) and `encoding`, for commands that read other people's tables."""
    for option in (
        click.option(
            "--encoding", metavar="NAME", help="Text encoding of the input and all other tables.  [default: utf-8]"
        ),
        click.option(
            "--map",
            "overrides",
            multiple=True,
            metavar="FIELD=COLUMN",
            callback=_mapping,
            help="Which column is what, where the guess is wrong: --map study_id=uid. Repeatable.",
        ),
    ):
        command = option(command)
    return command


def apart_from_option(text: str) -> Callable[[Command], Command]:
    """`apart_from`: files that hold what must not be in the input; `text` says what becomes of it."""
    return click.option(
        "--apart-from",
        multiple=True,
        type=click.Path(exists=True),
        metavar="FILE",
        help=f"{text} patients, studies and films that stand in FILE too (records or a table). Repeatable.",
    )


def join_option(command: Command) -> Command:
    """`joins`: tables whose columns are added to the rows."""
    return click.option(
        "--join",
        "joins",
        multiple=True,
        metavar="FILE:COLUMN",
        callback=_joins,
        help="Add the columns of another table to rows with the same value in COLUMN; FILE:OURS=THEIRS where the two "
        "name it differently. Repeatable.",
    )(command)


def rejects_options(command: Command) -> Command:
    """`force` and `rejects`, for commands whose output isn't records."""
    for option in (
        click.option(
            "--rejects",
            type=OutFile(),
            metavar="FILE",
            help="Write what was left out here, with reasons. It holds report text.",
        ),
        click.option(
            "--force",
            is_flag=True,
            help="Start over, also where a killed run could be continued, and replace files that aren't from cxr.",
        ),
    ):
        command = option(command)
    return command


def output_options(command: Command, *, tables: bool = False) -> Command:
    """`output`, `output_format`, `force` and `rejects`; with `tables`, a command that has `findings_only` too."""
    command = rejects_options(command)
    for option in (
        click.option(
            "--format",
            "output_format",
            type=click.Choice([name for name in WRITERS if tables or name not in TABLES]),
            callback=_format,
            help="Format of the output.  [default: as the name of -o ends, else jsonl]",
        ),
        click.option(
            "-o",
            "--output",
            type=OutFile(dir_okay=True),
            is_eager=True,  # the format is guessed from it
            metavar="FILE",
            help="Write here instead of to stdout, gzipped if it ends in .gz; chains/ is a folder of Parquet parts. "
            "The file appears when it is whole; a killed run goes on where it stopped.",
        ),
    ):
        command = option(command)
    return command


def stream_options(command: Command) -> Command:
    """`jobs` and `part_options`."""
    return click.option(
        "--jobs",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Processes. The output is the same.",
    )(part_options(command))


def part_options(command: Command) -> Command:
    """`shard` (a `Shard` or None), `limit`, `max_failed` (in [0, 1]) and `dry_run`."""
    for option in (
        click.option("-n", "--dry-run", is_flag=True, help="Do everything but write."),
        click.option(
            "--max-failed",
            type=ShareType(),
            default="5%",
            show_default=True,
            help="Rows that may be unreadable before the exit code is 3.",
        ),
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N of the input."),
        click.option(
            "--shard",
            type=ShardType(),
            callback=_shard,
            help="Only part i (from 0) of n.  [default: from Slurm's job array, else all]",
        ),
    ):
        command = option(command)
    return command


def silence_option(command: Command) -> Command:
    """`silence`, where claims are held against reports: "normal" or "unknown"."""
    return click.option(
        "--silence",
        type=click.Choice(["normal", "unknown"]),
        default="normal",
        show_default=True,
        help="What is made of a finding that the report doesn't mention.",
    )(command)


def seed_option(command: Command) -> Command:
    """`seed`: decides every random choice."""
    return click.option(
        "--seed", type=int, default=0, show_default=True, metavar="N", help="Decides every random choice."
    )(command)
