"""The options of commands that ask a language model, and the model that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from . import _engines
from ._options import Command

if TYPE_CHECKING:
    from cxr_reason.engines.asking import Asker
    from cxr_reason.refining.llm import Writer

_OURS = ("llm", "temperature", "max_tokens", "llm_cache", "tries")
_ALL = (*_OURS, *_engines.PLANNED, "on_failure")


def model_options(command: Command) -> Command:
    """Which language model, what runs it, and how it is asked; see `asker`."""
    command = _engines.engine_options(command)
    for option in (
        click.option(
            "--llm-cache",
            type=click.Path(file_okay=False),
            metavar="FOLDER",
            help="Keep the model's answers here, and ask nothing twice. They are made from reports.",
        ),
        click.option(
            "--tries",
            type=click.IntRange(min=1),
            default=3,
            show_default=True,
            metavar="N",
            help="How often the model is asked for the same before it is given up.",
        ),
        _engines.max_tokens_option("Longest answer of the model."),
        _engines.temperature_option("0 takes the likeliest words; above, they are drawn by --seed."),
        click.option(
            "--llm",
            metavar="MODEL",
            help="The language model: a folder, a name of the hub, or one that --endpoint serves.",
        ),
    ):
        command = option(command)
    return command


def chain_options(command: Command) -> Command:
    """`backend` and `on_failure`, with `model_options`."""
    command = model_options(command)
    for option in (
        click.option(
            "--on-failure",
            type=click.Choice(["reject", "rules"]),
            default="reject",
            show_default=True,
            help="A chain of the model's that doesn't hold is rejected, or gives way to the one by rules.",
        ),
        click.option(
            "--backend",
            type=click.Choice(["rules", "llm"]),
            default="rules",
            show_default=True,
            help="Who writes the chains: rules, or a language model whose every claim is checked (docs/llm.md).",
        ),
    ):
        command = option(command)
    return command


def asker(ctx: click.Context, given: dict[str, Any], *, wanted: bool, by: str) -> Asker | None:
    """Who asks the model that the options in `given` name, taking them out; None where none is `wanted`.

    `by` is the option that wants one. The model is loaded when it is first asked, and closed with `ctx`.
    """
    told = {name: given.pop(name) for name in (*_OURS, "engine_settings")}
    engine = told["engine_settings"]
    if not wanted:
        for name in _ALL:
            if name in ctx.params and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name.replace('_', '-')} belongs to {by}.")
        return None
    if not (told["llm"] or engine["endpoint"]):
        raise click.UsageError(f"{by} needs a model: --llm MODEL, or --endpoint URL.")
    if given.get("jobs", 1) > 1:
        raise click.UsageError(f"{by} asks for many answers at once in one process: leave --jobs out.")
    given["in_stream"] = True

    from cxr_reason import engines
    from cxr_reason.engines.asking import Asker
    from cxr_reason.engines.cache import Cache

    plan = engines.plan(model=told["llm"], **engine)
    made = Asker(
        plan.load,
        model=plan.model,
        identity=plan.identity,
        sampling=engines.Sampling(
            max_tokens=told["max_tokens"], temperature=told["temperature"], seed=given.get("seed", 0)
        ),
        cache=Cache(told["llm_cache"]) if told["llm_cache"] else None,
    )
    ctx.call_on_close(made.close)
    return made


def writer(ctx: click.Context, given: dict[str, Any], **own: Any) -> tuple[Asker, Writer] | None:
    """Who writes the chains, where that is a language model: who asks it, and how."""
    backend, on_failure, tries = given.pop("backend"), given.pop("on_failure"), given["tries"]
    asking = asker(ctx, given, wanted=backend == "llm", by="--backend llm")
    if asking is None:
        return None

    from cxr_reason.refining.llm import Writer

    return asking, Writer(tries=tries, on_failure=on_failure, **own)
