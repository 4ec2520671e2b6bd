"""Options that the commands that train share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cxr_reason.training.refusals import ALLOWABLE

from ._films import PixelsType, film_cache_option, image_root_option
from ._options import Command, ShareType, apart_from_option

Callback = Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, Any]]

SETTINGS = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "max_steps": "max_steps",
    "save_every": "save_steps",
    "eval_every": "eval_steps",
    "report_to": "report_to",
    "gradient_checkpointing": "gradient_checkpointing",
    "seed": "seed",
    "lora": "lora_rank",
    "max_tokens": "max_completion_length",
}
"""Flags that name a setting otherwise than the setting is called; the others are called alike."""


def pairs(*, numbers: bool) -> Callback:
    """What turns ``NAME=VALUE …`` into a dict; with `numbers`, of weights."""

    def callback(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
        from cxr_reason.training.settings import value_of

        told: dict[str, Any] = {}
        for text in value:
            # A path may hold a "=" itself.
            name, equals, number = text.rpartition("=") if numbers else text.partition("=")
            parsed = value_of(number) if equals else None
            if not name or not equals or (numbers and type(parsed) not in (int, float)):
                raise click.BadParameter(f"{text!r}: write {param.metavar}.", ctx, param)
            told[name.strip()] = parsed
        return told

    return callback


def data_options(command: Command) -> Command:
    """What is trained on: `mix`, the shares, `allow`, `apart_from`, `image_root`, `film_cache`, `max_failed`,
    and `dry_run`.
    """
    command = image_root_option(command)
    for option in (
        click.option(
            "-n",
            "--dry-run",
            is_flag=True,
            help="Read the records, refuse what would spoil the run, keep the items for the run itself, and stop "
            "before a model is loaded.",
        ),
        click.option(
            "--max-failed",
            type=ShareType(),
            default="5%",
            show_default=True,
            help="Records that may be unusable, or without their film, before the exit code is 3.",
        ),
        film_cache_option,
        apart_from_option("Refuse"),
        click.option(
            "--allow",
            multiple=True,
            type=click.Choice(ALLOWABLE),
            help="Train although this would be refused. Repeatable.",
        ),
        click.option("--eval-share", type=ShareType(), help="Share of the patients kept for validation."),
        click.option(
            "--answer-only-share", type=ShareType(), help="Share of the items that are trained without reasoning."
        ),
        click.option(
            "--mix",
            multiple=True,
            metavar="FILE=WEIGHT",
            callback=pairs(numbers=True),
            help="Inputs by their share of what is seen: --mix a.jsonl=0.7 --mix b.jsonl=0.3, instead of INPUT.",
        ),
    ):
        command = option(command)
    return command


def trainer_options(command: Command) -> Command:
    """Settings of a training run that have flags; None or empty where nothing is said (see `given`)."""
    for option in (
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="NAME=VALUE",
            callback=pairs(numbers=False),
            help="Any setting, ours or TRL's trainer's, by name: weight_decay=0.01. Repeatable, wins over all else.",
        ),
        click.option(
            "--config",
            "file",
            type=click.Path(exists=True, dir_okay=False),
            metavar="FILE",
            help="Settings as YAML, such as those that an earlier run wrote beside its model.",
        ),
        click.option("--report-to", multiple=True, metavar="NAME", help="tensorboard, wandb or trackio: numbers only."),
        click.option("--freeze-vision", is_flag=True, default=None, help="Leave the vision tower as it is."),
        click.option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            default=None,
            help="Less memory for a third more time.",
        ),
        click.option("--lora", type=click.IntRange(min=1), metavar="RANK", help="Train a LoRA of that rank instead."),
        click.option("--max-pixels", type=PixelsType(), metavar="WxH", help="Films with more pixels are made smaller."),
        click.option(
            "--max-length", type=click.IntRange(min=1), metavar="N", help="Longest item in tokens; none is cut."
        ),
        click.option(
            "--best-metric", metavar="NAME", help="Keep the model with the best one; a measure of score, or loss."
        ),
        click.option("--eval-items", type=click.IntRange(min=0), metavar="N", help="Questions at each evaluation."),
        click.option("--eval-every", type=click.IntRange(min=0), metavar="N", help="Steps between two; 0 for none."),
        click.option("--save-every", type=click.IntRange(min=1), metavar="N", help="Steps between checkpoints."),
        click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Instead of --epochs."),
        click.option(
            "--epochs", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Passes over the items."
        ),
        click.option(
            "--micro-batch", type=click.IntRange(min=1), metavar="N", help="Items that a device holds at once, at most."
        ),
        click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Items a step, over all devices."),
        click.option(
            "--lr", type=click.FloatRange(min=0, min_open=True), metavar="RATE", help="Highest learning rate."
        ),
    ):
        command = option(command)
    return command


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The settings that `flags` name, without those of which nothing is said."""
    told = {SETTINGS.get(name, name): value for name, value in flags.items() if value not in (None, (), {})}
    if "report_to" in told:
        told["report_to"] = list(told["report_to"])
    return told
