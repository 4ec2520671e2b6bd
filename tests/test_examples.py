"""The files under examples/ have the shape that examples/README.md promises."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
REPORT_COLUMNS = ["study_id", "patient_id", "study_time", "sex", "age", "view", "split", "report"]
HARD_COLUMNS = ["study_id", "trap", "report", "expected", "comment"]
CHEXPERT = {
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
}  # fmt: skip
VALUES: dict[str, set[Any]] = {
    "status": {"present", "absent", "uncertain"},
    "certainty": {"definite", "probable", "possible", "differential"},
    "time": {"current", "history", "resolved", "hypothetical"},
    "side": {"left", "right", "bilateral", None},
    "severity": {"mild", "moderate", "severe", None},
    "change": {"new", "worse", "stable", "better", "resolved", None},
    "acuity": {"acute", "chronic", "old", None},
    "conflict": {True, False},
    "calcified": {True, False},
}
REJECTIONS = {"empty", "language", "not-chest", "not-understood"}


def load(name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of an example file; a row keeps as many cells as it has."""
    with (EXAMPLES / name).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    return header, rows


HARD = [dict(zip(HARD_COLUMNS, row, strict=True)) for row in load("hard.csv")[1]]


def test_reports_are_an_archive_with_two_unreadable_rows() -> None:
    header, rows = load("reports.csv")
    assert header == REPORT_COLUMNS
    ragged = {row[0]: len(row) for row in rows if len(row) != len(header)}
    assert ragged == {"S0091": 3, "S0092": 11}
    # Both stand among good rows: a reader that gives up at one of them loses many others.
    assert not set(ragged) & {row[0] for row in [*rows[:20], *rows[-20:]]}

    good = [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
    assert len(good) == 90
    assert len({row["patient_id"] for row in good}) == 75
    assert len({row["study_id"] for row in good}) == len(good)
    for row in good:
        datetime.strptime(row["study_time"], "%Y-%m-%dT%H:%M")
        assert row["sex"] in {"F", "M"}
        assert row["age"] == "" or 0 <= int(row["age"]) <= 110
        assert row["view"] in {"PA", "AP", "LAT", ""}
        assert row["split"] in {"train", "validate", "test"}


def test_reports_of_a_patient_share_a_split_and_follow_each_other() -> None:
    header, rows = load("reports.csv")
    good = [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
    assert all(n == 1 for n in Counter(pid for pid, _ in {(r["patient_id"], r["split"]) for r in good}).values())
    studies = Counter(row["patient_id"] for row in good)
    assert sum(n >= 2 for n in studies.values()) >= 8
    assert sum(n >= 3 for n in studies.values()) >= 3
    for patient in studies:
        times = [row["study_time"] for row in good if row["patient_id"] == patient]
        assert times == sorted(set(times)), patient


def test_reports_vary_in_form() -> None:
    header, rows = load("reports.csv")
    texts = [row[-1] for row in rows if len(row) == len(header)]
    assert sum("\n" in text for text in texts) >= 25
    assert sum(text.isupper() for text in texts) >= 3
    assert sum(0 < len(text) < 60 for text in texts) >= 6
    assert sum(len(text) > 700 for text in texts) >= 2
    assert sum("addendum" in text.lower() for text in texts) >= 2
    assert all(any(mask in text for text in texts) for mask in ("XXXX", "___", "[**"))
    assert texts.count("") == 1
    assert max(Counter(texts).values()) >= 3, "template normals repeat word for word"


def test_hard_has_forty_reports_and_every_trap() -> None:
    header, rows = load("hard.csv")
    assert header == HARD_COLUMNS
    assert [row[0] for row in rows] == [f"H{number:02d}" for number in range(1, 41)]
    traps = Counter(int(row[1]) for row in rows)
    assert set(traps) == set(range(1, 11))
    assert min(traps.values()) >= 2
    assert len({row[2] for row in rows}) == 40


@pytest.mark.parametrize("row", HARD, ids=lambda row: row["study_id"])
def test_hard_expectations_are_well_formed(row: dict[str, str]) -> None:
    items = json.loads(row["expected"])
    assert items
    assert row["comment"]
    for item in items:
        if "rejection" in item:
            assert items == [item]
            assert set(item) == {"rejection"}
            assert item["rejection"] in REJECTIONS
        elif "labels" in item:
            assert set(item) == {"labels"}
            assert set(item["labels"]) <= CHEXPERT
            assert set(item["labels"].values()) <= {1, 0, -1, None}
        else:
            assert item["name"] == item["name"].strip().lower()
            assert "status" in item or item.get("never") is True
            fields = set(item) - {"name", "never", "bound", "device"}
            assert all(item[field] in VALUES[field] for field in fields), item
            if item.get("bound"):
                assert item["status"] == "absent", "only an absence has a bound"
