"""A command that only streams, for test_runner.py: the real options, driver and exit codes, with work that misbehaves
on demand, and ``--format array``, a format with a head, separators and a tail. Run as
``python tests/stream_driver.py copy [OPTIONS] [INPUT]``.

What a row's report says happens: ``raise``, ``reject``, ``nan``, ``die`` (the process kills itself). Everything else
becomes one record a row and counts. It reads what it wrote too.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import click
from cxr_reason.commands._options import input_argument, output_options, stream_options, table_options

from cxr_reason import cli
from cxr_reason.cli import verbosity_options
from cxr_reason.columns import cell, guess_columns
from cxr_reason.records import dump_lines
from cxr_reason.runner import Reject, Result, run
from cxr_reason.streams import Group, Input, Row, group_consecutive
from cxr_reason.writers import WRITERS, JsonLines


def work(pause: float, unit: Row | Group) -> Result:
    result = Result()
    assert isinstance(unit, Group)
    for row in unit.rows:
        assert row.data is not None
        if pause:
            time.sleep(pause)
        match row.data["report"]:
            case "raise":
                raise RuntimeError(f"quotes {row.data['report']}")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "reject":
                reasons = [{"check": "taste", "message": "not liked"}]
                result.rejects.append(Reject(row.data["study_id"], "copy", reasons, row.data, row.line))
            case "nan":
                result.records.append({"id": "nan", "value": float("nan")})
            case report:
                result.records.append({"id": row.data.get("study_id") or row.data["id"], "report": report})
    result.counts = {"seen": len(unit.rows)}
    return result


def work_ahead(pause: float, ahead: int, units: Iterator[Group]) -> Iterator[Result | Exception]:
    """The same, `ahead` units at a time."""
    while batch := list(islice(units, ahead)):
        for unit in batch:
            try:
                yield work(pause, unit)
            except RuntimeError as error:
                yield error


class Array(JsonLines):
    """A JSON array, four units of records a line."""

    suffixes = (".json",)
    units = 4
    separator = b",\n"

    def head(self) -> bytes:
        return b"["

    def tail(self) -> bytes:
        return b"]\n"

    def encode(self, study: Iterable[Mapping[str, Any]]) -> bytes:
        return b",".join(line.rstrip() for line in dump_lines(study))

    def batch(self, encoded: Sequence[bytes]) -> bytes:
        return b",".join(encoded)


WRITERS["array"] = Array()


@click.command()
@input_argument
@table_options
@output_options
@stream_options
@verbosity_options
@click.option("--pause", type=float, default=0.0)
@click.option("--save-every", type=float, default=0.02)
@click.option("--ahead", type=int, default=0)
def copy(
    source: str | None,
    encoding: str | None,
    overrides: dict[str, str],
    pause: float,
    save_every: float,
    ahead: int,
    **options: Any,
) -> None:
    """Copy rows to records."""
    table = Input(source, encoding=encoding)
    mapping = guess_columns(table.header(), table.sample(), overrides=overrides)
    summary = run(
        table,
        partial(work_ahead, pause, ahead) if ahead else partial(work, pause),
        stage="copy",
        units=partial(group_consecutive, key=lambda row: cell(row.data or {}, mapping, "study_id")),
        checkpoint_seconds=save_every,
        in_stream=ahead > 0,
        **options,
    )
    print(
        f"summary units={summary.units} rows={summary.rows} records={summary.records} rejected={summary.rejected} "
        f"unreadable={summary.unreadable} failed={summary.failed} seen={summary.counts['seen']} "
        f"taste={summary.checks['taste']} resumed={summary.resumed}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    cli.COMMANDS["copy"] = "Copy rows to records."
    cli.load = lambda name: copy
    cli.main.add_command(copy)
    cli.main(prog_name="cxr")
