"""Splits that are apart: by patient, study and film, within a file and from other files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT

from cxr_reason.apart import Guard
from cxr_reason.cli import main

HEADER = "study_id,subject_id,split,path,report\n"
REPORT = "The heart is enlarged. No pleural effusion."


def row(study: str, patient: str, split: str, film: str = "") -> str:
    return f"{study},{patient},{split},{film},{REPORT}\n"


def mined(folder: Path, table: str, *options: str, exit_code: int = 0) -> tuple[list[str], dict[str, str], str]:
    """The studies kept, why the others were not, and stderr."""
    (folder / "table.csv").write_text(HEADER + table)
    rejects = folder / "why.jsonl"
    result = CliRunner().invoke(
        main, ["mine", str(folder / "table.csv"), "--findings", "--rejects", str(rejects), *options]
    )
    assert result.exit_code == exit_code, result.stderr
    kept = [json.loads(line)["study_id"] for line in result.stdout.splitlines()]
    refused = [json.loads(line) for line in rejects.read_text().splitlines()] if rejects.exists() else []
    return kept, {entry["id"]: entry["reasons"][0]["message"] for entry in refused}, result.stderr


def test_a_patient_belongs_to_the_split_in_which_they_come_first(tmp_path: Path) -> None:
    table = row("s1", "p1", "train") + row("s2", "p2", "test") + row("s3", "p1", "test") + row("s4", "p1", "training")
    kept, refused, stderr = mined(tmp_path, table)
    assert kept == ["s1", "s2", "s4"]
    assert refused == {"s3": f"The patient is in the split train already ({tmp_path}/table.csv:2)."}
    assert "1 study rejected: split" in stderr


def test_a_study_is_in_one_split(tmp_path: Path) -> None:
    table = row("s1", "p1", "train") + row("s1", "p1", "test") + row("s2", "", "train") + row("s3", "", "test")
    kept, refused, _ = mined(tmp_path, table + row("s2", "", "test"))
    assert kept == ["s2", "s3"]
    assert refused["s1"] == "The rows of the study are in different splits: test, train."
    assert refused["s2"] == f"The study is in the split train already ({tmp_path}/table.csv:4)."


def test_what_is_in_no_split_bars_nothing(tmp_path: Path) -> None:
    kept, _, _ = mined(tmp_path, row("s1", "p1", "") + row("s2", "p1", "test") + row("s3", "p1", "unknown"))
    assert kept == ["s1", "s2", "s3"]


def test_films_are_compared_by_content_where_asked(tmp_path: Path) -> None:
    for name, content in {"a.png": b"one", "b.png": b"one", "c.png": b"two"}.items():
        (tmp_path / name).write_bytes(content)
    table = row("s1", "p1", "train", "a.png") + row("s2", "p2", "test", "b.png") + row("s3", "p3", "train", "c.png")
    table += row("s4", "p4", "train", "c.png") + row("s5", "p5", "test", "none.png")
    assert mined(tmp_path, table)[0] == ["s1", "s2", "s3", "s4", "s5"]
    kept, refused, stderr = mined(tmp_path, table, "--check-films")
    assert kept == ["s1", "s3", "s4", "s5"]
    assert refused["s2"] == f"The film is in the split train already ({tmp_path}/table.csv:2)."
    assert "1 film comes up in more than one study" in stderr
    assert "1 film could not be read" in stderr


@pytest.mark.parametrize("records", [False, True])
def test_other_files_are_kept_apart(tmp_path: Path, records: bool) -> None:
    other = tmp_path / "train.csv"
    other.write_text(HEADER + row("s1", "p1", "") + row("s2", "", ""))
    if records:
        made = CliRunner().invoke(main, ["mine", str(other), "--findings"])
        other = tmp_path / "train.jsonl"
        other.write_text(made.stdout)
    table = row("s1", "p9", "") + row("s2", "p8", "") + row("s3", "p1", "") + row("s4", "p4", "")
    kept, refused, _ = mined(tmp_path, table, "--apart-from", str(other))
    assert kept == ["s4"]
    assert refused["s3"].startswith("The patient is in a file to be apart from already (")
    assert refused["s2"].startswith("The study is in a file to be apart from already (")


def test_shards_and_processes_bar_the_same(tmp_path: Path) -> None:
    splits = ("train", "test", "validate")
    table = "".join(row(f"s{n}", f"p{n * 7 % 40}", splits[n % 3]) for n in range(120))
    whole = mined(tmp_path, table)[0]
    assert 0 < len(whole) < 120
    halves = [set(mined(tmp_path, table, "--shard", f"{n}/2")[0]) for n in range(2)]
    assert halves[0] | halves[1] == set(whole)
    assert not halves[0] & halves[1]
    assert mined(tmp_path, table, "--jobs", "2")[0] == whole


def test_a_file_that_guards_nothing_is_an_error(tmp_path: Path) -> None:
    """Where a patient of the test set can't be told, they may be in training: that must not end with 0."""
    table = row("s1", "p1", "") + row("s2", "p2", "")
    for content, what in {
        HEADER + row("s9", "p9", "") + "s1,p1\n": "other.csv:3: --apart-from: this row can't be read",
        "name,text\nx,y\n": "other.csv:1: --apart-from: there is no patient_id or study_id that both",
        "image_path\na.png\n": "there is no patient_id or study_id that both",
        HEADER + row("", "", ""): "patient_id and study_id of this file are empty",
    }.items():
        (tmp_path / "other.csv").write_text(content)
        *_, stderr = mined(tmp_path, table, "--apart-from", str(tmp_path / "other.csv"), exit_code=1)
        assert what in stderr


def test_a_file_without_patients_is_said(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("study_id\ns1\n")
    kept, _, stderr = mined(
        tmp_path, row("s1", "p1", "") + row("s2", "p1", ""), "--apart-from", str(tmp_path / "other.csv")
    )
    assert kept == ["s2"]
    assert "other.csv is not compared by patient" in stderr


def test_the_encoding_is_that_of_the_other_files_too(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_bytes(f"{HEADER}s7,Müller,,,x\n".encode("cp1252"))
    (tmp_path / "in.csv").write_bytes(f"{HEADER}s1,Müller,,,{REPORT}\ns2,p2,,,{REPORT}\n".encode("cp1252"))
    line = ["mine", str(tmp_path / "in.csv"), "--findings", "--apart-from", str(tmp_path / "other.csv")]
    done = CliRunner().invoke(main, [*line, "--encoding", "cp1252"])
    assert done.exit_code == 0, done.stderr
    assert [json.loads(line)["study_id"] for line in done.stdout.splitlines()] == ["s2"]


def test_what_the_other_files_hold_is_part_of_the_run(tmp_path: Path) -> None:
    """A run that was killed goes on only while the test set is the same."""
    other = tmp_path / "other.csv"
    other.write_text(HEADER + row("s1", "p1", ""))
    before = Guard({}, apart_from=[str(other)]).as_dict()
    assert before == Guard({}, apart_from=[str(other)]).as_dict()
    other.write_text(HEADER + row("s2", "p2", ""))
    assert before != Guard({}, apart_from=[str(other)]).as_dict()


def test_films_of_an_archive_lie_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "openi"
    shutil.copytree(ROOT / "tests" / "layouts" / "openi", folder)
    line = ["mine", "--layout", "openi", str(folder), "--findings", "--check-films"]
    absent = CliRunner().invoke(main, line)
    assert "could not be read" in absent.stderr
    for record in map(json.loads, absent.stdout.splitlines()):
        for image in record.get("images", ()):
            film = folder / (image["path"] if isinstance(image, dict) else image)
            film.parent.mkdir(parents=True, exist_ok=True)
            film.write_bytes(str(film).encode())
    assert "could not be read" not in CliRunner().invoke(main, line).stderr
