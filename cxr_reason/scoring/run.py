"""Scoring as the runner sees it: records with predictions in, judged items as details, and the score of them all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from cxr_reason import radrbench, records, runner
from cxr_reason.errors import CxrError, TooManyFailures
from cxr_reason.radiology.verify import Silence
from cxr_reason.rewards import judge as judged_by
from cxr_reason.scoring import floors, page, paired, statistics, tables
from cxr_reason.scoring.figures import Figures, Kind
from cxr_reason.scoring.tally import Tally, measured, noted
from cxr_reason.sinks import opened
from cxr_reason.streams import Input, Row, stable_id

STAGE = "score"
REPORT_TEXT = ("report", "prior_report")
JUDGE_OF_FLOORS = "rules"
"""Floors are texts that nobody but a judge who reads can judge."""


def units(rows: Iterator[Row]) -> Iterator[Row]:
    """Each row a unit; items of RadRBench-CXR become records here."""
    return radrbench.records_of(rows)


def score_row(
    row: Row,
    *,
    judge: str,
    options: Mapping[str, Any],
    silence: Silence,
    by: Sequence[str],
    with_floors: bool,
    details: bool,
    reports: bool,
    config: str,
) -> runner.Result:
    """Judge one record. Pure and picklable: it goes to worker processes.

    Every record gives a note, and with `details` a line, also where nothing can be judged. A details line has the
    reference chain as `reference_steps`, since `steps` are the prediction's, and is itself a record that can be scored.
    """
    record = dict(row.data or {})
    if "reference_steps" in record:
        record["steps"] = record.pop("reference_steps")
    if not record.get("id"):
        record["id"] = stable_id(record.get("study_id"), record.get("question"), record.get("report"))
    line = judged_by(record, judge=judge, silence=silence, **options)
    note = noted(line, by=by)
    if with_floors:
        note |= _floors(record, silence)
    result = runner.Result(notes=[note])
    if details:
        result.records = [_details(line, record, reports=reports, config=config, judge=judge)]
    return result


def _details(
    line: Mapping[str, Any], record: Mapping[str, Any], *, reports: bool, config: str, judge: str
) -> dict[str, Any]:
    told = dict(line)
    if "steps" in record:
        told["reference_steps"] = record["steps"]
    if not reports:
        told = {name: value for name, value in told.items() if name not in REPORT_TEXT}
    return records.stamp(told, stage=STAGE, config=config, backend=judge)


def _floors(record: Mapping[str, Any], silence: Silence) -> dict[str, Any]:
    """The values of both floors on the question of `record`, by the answer that they give."""

    def values(prediction: str) -> dict[str, float]:
        return measured(judged_by({**record, "prediction": prediction}, judge=JUDGE_OF_FLOORS, silence=silence))

    always = {answer: values(text) for answer, text in floors.frequent(record).items()}
    return {"floors": {floors.LITANY: {"": values(floors.litany(record))}, floors.FREQUENT: always}}


def score(
    source: Input,
    *,
    judge: str = "rules",
    options: Mapping[str, Any] | None = None,
    silence: Silence = "normal",
    by: Sequence[str] = (),
    draws: int = statistics.DRAWS,
    seed: int = 0,
    details: str | Path | None = None,
    html: str | Path | None = None,
    against: Input | None = None,
    reports: bool = True,
    films: Kind = "none",
    image_root: str | None = None,
    cases: int = page.CASES,
    dry_run: bool = False,
    **stream: Any,
) -> tuple[dict[str, Any], runner.Summary, TooManyFailures | None]:
    """Judge the predictions of `source`, and those of `against` on the same questions. `options` are the judge's own.

    Gives the score (`tables.result`), the run's counts, and the error that is still to be raised where too many rows
    couldn't be read: what could be read is scored and written all the same. `details` gets a line an item, in the order
    of the input, and can be continued after a kill; `html` a page with up to `cases` of them. `reports=False` leaves
    report text out of both. `films` are shown on the page as `Figures` tells. `stream` is the rest of `runner.run`.
    """
    if against is not None and not statistics.available():
        raise CxrError("comparing needs numpy", where="--against", hint="pip install 'cxr-reason[score]'")
    figures = None
    if html and films != "none":
        root = Path(image_root) if image_root else None
        figures = Figures(films, root=root, base=Path(source.name).parent, page=Path(html).parent)
    with_floors = judge == JUDGE_OF_FLOORS
    config: dict[str, Any] = {
        "judge": judge,
        "options": dict(options or {}),
        "silence": silence,
        "by": list(by),
        "reports": reports,
    }
    own: dict[str, Any] = {"judge": judge, "options": options or {}, "silence": silence, "by": by, "reports": reports}
    work = partial(score_row, **own, config=records.config_hash(config))
    config |= {"draws": draws, "seed": seed}
    with ExitStack() as stack:
        sink = stack.enter_context(opened(html)) if html and not dry_run else None
        # Where it stands beside the page, report text is where the person wants it, and on the same disk.
        beside = Path(html or ".").resolve().parent
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=beside, prefix=".score-"))) if sink else None
        ours = Path(details) if details else folder / "ours.jsonl" if folder else None
        theirs = folder / "theirs.jsonl" if folder and against else None
        failures: list[TooManyFailures] = []

        def run(which: Input, into: Path | None, tally: Tally, *, floor: bool, **rest: Any) -> runner.Summary | None:
            try:
                return runner.run(
                    which,
                    partial(work, with_floors=floor, details=into is not None),
                    stage=STAGE,
                    units=units,
                    output=into or os.devnull,
                    aside=tally,
                    config=config | {"hold": tally.hold},
                    dry_run=dry_run,
                    **rest,
                )
            except TooManyFailures as error:  # raised when everything else is done
                failures.append(error)
                return None

        other = None
        if against is not None:
            other = Tally(draws=0, hold=True)
            shared = {name: stream[name] for name in ("jobs", "limit", "max_failed", "shard") if name in stream}
            run(against, theirs, other, floor=False, label="score --against", **shared)
        tally = Tally(draws=draws, seed=seed, hold=against is not None)
        summary = run(source, ours, tally, floor=with_floors, **stream)
        result = tables.result(tally, judge=judge, silence=silence, input=source.name)
        if against is not None and other is not None:
            result["against"] = paired.compare(tally.held, other.held, name=against.name, draws=draws, seed=seed)
        if sink and ours:
            page.write(sink, result, ours, others=theirs, reports=reports, count=cases, seed=seed, figures=figures)
            sink.commit()
    return result, summary or runner.Summary(), failures[0] if failures else None
