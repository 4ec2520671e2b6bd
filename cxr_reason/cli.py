"""The `cxr` group: loads a command only when it is called, and turns what a command raises into an exit code.

`COMMANDS` is the one list of commands. Adding one takes a line here and a file `commands/NAME.py` that holds a click
command called `NAME`.
"""

from __future__ import annotations

import errno
import importlib
import os
import select
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from cxr_reason import __version__, console, outputs
from cxr_reason.errors import EXIT_CLOSED_PIPE, EXIT_ERROR, EXIT_INTERRUPTED, CxrError, Stop


class Listed(NamedTuple):
    """What is known of a command before it is loaded."""

    line: str  # its help's first line (a test compares them), so that help and completion import nothing
    # The groups of constraints.txt without which it can't run; of a|b, one is enough.
    needs: tuple[str, ...] = ("base",)


# In the order in which they are used.
COMMANDS = {
    "mine": Listed("Turn reports into questions with chains of reasoning."),
    "refine": Listed("Check chains of reasoning against their reports, mend them or reject them."),
    "sft": Listed("Train a vision-language model on chains of reasoning.", ("base", "arrow", "models", "train")),
    "rl": Listed("Train a model by what its own answers are worth.", ("base", "arrow", "models", "train")),
    "infer": Listed("Answer questions about films with a model.", ("base", "films", "vllm|models|endpoint")),
    "score": Listed("Score predictions: how well a model answers and how well it reasons."),
    "demo": Listed("Write made-up films with reports, to try everything on.", ("base", "films")),
    "doctor": Listed("Show what is installed and what each command lacks."),
}

PACKAGE = Path(__file__).parent
OUR_FOLDERS = (PACKAGE, PACKAGE.parent / "commands")


class OutFile(click.Path):
    """A file that a command writes; `beside` gives the name of a second one that comes with it."""

    def __init__(self, *, dir_okay: bool = False, beside: Callable[[str], str | Path] | None = None) -> None:
        super().__init__(dir_okay=dir_okay)
        self.beside = beside


class Command(click.Command):
    """A command that touches no file before it is known that none is lost: see `outputs`."""

    def invoke(self, ctx: click.Context) -> Any:
        inputs: list[str] = []
        written: dict[str, str] = {}
        for param in self.params:
            value = ctx.params.get(param.name or "")
            if isinstance(param.type, OutFile):
                if value:
                    option = max(param.opts, key=len)
                    written[option] = value
                    if param.type.beside:
                        written[f"the file beside {option}"] = str(param.type.beside(value))
            elif isinstance(param.type, click.Path):
                given = value if isinstance(value, list | tuple) else [value] if value else []
                inputs += given or (["-"] if isinstance(param, click.Argument) else [])
        inputs += [join.file for join in ctx.params.get("joins") or ()]
        inputs += ctx.params.get("mix") or ()
        try:
            outputs.check(inputs, written, stage=ctx.command.name or "", force=bool(ctx.params.get("force")))
        except outputs.OutputError as error:
            raise click.UsageError(str(error), ctx) from None
        return super().invoke(ctx)


class Commands(click.Group):
    """The commands of `COMMANDS` as names and one-line helps, until one is called."""

    def __init__(self, **attributes: Any) -> None:
        listed = {name: click.Command(name, help=known.line) for name, known in COMMANDS.items()}
        super().__init__(commands=listed, **attributes)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load(name) if name and listed else None, rest

    def invoke(self, ctx: click.Context) -> None:
        console.reset()
        try:
            code = _outcome(partial(super().invoke, ctx))
        except click.ClickException:  # click itself tells it, last
            console.close()
            raise
        unwritten = _outcome(sys.stdout.flush) if sys.stdout else 0
        if unwritten:
            _drop_stdout()
        console.close()
        ctx.exit(code or unwritten)


def load(name: str) -> click.Command:
    """The click command `name` of `COMMANDS`, imported now, each option with its environment variable.

    Variables are named for the flag, CXR_MINE_MAX_FAILED; click's own automatic ones are named for the parameter.
    """
    command = getattr(importlib.import_module(f"cxr_reason.commands.{name}"), name)
    assert isinstance(command, click.Command)
    for option in command.params:
        if isinstance(option, click.Option):
            flag = max(option.opts, key=len).lstrip("-")
            option.envvar = f"CXR_{name}_{flag}".replace("-", "_").upper()
    return command


def verbosity_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-q` and `-v`, which every command takes and none has to handle."""
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        is_eager=True,  # before other options' callbacks have something to say
        expose_value=False,
        callback=lambda ctx, param, value: console.set_quiet(value),
        help="Only warnings and errors on stderr.",
    )
    verbose = click.option(
        "-v",
        "--verbose",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, param, value: console.set_verbose(value),
        help="Show where an error came from.",
    )
    return quiet(verbose(command))


def stop_if_waiting(ctx: click.Context, source: str | None) -> None:
    """Show the help and stop with 2 where a command would wait for a person to type a CSV.

    `source` is the input argument as given: only its absence counts, an explicit ``-`` means that stdin is meant.
    """
    if source is None and (sys.stdin is None or sys.stdin.isatty()):
        click.echo(ctx.get_help(), err=True)
        click.echo("\nNo input: name a file, or pipe one in.", err=True)
        ctx.exit(2)


@click.group(
    cls=Commands,
    epilog="`cxr COMMAND -h` tells the rest. Every option can be set as CXR_COMMAND_OPTION in the environment too.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 88,
    },
)
@click.version_option(__version__, message="cxr %(version)s")
def main() -> None:
    """Turn routine chest X-ray reports into verified reasoning chains.

    Data goes to stdout, everything else to stderr. For research, not for clinical use.
    """


def _outcome(work: Callable[[], object]) -> int:
    """Do `work` and return the exit code that it deserves. Usage errors stay click's own: they exit with 2."""
    try:
        work()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException:
        raise
    except BaseException as error:
        return _report(error)
    return 0


def _report(error: BaseException) -> int:
    """Say what ended the command, and return its exit code. No message quotes a record's text."""
    code = EXIT_ERROR
    match error:
        case KeyboardInterrupt() | click.Abort():
            code = EXIT_INTERRUPTED
            console.note("interrupted")
        case Stop():
            code = error.exit_code
            if str(error):
                console.note(str(error))
        case CxrError():
            code = error.exit_code
            console.error(str(error))
        case BrokenPipeError() if _stdout_reader_has_gone():
            code = EXIT_CLOSED_PIPE
        case ModuleNotFoundError() if error.name and not error.name.startswith("cxr_reason"):
            console.error(f"the package {error.name} is not installed\n`cxr doctor` tells what each command needs")
        case OSError():
            console.error(_os_message(error))
        case SystemExit():
            raise error
        case _:
            # Somebody's exception may quote the row that it stumbled over, so its text stays out.
            console.error(
                f"internal error: {type(error).__name__} in {_place(error)}\n"
                "This is a bug in cxr. Please report it with the output of the same command with -v."
            )
    if console.is_verbose() and code == EXIT_ERROR:
        console.note("".join(_frames(error)).rstrip())
    return code


def _os_message(error: OSError) -> str:
    what = error.strerror or type(error).__name__
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    hint = "\nThe disk is full: free some space and run the same command again." if error.errno == errno.ENOSPC else ""
    return f"{where}{what}{hint}"


def _place(error: BaseException) -> str:
    """Where `error` was raised, as ``file:line`` of our own code if any of it was ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if any(map(Path(frame.filename).is_relative_to, OUR_FOLDERS))] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"


def _frames(error: BaseException) -> list[str]:
    """The traceback of `error` and its causes: places and types, without the messages."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    earlier = [*_frames(cause), "which led to\n"] if cause else []
    return [*earlier, *traceback.format_tb(error.__traceback__), f"{type(error).__name__}\n"]


def _stdout_reader_has_gone() -> bool:
    """Whether our own stdout is the pipe that broke. An EPIPE from elsewhere is an error, not a closed pipe."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return False


def _drop_stdout() -> None:
    """Point stdout at nothing, so that Python's own flush at exit doesn't fail a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
