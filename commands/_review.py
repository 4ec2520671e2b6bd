"""The options that draw claims for a colleague to read, of `cxr refine` and `cxr score`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from cxr_reason.cli import OutFile
from cxr_reason.samples.draw import Sample
from cxr_reason.sheets import key_path

from ._options import Command, names_option, own_files

SAMPLE = 50
NAMES = ("sample", "strata", "sample_sheet", "sample_html", "reports", "seed")


def review_options(claims: str, *, strata: Sequence[str], prefix: str = "") -> Callable[[Command], Command]:
    """`sample`, `strata`, `sample_sheet` and `sample_html`; see `drawn`.

    `claims` says whose claims are drawn, `strata` are what a sample can be spread over, and `prefix` is put before the
    names of the options for files.
    """

    def decorate(command: Command) -> Command:
        for option in (
            click.option(
                f"--{prefix}html",
                "sample_html",
                type=OutFile(),
                metavar="FILE",
                help="The sample as a page to read by.",
            ),
            click.option(
                f"--{prefix}sheet",
                "sample_sheet",
                type=OutFile(beside=key_path),
                metavar="FILE",
                help="The sample as a CSV to fill; FILE.key.csv has our verdicts.",
            ),
            names_option(
                "--stratify",
                "strata",
                known=strata,
                default="finding,verdict,basis",
                show_default=True,
                help=f"Spread the sample over these: {', '.join(strata)}.",
            ),
            click.option(
                "--sample",
                type=click.IntRange(min=1),
                metavar="N",
                help=f"Draw N claims {claims} for a colleague to review.  [default: {SAMPLE}]",
            ),
        ):
            command = option(command)
        return command

    return decorate


def drawn(given: Mapping[str, Any], files: Mapping[str, str | None], *, stdout: str, prefix: str = "") -> Sample | None:
    """The sample that is asked for. `files` are the command's other files, by option; `stdout` says what that is for.

    Raises UsageError where the options contradict each other.
    """
    sheet, html = given["sample_sheet"], given["sample_html"]
    own_files({**files, f"--{prefix}sheet": sheet, f"--{prefix}html": html}, stdout=stdout)
    if not (sheet or html):
        if given["sample"]:
            where = f"--{prefix}sheet FILE, --{prefix}html FILE"
            raise click.UsageError(f"--sample needs a place to go: name {where} or both.")
        return None
    if given["shard"]:
        raise click.UsageError("--sample needs the whole input: leave --shard out.")
    return Sample(given["sample"] or SAMPLE, by=given["strata"], seed=given["seed"])
