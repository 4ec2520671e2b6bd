"""The one driver of all commands that turn rows into records: order, processes, shards, rejects, and resuming.

A command gives a pure function from a unit (a row, or a study's rows) to a `Result`; `run` does the rest. The output
is a function of the input and the options alone: it is the same with any number of processes, and the same after a run
was killed and continued.

Continuing. While ``-o OUT`` is written, ``OUT.partial.json`` says every `CHECKPOINT_SECONDS` how many units were done,
a hash of the input up to there, the offsets reached in the output and in the rejects, and the counts. The next run with
the same options reads the input up to that point without working on it. If the hash agrees, both files are cut at the
offsets, which also takes a torn last line away, and the run goes on; otherwise it starts over and says so. What comes
later in the input may have changed: it hasn't been looked at. A pipe can be continued too if it brings the same rows
again, but not started over, so a pipe that brings others is an error. Output to stdout is never continued.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, cast

from cxr_reason import __version__, console, records
from cxr_reason.cluster import Shard, StopSignals
from cxr_reason.errors import CxrError, InputError, Stop, TooManyFailures
from cxr_reason.sinks import FileSink, NullSink, Sink, StdoutSink
from cxr_reason.streams import Group, Row, Source, stable_hash
from cxr_reason.writers import WRITERS, Writer

CHECKPOINT_SECONDS = 2.0
# Gzipped files can be cut only where a member ends, and members must end at the same rows in every run.
MEMBER_UNITS = 256
CHUNK_UNITS = 32  # divides MEMBER_UNITS; where the format makes batches, a chunk is one of them
# Chunks that may be under way or wait for an earlier one, for each process.
CHUNKS_AHEAD = 4
# Objects made between two searches for garbage cycles. What a report gives has none and is freed at once, while caches
# grow: with Python's 700, searching them took a tenth of the time.
COLLECT_AFTER = 50_000

Unit = Row | Group


@dataclass(slots=True)
class Reject:
    """Something that a check refused: success of the check, not a failure of the run."""

    id: str | None
    stage: str
    reasons: list[dict[str, str]]
    """Each {"check": its name, "message": a sentence for a colleague}."""
    record: Mapping[str, Any] | None = None
    """What was refused. Written only to ``--rejects``."""
    line: int | None = None
    """Where it came from; None: the unit's first row."""


@dataclass(slots=True)
class Result:
    """What became of one unit. `counts` are summed over the run under keys of the command's own choice."""

    records: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)
    """For the run's `aside`; JSON."""


class Aside(Protocol):
    """Something that listens to a run beside its output, in the order of the input; saved and continued with it."""

    def add(self, notes: list[dict[str, Any]]) -> None: ...

    def state(self) -> Any:
        """What it has heard so far, as JSON."""

    def restore(self, state: Any) -> None:
        """Go on from a `state`; None is the start."""


StreamWork = Callable[[Iterator[Any]], Iterator[Result | Exception]]


@dataclass(slots=True)
class Summary:
    """A run's counts, over its own shard, continued parts included."""

    units: int = 0
    rows: int = 0
    """Readable or not."""
    records: int = 0
    rejected: int = 0
    """Rejects of the command's checks; the next two are counted apart."""
    unreadable: int = 0
    failed: int = 0
    """Units on which the work itself broke down."""
    resumed: int = 0
    """Units of the input, of all shards, that an earlier run had done."""
    counts: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    """Rejections by check; a reject with two reasons counts under both."""


def run(
    source: Source,
    work: Callable[[Any], Result] | StreamWork,
    *,
    stage: str,
    units: Callable[[Iterator[Row]], Iterator[Unit]] = iter,
    output: str | Path | None = None,
    output_format: str = "jsonl",
    rejects: str | Path | None = None,
    jobs: int = 1,
    shard: Shard | None = None,
    limit: int | None = None,
    max_failed: float = 0.05,
    dry_run: bool = False,
    force: bool = False,
    config: Mapping[str, Any] | None = None,
    label: str | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    aside: Aside | None = None,
    in_stream: bool = False,
    rates: Sequence[str] = (),
) -> Summary:
    """Do `work` on every unit of `source` and write what comes of it, in the order of the input.

    `units` makes units of rows (see `group_consecutive`); by default each row is one. `work` gets a Row or a Group
    without unreadable rows, and with `jobs` > 1 it must be picklable: a function of a module, or a `partial` of one.
    `output` None is stdout; `rejects` None drops what was refused and counts it. `limit` takes the first units of the
    whole input, `shard` its part of those: all rows of a study, and with them its records, are in one shard. `config`
    holds the options that decide the output's bytes: a killed run is continued only under the same. `force` starts
    over. `dry_run` works and counts, and writes nothing. `aside` is told the notes of each result. `rates` are counts
    whose pace is shown beside that of the rows.

    With `in_stream`, `work` gets an iterator of the units instead, takes as many ahead as it likes, and yields a Result
    for each, in their order, or the exception that broke this one: for work that is quicker on many at once, such as a
    model's. It needs `jobs` = 1; it must ask for units in the thread that asks it for results; what it raises ends the
    run, with what it yielded saved.

    Raises TooManyFailures when everything is written and more than the share `max_failed` of the rows couldn't be read
    or worked on; InputError where there is no row at all.
    """
    writer = WRITERS[output_format]
    size = writer.units if writer.units > 1 or jobs == 1 else CHUNK_UNITS
    assert jobs == 1 or not in_stream
    assert MEMBER_UNITS % size == 0
    identity = records.config_hash(
        {
            "version": __version__,
            "stage": stage,
            "input": source.name,
            "format": output_format,
            "rejects": rejects and os.path.abspath(rejects),
            "shard": str(shard),
            "limit": limit,
            "options": dict(config or {}),
        }
    )
    process = partial(_process_all, cast("Callable[[Any], Result]", work), stage, output_format, rejects is not None)
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        stack.enter_context(_rare_collections())
        ledger = stack.enter_context(_Ledger(source, writer, identity, checkpoint_seconds, aside))
        done = ledger.open(None if dry_run else output, None if dry_run else rejects, to_null=dry_run, force=force)
        numbered = _numbered(source, units, limit)
        if done and not ledger.skip(numbered):
            source.rewind()
            ledger.start_over()
            numbered = _numbered(source, units, limit)
        chunks = _chunks(source, numbered, shard, size)
        finished: Iterator[tuple[_Chunk, _Done]]
        if in_stream:
            ledger.keep_saved()
            through = cast("StreamWork", work)
            finished = _process_stream(through, stage, writer, rejects is not None, chunks)
        elif jobs == 1:
            finished = ((chunk, process(chunk.units)) for chunk in chunks)
        else:
            finished = stack.enter_context(_Pool(process, jobs)).run(chunks)
        progress = stack.enter_context(console.progress(label or stage))
        for chunk, done_of_chunk in finished:
            # Half a chunk must not be saved. Stdout is never saved, and may block for as long as its reader likes.
            with signals.held() if ledger.resumable else nullcontext():
                ledger.add(chunk, done_of_chunk)
            outcomes = done_of_chunk.outcomes
            paced = {name: sum(outcome.counts.get(name, 0) for outcome in outcomes) for name in rates}
            progress.advance(sum(outcome.rows for outcome in outcomes), fraction=source.fraction, also=paced)
        summary = ledger.commit()
    require_few_failures(summary, source.name, max_failed=max_failed, rejects=rejects)
    return summary


def require_few_failures(summary: Summary, name: str, *, max_failed: float, rejects: str | Path | None = None) -> None:
    """Raise TooManyFailures where more than the share `max_failed` of the rows of the input `name` couldn't be used."""
    broken = summary.unreadable + summary.failed
    if broken > max_failed * summary.rows:
        raise TooManyFailures(
            f"{broken:,} of {summary.rows:,} rows could not be used ({broken / summary.rows:.1%}, "
            f"allowed are {max_failed:.1%}). Everything else is written.",
            where=name,
            hint="--rejects FILE holds them with their reasons; --max-failed sets how many are allowed."
            if rejects is None
            else f"They are in {rejects} with their reasons; --max-failed sets how many are allowed.",
        )


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage cycles seldom, and never among what was loaded before, such as the lexicon."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


# ------------------------------------------------------------------------------------------------------ work on units


@dataclass(slots=True)
class _Outcome:
    """What became of one unit, ready to be written: made in a worker, sent to the writer."""

    rows: int
    output: Any = None
    """What `Writer.encode` made of its records, until the chunk's are one batch."""
    rejects: bytes = b""
    records: int = 0
    rejected: int = 0
    unreadable: int = 0
    failed: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    warning: str | None = None


@dataclass(slots=True)
class _Done:
    """What became of a chunk: its records as one batch, empty where there are none, and the rest by unit."""

    output: bytes
    outcomes: list[_Outcome]


def _process_all(
    work: Callable[[Unit], Result], stage: str, output_format: str, keep_rejects: bool, units: list[Unit]
) -> _Done:
    """Work on the units of a chunk. Only errors that concern the whole run get out."""
    writer = WRITERS[output_format]
    return _batched([_process(work, stage, writer, keep_rejects, unit) for unit in units], writer)


def _batched(outcomes: list[_Outcome], writer: Writer) -> _Done:
    encoded = [outcome.output for outcome in outcomes if outcome.records]
    for outcome in outcomes:
        outcome.output = None
    return _Done(writer.batch(encoded) if encoded else b"", list(outcomes))


def _the(result: Result | Exception, _: Unit) -> Result:
    if isinstance(result, Exception):
        raise result
    return result


def _is_unreadable(unit: Unit) -> bool:
    return isinstance(unit, Row) and unit.data is None


def _process_stream(
    work: StreamWork,
    stage: str,
    writer: Writer,
    keep_rejects: bool,
    chunks: Iterator[_Chunk],
) -> Iterator[tuple[_Chunk, _Done]]:
    """Each chunk, once `work`, which may take units of later ones already, has given the results of all its units."""
    waiting: deque[_Chunk] = deque()
    outcomes: list[_Outcome] = []  # of the first chunk that waits

    def readable() -> Iterator[Unit]:
        for chunk in chunks:
            waiting.append(chunk)
            yield from (unit for unit in chunk.units if not _is_unreadable(unit))

    def complete() -> Iterator[tuple[_Chunk, _Done]]:
        while waiting:
            for unit in waiting[0].units[len(outcomes) :]:
                if not _is_unreadable(unit):
                    return
                assert isinstance(unit, Row)
                outcomes.append(_unreadable(unit, keep_rejects))
            yield waiting.popleft(), _batched(outcomes, writer)
            outcomes.clear()

    for result in work(readable()):
        yield from complete()
        unit = waiting[0].units[len(outcomes)]
        outcomes.append(_process(partial(_the, result), stage, writer, keep_rejects, unit))
        yield from complete()
    yield from complete()
    assert not waiting, "a result was owed"


def _process(work: Callable[[Unit], Result], stage: str, writer: Writer, keep_rejects: bool, unit: Unit) -> _Outcome:
    """Work on one unit and encode the result."""
    if isinstance(unit, Row):
        first, rows = unit, 1
        if unit.data is None:
            return _unreadable(unit, keep_rejects)
    else:
        first, rows = unit.rows[0], len(unit.rows)
    outcome = _Outcome(rows)
    try:
        result = work(unit)
        outcome.output = writer.encode(result.records)
        outcome.rejects = b"".join(reject_line(reject, first) for reject in result.rejects) if keep_rejects else b""
    except CxrError:
        raise
    except Exception as error:
        return _failed(error, [unit] if isinstance(unit, Row) else unit.rows, stage, keep_rejects)
    outcome.records = len(result.records)
    outcome.rejected = len(result.rejects)
    outcome.counts = result.counts
    outcome.notes = result.notes
    outcome.checks = [reason["check"] for reject in result.rejects for reason in reject.reasons]
    return outcome


def _unreadable(row: Row, keep_rejects: bool) -> _Outcome:
    assert row.error is not None
    outcome = _Outcome(1, unreadable=1, warning=f"{row.file}:{row.line}: {row.error}")
    if keep_rejects:
        outcome.rejects = unreadable_line(row)
    return outcome


def unreadable_line(row: Row) -> bytes:
    """The line of a file of rejects for a row that can't be read."""
    reasons = [_reason("unreadable", row.error or "")]
    return _line(row.file, row.line, None, "read", reasons, {"raw": row.raw})


def _failed(error: Exception, rows: Sequence[Row], stage: str, keep_rejects: bool) -> _Outcome:
    """What comes of rows that broke the work on them: all of a study's, each with a line of its own."""
    # The type and the place only: the message of a stranger's exception may quote the report.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
    left_out = "the row is left out" if len(rows) == 1 else f"the {len(rows)} rows of its study are left out"
    warning = f"{rows[0].file}:{rows[0].line}: internal error, {left_out}: {message}"
    outcome = _Outcome(len(rows), failed=len(rows), warning=warning)
    for row in rows if keep_rejects else ():
        reasons = [_reason("internal-error", message)]
        try:
            outcome.rejects += _line(row.file, row.line, None, stage, reasons, {"record": row.data})
        except (ValueError, RecursionError):  # the row itself may be what can't be written
            outcome.rejects += _line(row.file, row.line, None, stage, reasons, {})
    return outcome


def reject_line(reject: Reject, row: Row) -> bytes:
    """The line of a file of rejects for what was refused of `row`."""
    line = row.line if reject.line is None else reject.line
    return _line(row.file, line, reject.id, reject.stage, reject.reasons, {"record": reject.record})


def _line(
    file: str, line: int, identity: str | None, stage: str, reasons: list[dict[str, str]], held: Mapping[str, Any]
) -> bytes:
    reject = {"file": file, "line": line, "id": identity, "stage": stage, "reasons": reasons, **held}
    return records.dumps_plain(reject) + b"\n"


def _reason(check: str, message: str) -> dict[str, str]:
    return {"check": check, "message": message}


# ------------------------------------------------------------------------------------------------- units into chunks


@dataclass(slots=True)
class _Chunk:
    """Some units that stand together, of which this shard has `units`. After it, `end` units of the input are done."""

    end: int
    units: list[Unit]
    digest: Any

    def where(self) -> str:
        if not self.units:
            return "no row"
        first, last = (unit if isinstance(unit, Row) else unit.rows[0] for unit in (self.units[0], self.units[-1]))
        return f"{first.file}:{first.line}" + (f" to {last.line}" if last is not first else "")


def _numbered(
    source: Source, units: Callable[[Iterator[Row]], Iterator[Unit]], limit: int | None
) -> Iterator[tuple[int, Unit]]:
    return enumerate(islice(units(source.rows()), limit), 1)


def _chunks(source: Source, numbered: Iterator[tuple[int, Unit]], shard: Shard | None, size: int) -> Iterator[_Chunk]:
    units: list[Unit] = []
    number = 0
    for number, unit in numbered:
        if shard is None or stable_hash("shard", _shard_key(unit)) % shard.count == shard.index:
            units.append(unit)
        # At multiples of `size` whatever the shard holds, so that gzip members and batches end at the same units with
        # any `jobs`.
        if number % size == 0:
            yield _Chunk(number, units, source.digest())
            units = []
    if units:
        yield _Chunk(number, units, source.digest())


def _shard_key(unit: Unit) -> str:
    """What decides the shard: the study, so that it stays whole, else the record, else the line."""
    if isinstance(unit, Group):
        row, key = unit.rows[0], unit.key
    else:
        row, key = unit, ""
    data = row.data or {}
    return str(key or data.get("study_id") or data.get("id") or f"line {row.line}")


# ------------------------------------------------------------------------------------- output, rejects and the journal


class _Ledger:
    """Output, rejects and counts as one: they are written together, saved together and continued together."""

    def __init__(
        self, source: Source, writer: Writer, identity: str, checkpoint_seconds: float, aside: Aside | None
    ) -> None:
        self._source = source
        self._writer = writer
        self._head = writer.head()  # where the format's library is missing, this says so before anything is touched
        self._aside = aside
        self._identity = identity
        self._interval = checkpoint_seconds
        self._summary = Summary()
        self._output: Sink = NullSink()
        self._rejects: Sink = NullSink()
        self._files: dict[str, FileSink] = {}
        self._journal: Path | None = None
        self._done = 0
        self._digest: Any = None
        self._expected = ""
        self._saved_at = monotonic()
        self._keep = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._saver: threading.Thread | None = None
        self._saved = 0
        self._failure: Exception | None = None
        self._writing = False

    def __enter__(self) -> _Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._end_saver()
        try:
            # A damaged input can be mended, a server started again, and what came before is done.
            # What broke while it was written is not to be trusted.
            known = isinstance(error, KeyboardInterrupt | Stop | InputError)
            known = known or (isinstance(error, CxrError) and not self._writing and self._failure is None)
            if known and self._journal and self._may_save():
                self._save()
                console.note(
                    f"{self._done:,} {'row is' if self._done == 1 else 'rows or studies are'} done and saved. "
                    "The same command goes on from there."
                )
        finally:
            self._output.close(keep=self._keep)
            self._rejects.close(keep=self._keep)

    @property
    def resumable(self) -> bool:
        return self._journal is not None

    def open(
        self, output: str | Path | None, rejects: str | Path | None, *, to_null: bool = False, force: bool = False
    ) -> int:
        """Open both files; returns how many units an earlier run with the same options has done."""
        if to_null:
            return 0
        if rejects is not None and (
            str(rejects) == "-" or (output and os.path.realpath(output) == os.path.realpath(rejects))
        ):
            raise CxrError("rejects need a file of their own", where="--rejects", hint="Name another file.")
        if rejects is not None:
            self._rejects = self._hold("rejects", FileSink(rejects))
        if output is None or str(output) == "-":
            self._output = StdoutSink()
        else:
            self._output = sink = self._hold("output", self._writer.sink(output))
            self._journal = Path(f"{sink.partial}.json") if sink.regular else None
        # Only now that both files are ours: the journal of a run that is under way must be left alone.
        state = None if force else self._earlier()
        if state and not all(file.go_on_from(state[name]) for name, file in self._files.items()):
            console.note(f"{output} was begun, but what was written has been cut since: starting over")
            state = None
        if state is None:
            self.start_over()
            return 0
        self._summary = Summary(**{**state["summary"], "resumed": state["done"]})
        self._summary.counts, self._summary.checks = Counter(self._summary.counts), Counter(self._summary.checks)
        self._done, self._expected, self._keep = state["done"], state["digest"], True
        if self._aside:
            self._aside.restore(state["aside"])
        return self._done

    def _hold(self, name: str, sink: FileSink) -> FileSink:
        sink.open()
        self._files[name] = sink
        return sink

    def skip(self, numbered: Iterator[tuple[int, Unit]]) -> bool:
        """Pass over the units that are done; False where the input isn't the one on which they were."""
        passed = sum(1 for _ in islice(numbered, self._done))
        if passed == self._done and self._source.digest().hexdigest() == self._expected:
            self._digest = self._source.digest()
            console.note(f"continuing an earlier run: {self._done:,} rows or studies are done")
            return True
        if self._source.path is None:
            raise CxrError(
                "these are not the rows with which an earlier run began",
                where=self._source.name,
                hint="Pipe in the same rows to continue it, or add --force to start over.",
            )
        console.note(f"{self._source.name} has changed since the earlier run: starting over")
        return False

    def start_over(self) -> None:
        """Forget what an earlier run did."""
        if self._journal is not None:
            self._journal.unlink(missing_ok=True)
        self._summary, self._done, self._keep = Summary(), 0, False
        if self._aside:
            self._aside.restore(None)
        for file in self._files.values():
            file.go_on_from(0)

    def keep_saved(self) -> None:
        """Save from a thread what waits for longer than the interval: the next unit of a stream may take minutes."""
        if self._journal is not None:
            self._saver = threading.Thread(target=self._save_in_time, name="saver", daemon=True)
            self._saver.start()

    def _save_in_time(self) -> None:
        while not self._ended.wait(self._interval):
            with self._lock:
                if self._done > self._saved and self._may_save():
                    try:
                        self._save()
                    except Exception as error:
                        self._failure = error
                        return

    def _end_saver(self) -> None:
        if self._saver is not None:
            self._ended.set()
            self._saver.join()
            self._saver = None

    def add(self, chunk: _Chunk, done: _Done) -> None:
        """Write what became of `chunk`, and save if it is time."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._writing = True
            self._add(chunk, done)
            self._writing = False

    def _add(self, chunk: _Chunk, done: _Done) -> None:
        summary = self._summary
        if done.output:
            self._begin()
            if summary.records and self._writer.separator:
                self._output.write(self._writer.separator)
            self._output.write(done.output)
        for outcome in done.outcomes:
            if outcome.rejects:
                self._rejects.write(outcome.rejects)
            summary.units += 1
            summary.rows += outcome.rows
            summary.records += outcome.records
            summary.rejected += outcome.rejected
            summary.unreadable += outcome.unreadable
            summary.failed += outcome.failed
            summary.counts.update(outcome.counts)
            summary.checks.update(outcome.checks)
            if self._aside:
                self._aside.add(outcome.notes)
            if outcome.warning:
                kind = "rows that can't be read" if outcome.unreadable else "rows that broke the program"
                console.warn(outcome.warning, kind=kind)
        self._done, self._digest = chunk.end, chunk.digest
        if chunk.end % MEMBER_UNITS == 0:
            self._output.flush()
            self._rejects.flush()
        if self._journal and monotonic() - self._saved_at >= self._interval and self._may_save():
            self._save()

    def _begin(self) -> None:
        """Write the head before the first records; after them it is there, also in a continued run."""
        if self._head and not self._summary.records:
            self._output.write(self._head)

    def commit(self) -> Summary:
        """All is written: end the output, and rename both files to their names."""
        self._end_saver()
        self._writing = True
        self._begin()
        if tail := self._writer.tail():
            # What is saved from here on would have the tail in its middle when the run is continued.
            if self._journal and self._may_save():
                self._save()
            self._digest = None
            self._output.write(tail)
        self._rejects.seal()
        self._output.seal()
        self._rejects.commit()
        self._output.commit()
        if self._journal:
            self._journal.unlink(missing_ok=True)
        return self._summary

    def _may_save(self) -> bool:
        gzipped = any(file.gzipped for file in self._files.values())
        return self._digest is not None and (not gzipped or self._done % MEMBER_UNITS == 0)

    def _save(self) -> None:
        assert self._journal is not None
        state = {
            "identity": self._identity,
            "done": self._done,
            "digest": self._digest.hexdigest(),
            "output": self._output.flush(),
            "rejects": self._rejects.flush(),
            # Not `asdict`, which copies a Counter wrongly.
            "summary": {part.name: getattr(self._summary, part.name) for part in fields(Summary)},
        }
        fresh = self._journal.with_name(self._journal.name + ".new")
        try:
            if self._aside:
                state["aside"] = self._aside.state()
                fresh.touch(mode=0o600)  # it may hold report text
            fresh.write_text(json.dumps(state))
            os.replace(fresh, self._journal)
        finally:
            fresh.unlink(missing_ok=True)
        self._saved_at = monotonic()
        self._saved = self._done
        self._keep = True

    def _earlier(self) -> dict[str, Any] | None:
        """The journal of an earlier run with the same options, None where there is none to continue."""
        if self._journal is None or not self._journal.exists():
            return None
        try:
            state = json.loads(self._journal.read_text())
            same = state["identity"] == self._identity
        except (ValueError, KeyError, TypeError):
            same = False
        if same:
            return dict(state)
        console.note(f"{self._journal} is of a run with other options: starting over")
        return None


# --------------------------------------------------------------------------------------------------------- processes


class _Pool:
    """`jobs` processes that work on chunks, one each at a time; results come back in the order of the chunks.

    Processes are spawned, not forked, so that none inherits another's pipe: when this process dies, by whatever signal,
    they read the end of theirs and leave. A worker that dies is noticed at once, with the rows that it had.
    """

    def __init__(self, process: Callable[[list[Unit]], _Done], jobs: int) -> None:
        self._process = process
        self._jobs = jobs
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[multiprocessing.connection.Connection, Any] = {}

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *error: object) -> None:
        for connection, worker in self._workers.items():
            connection.close()
            worker.kill()  # they hold nothing that is worth a farewell
            worker.join()

    def run(self, chunks: Iterator[_Chunk]) -> Iterator[tuple[_Chunk, _Done]]:
        """Each chunk with its outcomes. Raises CxrError where a worker was killed."""
        numbered = enumerate(chunks)
        idle: list[multiprocessing.connection.Connection] = []
        busy: dict[multiprocessing.connection.Connection, tuple[int, _Chunk]] = {}
        done: dict[int, tuple[_Chunk, _Done]] = {}
        given = written = 0
        more = True
        while more or busy:
            while more and len(busy) < self._jobs and given - written < self._jobs * CHUNKS_AHEAD:
                number, chunk = next(numbered, (-1, None))
                if chunk is None:
                    more = False
                    break
                connection = idle.pop() if idle else self._start()
                busy[connection] = number, chunk
                given += 1
                try:
                    connection.send(chunk.units)
                except ConnectionError:
                    raise self._died(connection, chunk) from None
            for ready in multiprocessing.connection.wait(list(busy)) if busy else ():
                assert isinstance(ready, multiprocessing.connection.Connection)
                number, chunk = busy.pop(ready)
                try:
                    result = ready.recv()
                except (EOFError, ConnectionError):
                    raise self._died(ready, chunk) from None
                if isinstance(result, BaseException):
                    raise result
                done[number] = chunk, result
                idle.append(ready)
            while written in done:
                yield done.pop(written)
                written += 1

    def _start(self) -> multiprocessing.connection.Connection:
        ours, theirs = self._context.Pipe()
        worker = self._context.Process(target=_worker, args=(theirs, self._process), daemon=True)
        # Ctrl-C and Slurm's SIGTERM reach the whole group. Workers must leave both to us from their first instruction
        # on, and what is ignored when a process is started stays ignored in it.
        previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            worker.start()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        theirs.close()
        self._workers[ours] = worker
        return ours

    def _died(self, connection: multiprocessing.connection.Connection, chunk: _Chunk) -> CxrError:
        worker = self._workers[connection]
        worker.join()
        killed = worker.exitcode == -signal.SIGKILL
        why = "was killed, probably for want of memory," if killed else f"ended with code {worker.exitcode}"
        return CxrError(
            f"a worker process {why} while it had these rows",
            where=chunk.where(),
            hint="Run the same command with fewer --jobs; with -o it continues where it stopped.",
        )


def _worker(connection: multiprocessing.connection.Connection, process: Callable[[list[Unit]], _Done]) -> None:
    with _rare_collections():
        _work(connection, process)


def _work(connection: multiprocessing.connection.Connection, process: Callable[[list[Unit]], _Done]) -> None:
    while True:
        try:
            units = connection.recv()
        except EOFError:
            return
        try:
            answer: Any = process(units)
        except CxrError as error:
            answer = error
        try:
            connection.send(answer)
        except BrokenPipeError:
            return
