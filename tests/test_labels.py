"""Labels of the input beside ours: what is kept, what is asked, and the table of how they agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cxr_reason.cli import main
from cxr_reason.mining import labels
from cxr_reason.radiology import read
from cxr_reason.records import LABELS

HEADER = "study_id,report,No Finding,Cardiomegaly,Edema,pleural_effusion,Pneumothorax,Fracture\n"
AGREED = "1,The heart is enlarged. Small left pleural effusion. No pneumothorax.,,1.0,,1.0,0.0,\n"
DISPUTED = "2,The heart is enlarged. There is pulmonary edema. No pneumothorax.,,1,0,,0,\n"
SPANISH = "3,Cardiomegalia. Derrame pleural izquierdo. No se observa neumotorax en la radiografia.,,1,,1,0,\n"
ONLY_LABELS = "4,,,,1,-1,,0\n"
BLANKS = "5,The heart is normal in size. The lungs are clear. No pneumothorax.,1,,,,,\n"
NO_LABEL = "6,No pleural effusion.,,,,yes,,\n"
ALL = HEADER + AGREED + DISPUTED + SPANISH + ONLY_LABELS + BLANKS + NO_LABEL


def mined(folder: Path, table: str, *options: str) -> tuple[dict[str, list[dict]], str]:
    """The records of every study, and what was said on stderr."""
    (folder / "table.csv").write_text(table)
    result = CliRunner().invoke(main, ["mine", str(folder / "table.csv"), "--max-failed", "1", *options])
    assert result.exit_code == 0, result.stderr
    studies: dict[str, list[dict]] = {}
    for line in result.stdout.splitlines():
        record = json.loads(line)
        studies.setdefault(record["study_id"], []).append(record)
    return studies, result.stderr


def test_own_labels_decide_and_the_inputs_are_kept(tmp_path: Path) -> None:
    studies, _ = mined(tmp_path, ALL, "--findings")
    (record,) = studies["2"]
    assert record["labels"] == {"Cardiomegaly": 1, "Edema": 1, "Pneumothorax": 0}
    assert record["input_labels"] == {"Cardiomegaly": 1, "Edema": 0, "Pneumothorax": 0}
    assert "Cardiomegaly" not in record
    (unlabelled,) = studies["6"]
    assert "input_labels" not in unlabelled
    assert unlabelled["pleural_effusion"] == "yes"  # no label of ours: it passes through
    assert set(studies) == {"1", "2", "5", "6"}


def test_input_labels_decide_and_ours_are_kept(tmp_path: Path) -> None:
    studies, _ = mined(tmp_path, ALL, "--findings", "--labels", "input")
    (record,) = studies["2"]
    assert record["labels"] == {"Cardiomegaly": 1, "Edema": 0, "Pneumothorax": 0}
    assert record["own_labels"] == {"Cardiomegaly": 1, "Edema": 1, "Pneumothorax": 0}
    assert record["provenance"][0]["labels"] == "input"
    assert "report_source" not in record
    assert set(studies) == {"1", "2", "3", "4", "5"}  # 6 has a cell that is no label


def test_only_what_report_and_labels_agree_on_is_asked(tmp_path: Path) -> None:
    table = HEADER + "".join(f"{n}{DISPUTED[1:]}{n}x{BLANKS[1:]}" for n in range(10, 60))
    studies, _ = mined(tmp_path, table, "--labels", "input", "--open-ended")
    records = [record for found in studies.values() for record in found]
    disputed = [record for record in records if "x" not in record["study_id"]]
    claimed = {c["label"] for record in disputed for step in record["steps"] for c in step.get("findings", ())}
    assert claimed == {"Cardiomegaly", "Pneumothorax"}
    assert disputed
    assert not any("edema" in option for record in disputed for option in record["options"] or ())
    assert all("edema" not in step["text"] for record in disputed for step in record["steps"] if step["kind"] != "plan")
    # blanks deny nothing: nothing that has a label is asked about
    assert not any("pneumothorax" in record["question"] for record in records if "x" in record["study_id"])


@pytest.mark.parametrize(("study", "states"), [("3", {"present"}), ("4", {"present", "uncertain", "absent"})])
def test_what_has_no_readable_report_is_told_from_its_labels(tmp_path: Path, study: str, states: set[str]) -> None:
    studies, _ = mined(tmp_path, ALL, "--labels", "input", "--findings")
    (record,) = studies[study]
    assert record["report_source"] == "labels"
    assert record["own_labels"] == record["labels"]
    assert states <= {finding["status"] for finding in record["findings"]}


def test_a_film_is_not_called_normal_by_labels_that_say_nothing(tmp_path: Path) -> None:
    table = HEADER + "7,,1,,,,,\n8,,1,0,,0,0,\n"
    studies, _ = mined(tmp_path, table, "--labels", "input", "--negatives", "silent", "--tasks", "anomaly")
    assert studies == {}
    studies, _ = mined(tmp_path, table, "--labels", "input", "--tasks", "anomaly", "--definition", "chexpert")
    assert list(studies) == ["8"]


@pytest.mark.parametrize("value", [1, 0, -1])
def test_what_labels_say_is_read_back_as_these_labels(value: int) -> None:
    said = {label: value for label in LABELS if label not in ("No Finding", "Pleural Other")}
    found = read(labels.told(said)).labels
    found.pop("No Finding", None)
    assert found == said


def test_agreement_is_printed_for_every_label(tmp_path: Path) -> None:
    _, stderr = mined(tmp_path, ALL)
    lines = [line.split() for line in stderr.splitlines()]
    assert ["Edema", "present", "0", "1", "0", "0", "0.400"] in lines
    assert ["Cardiomegaly", "present", "2", "0", "0", "0", "0.400"] in lines
    assert "1 study with label cells that hold no label" in stderr


def test_rows_of_a_study_that_differ_are_refused(tmp_path: Path) -> None:
    table = HEADER + AGREED + AGREED.replace(",1.0,,1.0", ",0,,1.0")
    (tmp_path / "table.csv").write_text(table)
    why = tmp_path / "why.jsonl"
    options = ["--labels", "input", "--rejects", str(why), "--max-failed", "1"]
    assert CliRunner().invoke(main, ["mine", str(tmp_path / "table.csv"), *options]).exit_code == 0
    (reason,) = json.loads(why.read_text())["reasons"]
    assert reason == {"check": "labels", "message": "column 'Cardiomegaly' differs between the rows of the study."}


def test_input_labels_need_columns(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("study_id,report\n1,No effusion.\n")
    result = CliRunner().invoke(main, ["mine", str(tmp_path / "table.csv"), "--labels", "input"])
    assert result.exit_code == 1
    assert "no column has the name of one of CheXpert's labels" in result.stderr


def test_sex_and_age_are_kept_for_later_tables(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("study_id,PatientSex,age,report\n1,F,63,No pleural effusion.\n")
    made = CliRunner().invoke(main, ["mine", str(tmp_path / "table.csv"), "--findings"])
    record = json.loads(made.stdout)
    assert (record["sex"], record["age"]) == ("F", "63")
