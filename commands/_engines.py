"""Options of commands that run models: which engine, which model, and how its texts are drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from cxr_reason import engines
from cxr_reason.engines.base import Sampling

from ._options import Command

DTYPES = ("auto", "float32", "float16", "bfloat16")
PLANNED = (
    "engine", "endpoint", "allow_remote", "batch_size", "dtype", "lora", "tensor_parallel", "trust_remote_code",
)  # fmt: skip


def trust_option(command: Command) -> Command:
    """`trust_remote_code`."""
    return click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")(command)


def max_tokens_option(what: str) -> Callable[[Command], Command]:
    """`max_tokens`; `what` says of what."""
    return click.option(
        "--max-tokens",
        type=click.IntRange(min=1),
        default=Sampling().max_tokens,
        show_default=True,
        metavar="N",
        help=what,
    )


def temperature_option(what: str) -> Callable[[Command], Command]:
    """`temperature`; `what` says what it does."""
    return click.option(
        "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, metavar="T", help=what
    )


def engine_options(command: Command) -> Command:
    """`engine_settings`: what `engines.plan` takes beside the model."""

    @wraps(command)
    def told(*args: Any, **given: Any) -> Any:
        settings = {name: given.pop(name) for name in PLANNED}
        return command(*args, engine_settings=settings, **given)

    for option in (
        trust_option,
        click.option(
            "--tensor-parallel",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Devices that share the model.",
        ),
        click.option("--lora", type=click.Path(exists=True, file_okay=False), metavar="FOLDER", help="A LoRA on it."),
        click.option(
            "--dtype",
            type=click.Choice(DTYPES),
            default="auto",
            show_default=True,
            help="Of the model's numbers; auto: as its checkpoint has them.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            metavar="N",
            help="Completions under way at once.  [default: the engine's own; transformers 8, endpoint 32]",
        ),
        click.option("--allow-remote", is_flag=True, help="Let what is asked go to an address that isn't private."),
        click.option(
            "--endpoint", metavar="URL", help="Ask a server that speaks OpenAI's protocol: http://127.0.0.1:8000/v1."
        ),
        click.option(
            "--engine",
            type=click.Choice(["auto", *engines.ENGINES]),
            default="auto",
            show_default=True,
            help="What runs the model; auto: vLLM where it can run, else transformers.",
        ),
    ):
        told = option(told)
    return told  # type: ignore[return-value]


def sampling_options(command: Command) -> Command:
    """`sampling`, a `Sampling`; takes `seed` too, so `seed_option` must stand below it."""

    @wraps(command)
    def told(
        *args: Any,
        max_tokens: int,
        temperature: float,
        top_p: float,
        top_k: int | None,
        repetition_penalty: float,
        n: int,
        seed: int,
        **given: Any,
    ) -> Any:
        if n > 1 and not temperature:
            raise click.UsageError("--n asks for several texts, and without --temperature they would all be the same.")
        sampling = Sampling(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            n=n,
            seed=seed,
        )
        return command(*args, sampling=sampling, **given)

    for option in (
        click.option("--n", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Texts each."),
        click.option(
            "--repetition-penalty",
            type=click.FloatRange(min=0, min_open=True),
            default=1.0,
            show_default=True,
            metavar="X",
            help="Above 1: less of what was said before.",
        ),
        click.option("--top-k", type=click.IntRange(min=1), metavar="N", help="Draw among the N likeliest tokens."),
        click.option(
            "--top-p",
            type=click.FloatRange(0, 1, min_open=True),
            default=1.0,
            show_default=True,
            metavar="P",
            help="Draw among the likeliest tokens that make up P together.",
        ),
        temperature_option("0 takes the likeliest token, always."),
        max_tokens_option("Longest text, in tokens; what is longer is cut off, and counted."),
    ):
        told = option(told)
    return told  # type: ignore[return-value]
