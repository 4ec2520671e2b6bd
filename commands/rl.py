"""`cxr rl`: reinforcement learning of a vision-language model with rewards for its reasoning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cxr_reason import cli, console
from cxr_reason.records import dumps_plain
from cxr_reason.training.settings import CREDITS, read_file, recipes

from . import _engines, _options, _training

LOSSES = ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo")


@click.command(cls=cli.Command)
@_options.inputs_argument
@click.option("--ckpt", required=True, metavar="MODEL", help="What is trained on: a folder of sft or rl, or any model.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Where the model goes. [default: CKPT-rl]",
)
@click.option("--recipe", type=click.Choice(list(recipes("rl"))), help="Settings that belong together.")
@click.option(
    "--reward",
    "rewards",
    multiple=True,
    metavar="NAME=WEIGHT",
    callback=_training.pairs(numbers=True),
    help="format, accuracy, process, a part of RadRScore, radeval:NAME, or package.module:function. Repeatable.  "
    "[default: format=1, accuracy=1, process=1]",
)
@click.option("--credit", type=click.Choice(CREDITS), help="Whether each step of reasoning earns its own credit.")
@click.option("--step-weight", type=click.FloatRange(min=0), metavar="W", help="How much steps count beside the whole.")
@click.option(
    "--min-reward-std",
    type=click.FloatRange(min=0),
    metavar="STD",
    help="Leave out questions whose completions are worth the same within this.",
)
@click.option(
    "--silence",
    type=click.Choice(["normal", "unknown"]),
    help="What rewards of reasoning make of a finding that the report doesn't mention.  [default: normal]",
)
@click.option("--num-generations", type=click.IntRange(min=2), metavar="N", help="Completions of a question.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Longest completion.")
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True), metavar="T", help="Of the completions.")
@click.option("--beta", type=click.FloatRange(min=0), metavar="W", help="Weight of the KL divergence from MODEL.")
@click.option("--loss-type", type=click.Choice(LOSSES), help="As TRL names them.")
@click.option("--vllm", type=click.Choice(["colocate", "server"]), help="Let vLLM generate; else transformers does.")
@click.option("--strict-rewards", is_flag=True, default=None, help="End the run where a reward fails.")
@_training.data_options
@_training.trainer_options
@_engines.trust_option
@click.option("--lint", is_flag=True, help="Show what the rewards pay cheats for, on INPUT, and train nothing.")
@_options.rejects_options
@_options.seed_option
@cli.verbosity_options
@click.pass_context
def rl(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    ckpt: str,
    output: str | None,
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
    vllm: str | None,
    trust_remote_code: bool,
    lint: bool,
    force: bool,
    **flags: Any,
) -> None:
    """Train a model by what its own answers are worth.

    The model answers each question several times; what is right, and what its report bears out, is made likelier, step
    by step, by TRL's GRPO. INPUT is what `cxr refine` writes; without it, what MODEL was trained on. The model is then
    in FOLDER, as with `cxr sft`; completions with their rewards are below. The same command given again goes on from
    the newest checkpoint. The last line on stdout is JSON: where the model is, and its metrics.
    """
    from cxr_reason.training import rl as training
    from cxr_reason.training.runs import Run

    parent = training.parent_of(ckpt)
    generating = {"use_vllm": True, "vllm_mode": vllm} if vllm else {}
    settings = training.Rl({}).settings(
        recipe=recipe,
        file=read_file(file) if file else None,
        flags=_training.given({**flags, "mix": mix}) | generating,
        sets=sets,
        defaults=parent.settings if parent else None,
    )
    if settings.mix and sources:
        raise click.UsageError("Name the inputs by --mix, or without it: not both.", ctx)
    inputs = tuple(settings.mix) or sources
    root = Path(image_root) if image_root else None
    if not inputs and parent:
        inputs, root = parent.inputs(), root or parent.image_root
        console.note(f"rl: trained on what {ckpt} was trained on: {', '.join(inputs)}")
    if not inputs:
        cli.stop_if_waiting(ctx, None)
    run = Run(
        inputs=inputs or ("-",),
        model=ckpt,
        out=Path(output or f"{ckpt.rstrip('/')}-rl"),
        settings=settings,
        allowed=allow,
        apart_from=apart_from,
        image_root=root,
        film_cache=Path(film_cache) if film_cache else None,
        max_failed=max_failed,
        dry_run=dry_run,
        rejects=Path(rejects) if rejects else None,
        force=force,
        trust_remote_code=trust_remote_code,
    )
    if lint:
        _lint(run)
        return
    result = training.train(run)
    if result:
        click.echo(dumps_plain(result))


def _lint(run: Any) -> None:
    """The table of `rewards.guards` for the rewards of a run, on stdout."""
    from cxr_reason.training import linting

    told = linting.lint(run)
    click.echo(linting.table(told))
