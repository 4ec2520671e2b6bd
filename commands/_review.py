"""The options of `cxr refine` that draw claims for a colleague to read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from cxr_reason.refining.review import STRATA
from cxr_reason.sheets import key_path

from ._options import Command

SAMPLE = 50
NAMES = ("sample", "strata", "sheet", "html", "reports", "seed")


def _strata(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    if unknown := [name for name in named if name not in STRATA]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(STRATA)}.", ctx, param)
    return named


def review_options(command: Command) -> Command:
    """`sample`, `strata`, `sheet`, `html` and `reports`; see `wanted`."""
    for option in (
        click.option(
            "--no-reports",
            "reports",
            is_flag=True,
            flag_value=False,
            default=True,
            help="Leave report text out of the sheet and the page.",
        ),
        click.option(
            "--html", type=click.Path(dir_okay=False), metavar="FILE", help="The sample as a page to read by."
        ),
        click.option(
            "--sheet",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="The sample as a CSV to fill; FILE.key.csv has our verdicts.",
        ),
        click.option(
            "--stratify",
            "strata",
            metavar="A,B,…",
            default="finding,verdict,basis",
            show_default=True,
            callback=_strata,
            help=f"Spread the sample over these: {', '.join(STRATA)}.",
        ),
        click.option(
            "--sample",
            type=click.IntRange(min=1),
            metavar="N",
            help=f"Draw N claims for a colleague to review, also from what is rejected.  [default: {SAMPLE}]",
        ),
    ):
        command = option(command)
    return command


def wanted(given: Mapping[str, Any]) -> bool:
    """Whether a sample is asked for. Raises UsageError where the options contradict each other."""
    files = [path for name in ("sheet", "html", "output", "rejects") if (path := given[name]) and path != "-"]
    files += [key_path(given["sheet"])] if given["sheet"] else []
    if not (given["sheet"] or given["html"]):
        if given["sample"]:
            raise click.UsageError("--sample needs a place to go: name --sheet FILE, --html FILE or both.")
        return False
    if "-" in (given["sheet"], given["html"]):
        raise click.UsageError("--sheet and --html need files: stdout is for the records.")
    if given["shard"]:
        raise click.UsageError("--sample needs the whole input: leave --shard out.")
    if len(set(map(os.path.realpath, files))) < len(files):
        raise click.UsageError("--sheet (with its key), --html, --output and --rejects each need a file of their own.")
    return True
