"""The record's schema and its one canonical form."""

from __future__ import annotations

import json
import math
import re

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_reason import __version__, records

FULL = {
    "id": "s1-binary-effusion",
    "study_id": "s1",
    "patient_id": None,
    "split": "train",
    "task": "binary",
    "images": ["a.png", {"path": "b.dcm", "view": "LAT", "portable": False, "role": "prior"}],
    "question": "Is there a pleural effusion?",
    "options": ["Yes", "No"],
    "answer": "A",
    "report": "Small left effusion.",
    "findings": [
        {
            "name": "pleural effusion",
            "label": "Pleural Effusion",
            "status": "present",
            "certainty": "definite",
            "side": "left",
            "severity": "mild",
            "size_mm": 3.5,
            "calcified": False,
            "device": None,
            "span": [0, 19],
            "section": "findings",
        }
    ],
    "labels": {"Pleural Effusion": 1, "Pneumothorax": 0, "Edema": -1},
    "normal": False,
    "acute": None,
    "quality": [],
    "understood": 1.0,
    "steps": [{"text": "Look at the angles.", "kind": "plan", "basis": "stated", "evidence": [[0, 19]]}],
    "correct": True,
    "radrscore": 0.5,
    "provenance": [{"stage": "mine", "version": "0", "backend": "rules", "config": "0" * 12}],
    "anything": {"else": [1, None]},
}


def test_a_whole_record_has_no_problem():
    assert records.check(FULL) == []
    assert records.check({"id": "1"}) == []


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("id", None, "id is missing"),
        ("id", 7, "id must be text, not 7"),
        ("split", "dev", "split must be one of train, validate, test"),
        ("task", ["binary"], "task must be one of"),
        ("images", "a.png", "images must be a list, not a text"),
        ("images", [{"view": "PA"}], "images[0].path is missing"),
        ("images", [{"path": "a", "view": "sideways"}], "images[0].view must be one of PA, AP, LAT, other"),
        ("options", ["Yes", 2], "options[1] must be text, not 2"),
        ("answer", "C", "answer must be a letter of its 2 options"),
        ("answer", None, "answer must be a letter of its 2 options"),
        ("labels", {"Effusion": 1}, "labels: 'Effusion' is none of CheXpert's 14 labels"),
        ("labels", {"Edema": 2}, "labels.Edema must be 1"),
        ("labels", {"Edema": True}, "labels.Edema must be 1"),
        ("labels", {"Edema": None}, "labels.Edema must be 1"),
        ("normal", 0, "normal must be true or false, not 0"),
        ("understood", 1.5, "understood must be a number in [0, 1], not 1.5"),
        ("understood", math.nan, "understood must be a number in [0, 1], not NaN"),
        ("understood", True, "understood must be a number in [0, 1], not true"),
        ("findings", [{"name": "edema"}], "findings[0].status is missing"),
        ("findings", [{"name": "edema", "status": "maybe"}], "findings[0].status must be one of present"),
        ("findings", [{"name": "edema", "status": "absent", "span": [5, 2]}], "findings[0].span must be [start, end]"),
        ("findings", [None], "findings[0] must be an object, not null"),
        ("steps", [{"text": "x", "kind": "guess"}], "steps[0].kind must be one of plan, observe, conclude"),
        ("steps", [{"kind": "plan"}], "steps[0].text is missing"),
        (
            "steps",
            [{"text": "x", "kind": "plan", "findings": [{"name": 1, "status": "absent"}]}],
            "steps[0].findings[0]",
        ),
        ("correct", "yes", "correct must be a number in [0, 1], not a text"),
        ("provenance", None, "provenance must be a list, not null"),
    ],
)
def test_a_problem_names_its_field(field, value, problem):
    problems = records.check({**FULL, field: value})
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_numbers_beyond_any_float_are_numbers():
    assert records.check({"id": "1", "findings": [{"name": "edema", "status": "absent", "size_mm": 10**400}]}) == []
    assert records.check({"id": "1", "radrscore": 10**400}) != []


def test_open_questions_have_a_text_for_an_answer():
    assert records.check({**FULL, "options": None, "answer": "A small left pleural effusion."}) == []


def test_the_order_of_fields_is_fixed_and_unknown_ones_follow():
    shuffled = dict(sorted(FULL.items(), reverse=True))
    assert records.dumps(shuffled) == records.dumps(FULL)
    assert list(json.loads(records.dumps({"zebra": 1, "report": "x", "ant": 2, "id": "1"}))) == [
        *("id", "report", "zebra", "ant")
    ]


def test_one_line_of_compact_utf8():
    line = records.dumps({"id": "1", "report": "é\n\u2028 5 µm", "number": 12345678901234567890})
    assert line == '{"id":"1","report":"é\\n\u2028 5 µm","number":12345678901234567890}'
    broken = records.dumps({"id": "1", "report": "é \ud83d"})
    assert broken.isascii()
    assert records.loads(broken) == {"id": "1", "report": "é \ud83d"}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused_by_name(number):
    with pytest.raises(ValueError, match=r"^steps\[1\]\.size holds NaN"):
        records.dumps({"id": "1", "steps": [{"size": 1}, {"size": number}]})
    with pytest.raises(ValueError, match="is not JSON"):
        records.loads(json.dumps({"id": number}))


def test_nesting_without_end_is_refused():
    with pytest.raises(records.Refused, match="deeply"):
        records.loads("[" * 100_000)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text() | st.sampled_from(list(records.FIELDS)), values, max_size=6))
def test_any_object_survives_and_gets_an_opinion(record):
    line = records.dumps(record)
    assert records.loads(line) == record
    assert records.dumps(records.loads(line)) == line
    assert all(isinstance(problem, str) for problem in records.check(record))


def test_config_hashes_ignore_the_order_of_options():
    assert records.config_hash({"seed": 0, "tasks": ["a"]}) == records.config_hash({"tasks": ["a"], "seed": 0})
    assert records.config_hash({"seed": 0}) != records.config_hash({"seed": 1})
    assert len(records.config_hash({})) == 12


def test_a_stage_stamps_once():
    record = records.stamp({"id": "1"}, stage="mine", config="c" * 12, uncertain="exclude")
    assert record["provenance"] == [
        {"stage": "mine", "version": __version__, "backend": "rules", "config": "c" * 12, "uncertain": "exclude"}
    ]
    before = records.dumps(record)
    records.stamp(record, stage="mine", config="c" * 12, uncertain="exclude")
    assert records.dumps(record) == before
    records.stamp(record, stage="refine", config="d" * 12, model="some/model")
    assert [entry["stage"] for entry in record["provenance"]] == ["mine", "refine"]
    assert records.check(record) == []


def test_letters_and_options() -> None:
    options = ["edema", "pneumothorax", "mass"]
    assert [records.letter(number) for number in range(3)] == ["A", "B", "C"]
    assert [records.index_of(letter, options) for letter in ("A", "c", "D", "", "AB", "1", "\u00df", "\u00aa")] == [
        0, 2, None, None, None, None, None, None,
    ]  # fmt: skip


def test_the_documented_fields_and_columns_are_those_there_are():
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    table = text.split("## The fields of a record")[1]
    rows = re.findall(r"^\| `(\w+)` \| ((?:\w+, )*\w+) \| (.+) \|$", table, re.MULTILINE)
    told = [(name, field.stages, field.doc) for name, field in records.FIELDS.items()]
    assert [(name, tuple(stages.split(", ")), doc) for name, stages, doc in rows] == told
    assert f"has them: {len(records.FIELDS) + 1} columns" in text  # and `extra`
