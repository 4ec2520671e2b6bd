"""`cxr demo`: made-up films with known findings and their reports."""

from __future__ import annotations

import click

from cxr_reason import cli, console, environment
from cxr_reason.errors import CxrError

from . import _options


@click.command()
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False),
    default="demo",
    show_default=True,
    metavar="FOLDER",
    help="Where to write: FOLDER/reports.jsonl and FOLDER/films.",
)
@click.option(
    "--studies",
    "count",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="How many studies.",
)
@click.option(
    "--size", type=click.IntRange(64, 1024), default=224, show_default=True, metavar="PIXELS", help="Side of a film."
)
@_options.seed_option
@cli.verbosity_options
def demo(folder: str, count: int, size: int, seed: int) -> None:
    """Write made-up films with reports, to try everything on.

    The films are drawn, so what they show is known: it stands in the column `truth`, beside the report, which leaves
    some of it out and doubts some. Two studies in five belong to one patient and show what has changed. The same
    options give the same files, also over those of a run that was killed. Nothing in them is of a real patient.
    """
    if lacks := environment.lacking(["films"]):
        names = [package.name for package in lacks]
        raise CxrError(f"cxr demo needs {' and '.join(names)}", hint=f"Install it: {environment.install_line(names)}")
    from cxr_reason.phantoms import archive  # numpy and Pillow

    reports = archive.write(folder, count=count, seed=seed, size=size)
    console.note(f"demo: {count:,} studies in {reports.parent}. What to type next:")
    console.note(f"  cxr mine {reports} | cxr refine -o {reports.with_name('chains.jsonl')}")
