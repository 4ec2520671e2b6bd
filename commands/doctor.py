"""`cxr doctor`: the facts of `cxr_reason.environment` as tables or JSON."""

from __future__ import annotations

import sys
from json import dumps
from typing import Any

import click

from cxr_reason import __version__, console, environment
from cxr_reason.cli import COMMANDS, verbosity_options


@click.command()
@click.argument("command", required=False, type=click.Choice(list(COMMANDS)), metavar="[COMMAND]")
@click.option("--json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--deep", is_flag=True, help="Also import torch, if it is installed, and ask it for its devices.")
@verbosity_options
@click.pass_context
def doctor(ctx: click.Context, command: str | None, json: bool, deep: bool) -> None:
    """Show what is installed and what each command lacks.

    With COMMAND, look only at what that command needs, and exit with 1 if something is missing. A package in a version
    that was never tried with the others is shown as "untried"; it may work.
    """
    needs = {name: known.needs for name, known in COMMANDS.items() if command in (None, name)}
    facts = {"cxr": __version__, **environment.survey(needs, deep=deep)}
    if command is not None:
        groups = {name for group in needs[command] for name in group.split("|")}
        facts["packages"] = [package for package in facts["packages"] if package["group"] in groups]
    if json:
        click.echo(dumps(facts, indent=2, ensure_ascii=False))
    else:
        show(facts)
    if command is not None and not facts["commands"][command]["ready"]:
        ctx.exit(1)


def show(facts: dict[str, Any]) -> None:
    """The tables, on stdout: they are this command's data."""
    commands = facts["commands"]
    console.table(
        f"Commands of cxr {facts['cxr']}",
        ["command", "ready", "lacks"],
        [[name, known["ready"], ", ".join(known["lacks"])] for name, known in commands.items()],
        file=sys.stdout,
    )
    mends: dict[str, list[str]] = {}
    for name, known in commands.items():
        if known["mend"]:
            mends.setdefault(known["mend"], []).append(name)
    for mend, names in mends.items():
        click.echo(f"  {' and '.join(names)}: {mend}")
    click.echo()
    console.table(
        "Packages",
        ["group", "package", "tried together", "installed", "state"],
        [[p["group"], p["name"], p["tried"], p["installed"], p["state"]] for p in facts["packages"]],
        file=sys.stdout,
    )
    click.echo()
    console.table(
        "This machine",
        ["what", "found"],
        [row for name, value in facts["machine"].items() for row in _lines(name, value)],
        file=sys.stdout,
    )


def _lines(name: str, value: Any) -> list[tuple[str, str]]:
    """A fact as table rows: one for each item of a list, the name only on the first."""
    if isinstance(value, dict):
        value = [f"{key}: {item}" for key, item in value.items()]
    items = value if isinstance(value, list) else [value]
    title = name.replace("_gib", " (GiB)").replace("_", " ")
    return [(title if i == 0 else "", str(item or "none")) for i, item in enumerate(items or [None])]
