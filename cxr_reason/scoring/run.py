"""Scoring as the runner sees it: records with predictions in, judged items as details, and the score of them all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from cxr_reason import console, radrbench, records, runner, several
from cxr_reason.engines import forms
from cxr_reason.engines.asking import Asker, Talk
from cxr_reason.environment import install_line
from cxr_reason.errors import CxrError, InputError, TooManyFailures, UsageError
from cxr_reason.radiology.verify import Silence
from cxr_reason.rewards import judge as judged_by
from cxr_reason.rewards.llm import FORMS, judging
from cxr_reason.rewards.readers import notes_of
from cxr_reason.samples.draw import Sample, files
from cxr_reason.scoring import floors, metrics, page, paired, statistics, tables
from cxr_reason.scoring.figures import Figures, Kind
from cxr_reason.scoring.tally import TEXT_METRICS, UNKNOWN, Tally, group_fields, measured, noted
from cxr_reason.sinks import opened
from cxr_reason.streams import Row, Seen, Source, folder_of, stable_hash, with_id

STAGE = "score"
STRATA = ("finding", "status", "verdict", "basis", "task", "model")
"""What claims can be sampled by."""
JUDGE_OF_FLOORS = "rules"
"""Floors are texts that nobody but a judge who reads can judge."""


def units(rows: Iterator[Row]) -> Iterator[Row]:
    """Each row a unit; items of RadRBench-CXR become records here. Says at the end where ids came twice."""
    seen, known, repeated = Seen(), 0, 0
    for row in radrbench.records_of(rows):
        if row.data and row.data.get("id"):
            known += 1
            repeated += seen.add(str(row.data["id"]))
        yield row
    if repeated > known // 10_000:  # beyond what `Seen` itself gets wrong
        console.warn(f"about {repeated:,} ids came before: --against, --agreement and sheets pair by id, one of each")


def score_row(
    row: Row,
    *,
    judge: str,
    options: Mapping[str, Any],
    silence: Silence,
    by: Sequence[str],
    texts: Sequence[str],
    with_floors: bool,
    sample_seed: int | None,
    details: bool,
    reports: bool,
    config: str,
) -> runner.Result:
    """Judge one record. Pure and picklable: it goes to worker processes.

    Every record gives a note, and with `details` a line, also where nothing can be judged. A details line has the
    reference chain as `reference_steps`, since `steps` are the prediction's, and is itself a record that can be scored.
    `texts` are names of `metrics.METRICS`. With a `sample_seed` the claims are noted for a sample.
    """
    record = _record(row)
    line = _judged(record, texts, judge=judge, silence=silence, **options)
    note = noted(line, by=by) | {"file": row.file, "predicted": isinstance(record.get("prediction"), str)}
    if with_floors:
        note |= _floors(record, silence, texts)
    if sample_seed is not None:
        note["claims_drawn"] = [
            claim | {"rank": stable_hash("review", sample_seed, claim["id"])} for claim in notes_of(line)
        ]
    result = runner.Result(notes=[note])
    if details:
        result.records = [_details(line, record, reports=reports, config=config, judge=judge)]
    return result


def _judged(record: Mapping[str, Any], texts: Sequence[str], **judging: Any) -> dict[str, Any]:
    line = judged_by(record, **judging)
    return line | {TEXT_METRICS: metrics.values(texts, record)} if texts else line


def score_by_asking(
    row: Row, *, silence: Silence, tries: int, model: str, work: Callable[..., runner.Result]
) -> Talk[runner.Result]:
    """The judge `llm`'s conversation about one record, and then `work`, which is `score_row` with its options."""
    told = yield from judging(_record(row), silence=silence, tries=tries)
    return work(row, options={"told": told | {"judge_model": model}})


def _record(row: Row) -> dict[str, Any]:
    """The record of `row`, a details line made one again, with an id."""
    record = dict(row.data or {})
    record.pop(TEXT_METRICS, None)  # of an earlier run
    if "reference_steps" in record:
        record["steps"] = record.pop("reference_steps")
    return with_id(record)


def _details(
    line: Mapping[str, Any], record: Mapping[str, Any], *, reports: bool, config: str, judge: str
) -> dict[str, Any]:
    told = dict(line)
    if "steps" in record:
        told["reference_steps"] = record["steps"]
    if not reports:
        told = {name: value for name, value in told.items() if name not in records.REPORT_TEXT}
    return records.stamp(told, stage=STAGE, config=config, backend=judge)


def _floors(record: Mapping[str, Any], silence: Silence, texts: Sequence[str]) -> dict[str, Any]:
    """The values of both floors on the question of `record`, by the answer that they give."""

    def values(prediction: str) -> dict[str, float]:
        told = {**record, "prediction": prediction}
        return measured(_judged(told, texts, judge=JUDGE_OF_FLOORS, silence=silence))

    always = {answer: values(text) for answer, text in floors.frequent(record).items()}
    return {"floors": {floors.LITANY: {"": values(floors.litany(record))}, floors.FREQUENT: always}}


class _Heard:
    """A run's tally, and the sample of its claims where one is drawn, as the one `runner.Aside` that a run has."""

    def __init__(self, tally: Tally, sample: Sample | None) -> None:
        self.tally = tally
        self.sample = sample
        self.restore(None)

    def add(self, notes: list[dict[str, Any]]) -> None:
        self.tally.add(notes)
        for note in notes:
            self.predicted += note["predicted"]
            if not self.files or self.files[-1][0] != note["file"]:
                self.files.append([note["file"], 0])
            self.files[-1][1] += 1
        if self.sample:
            self.sample.add([claim for note in notes for claim in note["claims_drawn"]])

    def state(self) -> Any:
        own = {"files": self.files, "predicted": self.predicted}
        return {"tally": self.tally.state(), "sample": self.sample and self.sample.state(), **own}

    def restore(self, state: Any) -> None:
        self.files: list[list[Any]] = state["files"] if state else []
        """Where the items came from: a file, and how many in a row."""
        self.predicted: int = state["predicted"] if state else 0
        """How many items have a prediction."""
        self.tally.restore(state and state["tally"])
        if self.sample:
            self.sample.restore(state and state["sample"])


def score(
    source: Source,
    *,
    judge: str = "rules",
    options: Mapping[str, Any] | None = None,
    silence: Silence = "normal",
    by: Sequence[str] = (),
    texts: Sequence[str] = (),
    draws: int = statistics.DRAWS,
    seed: int = 0,
    details: str | Path | None = None,
    html: str | Path | None = None,
    against: Source | None = None,
    sample: Sample | None = None,
    sample_sheet: str | Path | None = None,
    sample_html: str | Path | None = None,
    reports: bool = True,
    asker: Asker | None = None,
    tries: int = 3,
    films: Kind = "none",
    image_root: str | None = None,
    cases: int = page.CASES,
    dry_run: bool = False,
    **stream: Any,
) -> tuple[dict[str, Any], runner.Summary, TooManyFailures | None]:
    """Judge the predictions of `source`, and those of `against` on the same questions. `options` are the judge's own.

    `by` names fields to make groups by, `texts` metrics of `metrics.METRICS` that stand beside ours.

    Gives the score (`tables.result`), the run's counts, and the error that is still to be raised where too many rows
    couldn't be read: what could be read is scored and written all the same. `details` gets a line an item, in the order
    of the input, and can be continued after a kill; `html` a page with up to `cases` of them. A `sample` of the claims
    goes into `sample_sheet`, with its key beside it, and `sample_html`. `reports=False` leaves report text out of all
    these. The judge `llm` needs an `asker`, who asks for each judgement up to `tries` times. `films` are shown on the
    page as `Figures` tells. `stream` is the rest of `runner.run`.
    """
    if against is not None and not statistics.available():
        raise CxrError("comparing needs numpy", where="--against", hint=install_line(["cxr-reason[score]"]))
    metrics.load(texts)
    figures = None
    if html and films != "none":
        root = Path(image_root) if image_root else None
        figures = Figures(films, root=root, page=Path(html).parent)
    with_floors = judge == JUDGE_OF_FLOORS
    config: dict[str, Any] = {
        "judge": judge,
        "options": dict(options or {}),
        "silence": silence,
        "by": list(by),
        "texts": list(texts),
        "reports": reports,
    }
    work = partial(score_row, **config, config=records.config_hash(config))
    config |= {"draws": draws, "seed": seed, "sample": sample and [sample.count, sample.by]}
    if asker:
        config |= {"llm": asker.identity, "tries": tries, "prompts": forms.fingerprint(FORMS)}
        stream["in_stream"] = True
    with ExitStack() as stack:
        places = {} if dry_run else {"sheet": sample_sheet, "html": sample_html}
        write_sample = stack.enter_context(files(sample, **places, reports=reports)) if sample else None
        sink = stack.enter_context(opened(html)) if html and not dry_run else None

        def beside(name: str) -> Path:
            """A file for the details that the page is made of, where its report text is to be anyway, while it takes.

            A killed run leaves what it has of it, and goes on from there.
            """
            path = Path(f"{html}.{name}.jsonl")
            stack.callback(path.unlink, missing_ok=True)
            return path

        ours = Path(details) if details else beside("ours") if sink else None
        theirs = beside("theirs") if sink and against else None
        failures: list[TooManyFailures] = []

        def run(which: Source, into: Path | None, heard: _Heard, *, floor: bool, **rest: Any) -> runner.Summary | None:
            noting = seed if heard.sample else None
            to_do: Any = partial(work, with_floors=floor, sample_seed=noting, details=into is not None)
            if asker:
                asking = partial(score_by_asking, silence=silence, tries=tries, model=asker.model, work=to_do)
                to_do = partial(asker.through, work=asking)
            try:
                return runner.run(
                    which,
                    to_do,
                    stage=STAGE,
                    units=units,
                    output=into or os.devnull,
                    aside=heard,
                    config=config | {"hold": heard.tally.hold},
                    dry_run=dry_run,
                    **rest,
                )
            except TooManyFailures as error:  # raised when everything else is done
                failures.append(error)
                return None

        other = None
        if against is not None:
            other = Tally(draws=0, hold=True)
            shared = {name: value for name, value in stream.items() if name != "rejects"}
            run(against, theirs, _Heard(other, None), floor=False, label="score --against", **shared)
        tally = Tally(draws=draws, seed=seed, hold=against is not None)
        heard = _Heard(tally, sample)
        first = source.sample() if by else {}
        summary = run(source, ours, heard, floor=with_floors, **stream)
        judged = sum(number for name, number in tally.counts.items() if name.startswith("judged/"))
        if tally.counts["items"] and not heard.predicted and not judged:
            raise InputError(
                "no record has a `prediction`",
                where=source.name,
                hint="`cxr infer` writes them: cxr infer questions.jsonl --ckpt DIR > predictions.jsonl",
            )
        if without := [field for field, values in tally.groups.items() if values == [UNKNOWN]]:
            raise UsageError(
                f"--by {', '.join(without)}: no record has {'this field' if len(without) == 1 else 'these fields'}",
                hint=f"There are {', '.join(known)}." if (known := group_fields(first)) else None,
            )
        result = tables.result(tally, judge=judge, silence=silence, input=source.name)
        if against is not None and other is not None:
            result["against"] = paired.compare(tally, other, name=against.name, draws=draws, seed=seed)
        if sink and ours:
            given = several.paths_of(source)
            folders = [(folder_of(file, given), count) for file, count in heard.files]
            shown: dict[str, Any] = {"figures": figures, "folders": folders}
            page.write(sink, result, ours, others=theirs, reports=reports, count=cases, seed=seed, **shown)
            sink.commit()
        if write_sample:
            write_sample()
    return result, summary or runner.Summary(), failures[0] if failures else None
