"""What must hold whatever comes in, for films, readers, the engine and the reading of answers.

Each promise is a function that raises where it is broken. The property tests try them on inputs that hypothesis makes
up, `benchmarks/fuzz.py` on what a fuzzer finds its way with, and `test_corpus.py` on all that the fuzzer ever found.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxr_reason.errors import InputError
from cxr_reason.films.reading import decoded
from cxr_reason.films.refusal import FilmError
from cxr_reason.mining import miner
from cxr_reason.mining.settings import Settings
from cxr_reason.mining.tasks import Options
from cxr_reason.radiology import LEXICON, Finding, claims, read, verify
from cxr_reason.records import check
from cxr_reason.refining import study
from cxr_reason.refining.checks import CHECKS
from cxr_reason.rewards import judge
from cxr_reason.rewards.answers import read_answer
from cxr_reason.rewards.ratios import PARTS
from cxr_reason.streams import Input, Row

STATUSES = {"present", "absent", "uncertain"}
CERTAINTIES = {"definite", "probable", "possible", "differential"}
TIMES = {"current", "history", "resolved", "hypothetical"}
SIDES = {None, "left", "right", "bilateral"}
SEVERITIES = {None, "mild", "moderate", "severe", "mild-moderate", "moderate-severe", "mild-severe"}
CHANGES = {None, "new", "worse", "stable", "better", "resolved"}
ACUITIES = {None, "acute", "chronic", "old"}
SECTIONS = {"findings", "impression", "addendum", "preliminary", "body"}
REJECTIONS = {None, "empty", "language", "not-chest", "not-understood", "no-finding"}
VERDICTS = {"supported", "contradicted", "unverifiable"}
BASES = {"stated", "region", "silent"}
CHEXPERT = {
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
}  # fmt: skip


def check_finding(finding: Finding, text: str) -> None:
    assert finding.name in LEXICON.findings
    assert finding.label is None or finding.label in CHEXPERT
    assert finding.status in STATUSES
    assert finding.certainty in CERTAINTIES
    assert finding.time in TIMES
    assert finding.side in SIDES
    assert finding.severity in SEVERITIES
    assert finding.change in CHANGES
    assert finding.acuity in ACUITIES
    assert finding.size_mm is None or finding.size_mm >= 0
    start, end = finding.span
    assert 0 <= start < end <= len(text)
    fields = finding.as_dict()
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    assert {"name": finding.name, "status": finding.status}.items() <= fields.items()


# -------------------------------------------------------------------------------------------------------------- readers


def readers(data: bytes) -> None:
    """A file of any bytes gives rows, in order and the same when read again, each with its data or with why it has
    none; or InputError, the one way to refuse an input as a whole. JSON lines give a row for every line.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        rows = _rows(Path(file.name))
        assert rows == _rows(Path(file.name))
        if isinstance(rows, list):
            if data.startswith(b"{") and b"\r" not in data:
                lines = [line.decode("utf-8", "backslashreplace") for line in data.split(b"\n")]
                assert len(rows) == sum(bool(line.strip()) for line in lines)
            last = 0
            for row in rows:
                assert (row.data is None) != (row.error is None)
                assert row.line >= last  # items of an array may stand on one line
                last = row.line


def _rows(path: Path) -> list[Row] | str:
    with contextlib.closing(Input(path)) as source:
        try:
            return list(source.rows())
        except InputError as error:
            return error.what


# --------------------------------------------------------------------------------------------------------------- engine


def reads(text: str) -> None:
    """A report of any text is read within its bounds, twice the same."""
    reading = read(text)
    for finding in reading.findings:
        check_finding(finding, text)
        assert finding.section in SECTIONS
    end = 0
    for sentence in reading.sentences:
        assert end <= sentence.start <= sentence.end <= len(text)
        end = sentence.end
    assert set(reading.labels) <= CHEXPERT
    assert set(reading.labels.values()) <= {-1, 0, 1}
    assert 0.0 <= reading.understood <= 1.0
    assert reading.rejection in REJECTIONS
    if reading.rejection is not None:
        assert not reading.labels
        assert not reading.normal
    assert [finding.as_dict() for finding in read(text).findings] == [finding.as_dict() for finding in reading.findings]


def verifies(claim: str, report: str) -> None:
    """Any claim and any report have a verdict, a basis and spans."""
    for finding in claims(claim):
        check_finding(finding, claim)
    for asked, silence in itertools.product([claim, *claims(claim)[:3]], ["normal", "unknown"]):
        verdict = verify(asked, report, silence=silence)
        assert verdict.verdict in VERDICTS
        assert verdict.basis in BASES
        assert isinstance(verdict.reason, str)
        for start, end in verdict.spans:
            assert 0 <= start < end <= len(report)


SETTINGS = Settings({"study_id": "study_id", "report": "report"}, Options(open_ended=True, thinned=False))


def mines(report: str) -> None:
    """What is mined from any report is valid, `refine` gives a reason for what it rejects, and refining again changes
    nothing.
    """
    records = miner.mine(Row("reports", 2, {"study_id": "s", "report": report}), SETTINGS).records
    for record in records:
        assert not check(record)
        for step in record["steps"]:
            assert all(0 <= start < end <= len(record["report"]) for start, end in step.get("evidence", ()))
        kept = refines(record)
        if kept is not None:
            assert not check(kept)
            assert refines(kept) == kept


def refines(record: dict[str, Any]) -> dict[str, Any] | None:
    """`record` refined, None where it is rejected."""
    made = study.refine(
        Row("records", 1, record), checks=tuple(CHECKS), silence="normal", max_steps=24, max_chars=6000, config="c"
    )
    if made.records:
        assert not made.rejects
        return made.records[0]
    (rejected,) = made.rejects
    assert rejected.reasons
    return None


def engine(data: bytes) -> None:
    """All promises of the engine: the first line is a claim, the rest is a report."""
    claim, _, report = data.decode("utf-8", "replace").partition("\n")
    reads(report)
    verifies(claim, report)
    mines(report)


# -------------------------------------------------------------------------------------------------------------- answers


def answers(data: bytes) -> None:
    """Any prediction has an answer among the options, or none, and scores in [0, 1]: the first line holds the options
    between bars, the second the question, the third the report, and the rest is the prediction.
    """
    text = data.decode("utf-8", "replace")
    offered, question, report, prediction = (text.split("\n", 3) + [""] * 4)[:4]
    options = [option for option in offered.split("|") if option.strip()][:8]
    record = {
        "id": "r", "question": question, "options": options or None, "answer": "A" if options else "effusion",
        "report": report, "prediction": prediction, "steps": [{"text": report, "kind": "observe"}],
    }  # fmt: skip
    told = judge(record)
    letters = [chr(ord("A") + number) for number in range(len(options))]
    assert told["answer_read"] == (told["chosen"] is not None)
    if told["chosen"] is not None and options:
        assert told["chosen"] in letters
    assert 0.0 <= float(told["correct"]) <= 1.0
    for name in PARTS:
        assert told.get(name) is None or 0.0 <= told[name] <= 1.0, name
    for claim in told.get("claims") or ():
        assert all(0 <= start < end <= len(report) for start, end in claim["spans"])
    json.dumps(told, allow_nan=False)
    if options:
        for tagged in (None, prediction):
            assert read_answer(prediction, tagged, question=question, options=options).chosen in (None, *letters)


# ---------------------------------------------------------------------------------------------------------------- films


def films(data: bytes) -> None:
    """Any bytes are an upright 8-bit picture, or refused for one of our reasons."""
    with contextlib.suppress(FilmError):
        film = decoded(data, where="film")
        assert film.mode == "L"
        assert min(film.size) > 0
        assert not film.info


PROMISES: dict[str, Callable[[bytes], None]] = {
    "readers": readers, "engine": engine, "answers": answers, "films": films,
}  # fmt: skip
