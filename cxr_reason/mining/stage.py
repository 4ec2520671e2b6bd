"""Mining as a whole: from a source of rows to records and to the tables that close a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cxr_reason import columns, console, runner
from cxr_reason.apart import Guard
from cxr_reason.engines.asking import Asker
from cxr_reason.mining import labels, miner, sampling, tally
from cxr_reason.mining.settings import Settings
from cxr_reason.mining.tasks import Options
from cxr_reason.runner import Summary
from cxr_reason.streams import Source

if TYPE_CHECKING:
    from cxr_reason.refining.llm import Writer  # it brings all of refine, which the rules don't need

_STREAMS = (
    *("output", "output_format", "rejects", "jobs", "shard", "limit"),
    *("max_failed", "dry_run", "force", "in_stream"),
)


def run(
    table: Source,
    *,
    overrides: Mapping[str, str],
    joined: dict[str, Any],
    per_finding: int | None,
    apart_from: Sequence[str],
    check_films: bool,
    film_root: str | None = None,
    encoding: str | None = None,
    model: tuple[Asker, Writer] | None = None,
    **given: Any,
) -> Summary:
    """Mine `table`, and tell on stderr what came of it. Raises InputError where it has neither reports nor labels.

    `overrides` are those of ``--map``, `joined` says how the table was put together, for the run's identity, `model`
    writes the chains, where the rules don't. `film_root` is where relative paths of films begin; None: in the folder
    of the file that names them. `encoding` is that of the tables. The rest are the options of `cxr mine`: fields of
    `Options`, of `Settings` and of `runner.run`.
    """
    header = table.header()
    mapping = columns.guess_columns(header, table.sample(), overrides={**table.known, **overrides})
    label_columns = columns.label_columns(header)
    if given["labels"] == "input":
        columns.require_labels(label_columns, header, source=table.name)
    elif header:
        columns.require_report(mapping, header, source=table.name)
    streams = {name: given.pop(name) for name in _STREAMS if name in given}
    chosen = {name: given.pop(name) for name in Options.__slots__ if name in given}
    options = Options(**chosen, thinned=not per_finding)
    asker, writer = model or (None, None)
    deciding = {**asker.identity, **writer.as_dict()} if asker and writer else None
    settings = Settings(mapping, options, label_columns=label_columns, language=table.language, llm=deciding, **given)
    guard = Guard(mapping, apart_from=apart_from, films=check_films, root=film_root, encoding=encoding)
    pairs = "temporal" in options.tasks and not settings.findings_only
    work: Any = partial(miner.mine, settings=settings)
    if asker and writer:
        from cxr_reason.mining import llm

        work = partial(asker.through, work=partial(llm.mined, settings=settings, writer=writer))
    if header and not table.known:
        console.note(columns.told(mapping, pairs=pairs))
    units = guard.after(partial(miner.by_study, mapping=mapping, pairs=pairs, date_order=settings.date_order))
    config = settings.as_dict() | guard.as_dict() | joined
    if per_finding:
        summary = sampling.run(table, work, count=per_finding, seed=options.seed, units=units, config=config, **streams)
    else:
        summary = runner.run(table, work, stage="mine", units=units, config=config, **streams)
    _tell(summary, [*table.notes(), *guard.notes()], asked=not settings.findings_only, by_model=model is not None)
    return summary


def _tell(summary: Summary, notes: Sequence[str], *, asked: bool, by_model: bool) -> None:
    """What was found and asked, as a table on stderr, and what became of the rest."""
    if rows := tally.rows(summary.counts):
        title = "What the reports say, and what is asked" if asked else "What the reports say"
        shown = rows[: tally.SHOWN] if console.is_terminal() else rows
        if more := len(rows) - len(shown):
            title += f" (the {len(shown)} most frequent; 2> FILE holds {more:,} more)"
        width = len(tally.COLUMNS) - (not asked)
        console.table(title, tally.COLUMNS[:width], [row[:width] for row in shown])
    if rows := labels.rows(summary.counts):
        console.table("Labels: what we read, and what the input says", labels.COLUMNS, rows)
    if unread := summary.counts["labels/unread"]:
        console.note(f"{_studies(unread)} with label cells that hold no label: they are taken for unlabelled")
    if unasked := tally.unasked(summary.counts):
        console.table("What is not asked", tally.UNASKED, unasked)
    for note in notes:
        console.note(note)
    for reason, count in tally.left_out(summary.counts).items():
        console.note(f"{_studies(count)} left out: {reason}")
    if told := tally.rows_told(summary.counts):
        console.note(told)
    for check, count in sorted(summary.checks.items()):
        if check in miner.CHECKS:
            console.note(f"{_studies(count)} rejected: {check}")
    if by_model:
        from cxr_reason.refining import llm

        llm.tell(summary.counts)
    console.note(f"{_several(summary.records, 'record')} from {_several(summary.counts['reports'], 'report')}")


def _studies(count: int) -> str:
    return f"{count:,} {'study' if count == 1 else 'studies'}"


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun if count == 1 else f'{noun}s'}"
