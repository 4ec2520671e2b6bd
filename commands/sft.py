"""`cxr sft`: supervised fine-tuning of a vision-language model on chains of reasoning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cxr_reason import cli
from cxr_reason.records import dumps_plain
from cxr_reason.training.settings import read_file, recipes

from . import _engines, _options, _training


@click.command(cls=cli.Command)
@_options.inputs_argument
@click.option("--model", required=True, metavar="MODEL", help="A folder, a model of the hub, or tiny.")
@click.option(
    "-o", "--output", required=True, type=click.Path(file_okay=False), metavar="FOLDER", help="Where the model goes."
)
@click.option("--recipe", type=click.Choice(list(recipes("sft"))), help="Settings that belong together.")
@click.option(
    "--task-weight",
    "task_weights",
    multiple=True,
    metavar="TASK=WEIGHT",
    callback=_training.pairs(numbers=True),
    help="Items of a task this many times, in expectation: binary=2. Repeatable.",
)
@_training.data_options
@_training.trainer_options
@_engines.trust_option
@_options.rejects_options
@_options.seed_option
@cli.verbosity_options
@click.pass_context
def sft(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    model: str,
    output: str,
    recipe: str | None,
    mix: dict[str, float],
    allow: tuple[str, ...],
    apart_from: tuple[str, ...],
    image_root: str | None,
    film_cache: str | None,
    max_failed: float,
    dry_run: bool,
    rejects: str | None,
    file: str | None,
    sets: dict[str, Any],
    trust_remote_code: bool,
    force: bool,
    **flags: Any,
) -> None:
    """Train a vision-language model on chains of reasoning.

    Reads records with films, a question, an answer and verified steps, as `cxr refine` writes them, and trains by TRL
    on their completion alone. The model is then in FOLDER, with cxr.json, which tells what it was made of; checkpoints
    are below. The same command given again goes on from the newest one. What would spoil a run is refused before the
    first step. The last line on stdout is JSON: where the model is, and its metrics.
    """
    first = sources[0] if sources else None
    if not mix and not file:
        cli.stop_if_waiting(ctx, first)
    from cxr_reason.training import sft as training
    from cxr_reason.training.runs import Run

    settings = training.Sft().settings(
        recipe=recipe,
        file=read_file(file) if file else None,
        flags=_training.given({**flags, "mix": mix}),
        sets=sets,
    )
    if settings.mix and sources:
        raise click.UsageError("Name the inputs by --mix, or without it: not both.", ctx)
    if not settings.mix:
        cli.stop_if_waiting(ctx, first)
    result = training.train(
        Run(
            inputs=tuple(settings.mix) or sources or ("-",),
            model=model,
            out=Path(output),
            settings=settings,
            allowed=allow,
            apart_from=apart_from,
            image_root=Path(image_root) if image_root else None,
            film_cache=Path(film_cache) if film_cache else None,
            max_failed=max_failed,
            dry_run=dry_run,
            rejects=Path(rejects) if rejects else None,
            force=force,
            trust_remote_code=trust_remote_code,
        )
    )
    if result:
        click.echo(dumps_plain(result))
