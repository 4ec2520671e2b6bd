"""Records carry their reading under a seal, and share what they say of their study: quick, and never otherwise."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_reason import readings, records
from cxr_reason.mining import miner
from cxr_reason.mining.settings import Settings
from cxr_reason.radiology import Reading, read
from cxr_reason.refining.checks import CHECKS
from cxr_reason.refining.study import refine
from cxr_reason.streams import Group, Row

EXAMPLES = Path(__file__).parents[1] / "examples" / "reports.csv"
REPORT = "Small left pleural effusion. No pneumothorax. Endotracheal tube 4 cm above the carina. A 7 mm nodule."


COLUMNS = {"study_id": "study_id", "report": "report"}


def mined(report: str) -> list[dict[str, Any]]:
    """What mine makes of one report, as the next stage reads it."""
    made = miner.mine(Row("reports", 1, {"study_id": "s1", "report": report}), Settings(COLUMNS))
    return [json.loads(line) for line in records.dump_lines(made.records)]


def told(reading: Reading) -> list[Any]:
    facts = [vars(fact) for fact in reading.facts()]
    return [[vars(finding) for finding in reading.findings], facts, reading.labels, reading.normal, reading.acute]


def test_sealed_readings_are_the_engines_own() -> None:
    checked = 0
    with EXAMPLES.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for record in mined(row.get("report") or "")[:1]:
                reading = readings.sealed(record, record["report"])
                assert reading is not None
                assert told(reading) == told(read(record["report"]))
                checked += 1
    assert checked > 40


def test_what_was_changed_is_not_taken_from_the_record() -> None:
    record = mined(REPORT)[0]
    assert readings.sealed(record, record["report"]) is not None
    assert readings.sealed(record, record["report"].replace("left", "right")) is None
    other = copy.deepcopy(record)
    other["findings"][0]["side"] = "right"
    assert readings.sealed(other, other["report"]) is None
    assert readings.sealed(record | {"provenance": []}, record["report"]) is None


def test_another_engine_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    record = mined(REPORT)[0]
    monkeypatch.setattr(readings, "_engine", lambda: b"another")
    assert readings.sealed(record, record["report"]) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["id", "question", "report", "findings", "normal", "steps", "provenance", "site", "a"])
RECORDS = st.dictionaries(NAMES, VALUES, max_size=8)


@given(st.lists(RECORDS, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_lines_are_what_dumps_writes(made: list[dict[str, Any]], share: list[bool]) -> None:
    for before, record, alike in zip(made, made[1:], share, strict=False):
        if alike:
            record |= {name: before[name] for name in ("report", "findings") if name in before}
    assert b"".join(records.dump_lines(made)) == b"".join(records.dumps(record).encode() + b"\n" for record in made)


def outcome(loads: Any, line: str) -> Any:
    try:
        return repr(loads(line))  # repr tells 1 from 1.0 and from True, and the order of keys
    except ValueError as error:
        return type(error), str(error)


@given(st.lists(RECORDS, max_size=4))
def test_the_loader_reads_what_loads_reads(made: list[dict[str, Any]]) -> None:
    loader = records.Loader()
    for line in [records.dumps(record) for record in made for _ in range(2)]:
        assert outcome(loader, line) == outcome(records.loads, line)


@pytest.mark.parametrize(
    "line",
    [
        '{"id":"1","report":"a","steps":[]}',
        '{"id":"1","images":[{"path":"x","report":"a","steps":[]}],"answer":"A"}',
        '{"id":"1","question":"what,\\"report\\":","report":"a,\\"steps\\":","steps":[]}',
        '{"id":"1","report":"a","normal":NaN,"steps":[]}',
        '{"id":"1","report":"a"},"steps":[]}',
        '{"id":"1","report":"a","id":"2","steps":[],"report":"b"}',
        '{"id":"1","report":"a","steps":[',
        '{"id":"1" ,"report":"a" ,"steps":[] }',
        '[{"id":"1","report":"a","steps":[]}]',
    ],
)
def test_the_loader_is_not_misled(line: str) -> None:
    loader = records.Loader()
    for _ in range(2):
        assert outcome(loader, line) == outcome(records.loads, line)


def test_refine_makes_the_same_of_a_sealed_record_and_of_one_without_seal() -> None:
    settings: dict[str, Any] = {"silence": "normal", "max_steps": 24, "max_chars": 6000, "config": "0" * 12}
    checked = 0
    with EXAMPLES.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            given = mined(row.get("report") or "")
            bare = copy.deepcopy(given)
            for record in bare:
                del record["provenance"][0]["reading"]
            made = [
                refine(Group("s1", [Row("records", 1, record) for record in study]), checks=tuple(CHECKS), **settings)
                for study in (given, bare)
            ]
            sealed, unsealed = ([record["steps"] for record in result.records] for result in made)
            assert sealed == unsealed
            checked += len(sealed)
    assert checked > 80
