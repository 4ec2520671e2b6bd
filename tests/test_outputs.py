"""Nothing is lost by a name: inputs, a colleague's sheet and other people's files are written over by no command."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from conftest import ROOT

from cxr_reason import cli
from cxr_reason.cli import COMMANDS, main
from cxr_reason.records import LABELS

REPORTS = ROOT / "examples" / "reports.csv"
PREDICTIONS = ROOT / "examples" / "predictions.jsonl"


def cxr(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.csv").write_bytes(REPORTS.read_bytes())
    (tmp_path / "p.jsonl").write_bytes(PREDICTIONS.read_bytes())
    (tmp_path / "link.csv").symlink_to(tmp_path / "r.csv")
    os.link(tmp_path / "r.csv", tmp_path / "hard.csv")
    (tmp_path / "notes.jsonl").write_text('{"note": "mine"}\n')
    cxr("mine", tmp_path / "r.csv", "-q", "-o", tmp_path / "q.jsonl")
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "mine r.csv --findings -o r.csv",
        "mine r.csv --findings -o link.csv",
        "mine link.csv --rejects hard.csv",
        "mine r.csv --rejects r.csv --force",
        "mine r.csv --join notes.jsonl:note -o notes.jsonl",
        "mine r.csv --apart-from notes.jsonl --rejects notes.jsonl",
        "refine q.jsonl -o q.jsonl",
        "refine q.jsonl --sheet q.jsonl",
        "score p.jsonl --html p.jsonl",
        "score p.jsonl --details p.jsonl",
        "score p.jsonl --against q.jsonl --rejects q.jsonl",
        "infer q.jsonl --ckpt tiny -o q.jsonl",
        "sft q.jsonl --model tiny -o model --rejects q.jsonl",
        "rl q.jsonl --ckpt tiny -o model --rejects q.jsonl",
        pytest.param("sft --mix q.jsonl=1 --model tiny -o model --rejects q.jsonl", id="a mix"),
    ],
)
def test_no_output_is_an_input(folder: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "is what is read here" in cxr(*line.split(), code=2).stderr
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


def test_stdin_is_an_input_too(folder: Path) -> None:
    with open(folder / "r.csv") as table:
        command = [sys.executable, "-m", "cxr_reason", "mine", "--findings", "-o", str(folder / "r.csv")]
        done = subprocess.run(command, stdin=table, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is what is read here" in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "mine r.csv -o new --rejects new",
        "refine q.jsonl -o new --sheet new",
        "refine q.jsonl --sheet new.csv --html new.key.csv",
        "score p.jsonl --details new --html new",
    ],
)
def test_no_two_outputs_are_one(folder: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert "each need a file of their own" in cxr(*line.split(), code=2).stderr


def test_devices_may_be_anything(folder: Path) -> None:
    cxr("mine", folder / "r.csv", "-q", "-o", os.devnull)


@pytest.mark.parametrize("option", ["-o", "--rejects", "--sheet", "--html"])
@pytest.mark.parametrize("content", ['{"note": "mine"}\n', "a,b\n1,2\n", "some text", "[1, 2]", "<!doctype html>\n"])
def test_what_is_not_from_cxr_is_replaced_only_by_force(folder: Path, option: str, content: str) -> None:
    notes = folder / "notes.txt"
    notes.write_text(content)
    line = ("refine", folder / "q.jsonl", "-q", option, notes)
    assert "isn't from cxr" in cxr(*line, code=2).stderr
    assert notes.read_text() == content
    cxr(*line, "--force")
    assert notes.read_text() != content


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.arrow", "out.arrow.gz", "out.parquet", "radrbench"])
def test_a_run_replaces_its_own_output(folder: Path, name: str) -> None:
    line = ["refine", folder / "q.jsonl", "-q", "-o", folder / name, "--rejects", folder / "why.jsonl"]
    line += ["--sheet", folder / "s.csv", "--html", folder / "page.html"]
    line += ["--format", "radrbench"] if name == "radrbench" else []
    cxr(*line)
    made = {path: path.read_bytes() for path in folder.iterdir()}
    cxr(*line)
    assert made == {path: path.read_bytes() for path in folder.iterdir()}
    cxr(*line, "--limit", "1")
    assert made != {path: path.read_bytes() for path in folder.iterdir()}


def test_details_and_page_are_replaced_and_other_stages_are_not(folder: Path) -> None:
    line = ("score", folder / "p.jsonl", "-q", "--details", folder / "d.jsonl", "--html", folder / "page.html")
    cxr(*line)
    cxr(*line)
    assert (
        "is from cxr score, and not from cxr mine"
        in cxr("mine", folder / "r.csv", "-o", folder / "d.jsonl", code=2).stderr
    )
    (folder / "empty").touch()
    cxr("mine", folder / "r.csv", "-q", "-o", folder / "empty")


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_sheet_that_a_reader_has_filled_stays(folder: Path, delimiter: str) -> None:
    sheet = folder / "anna.csv"
    line = ("refine", folder / "q.jsonl", "-q", "-o", folder / "c.jsonl", "--sample", "3", "--sheet", sheet)
    cxr(*line)
    blank = sheet.read_bytes()
    rows = blank.decode("utf-8-sig").split("\r\n")
    place = rows[0].split(",").index('"verdict"')
    cells = rows[2].rsplit(",", 5)
    assert rows[0].split(",")[place - 1 : place] == ['"reader"']
    rows[2] = ",".join([cells[0], '"Anna"', '"supported"', *cells[3:]])
    filled = "\r\n".join(rows)
    sheet.write_text(filled.replace('","', f'"{delimiter}"'), newline="")
    kept = sheet.read_bytes()
    (folder / "c.jsonl").unlink()
    assert "has been filled: 1 row of it is no longer blank" in cxr(*line, code=2).stderr
    assert sheet.read_bytes() == kept
    assert not (folder / "c.jsonl").exists()
    cxr(*line, "--force")
    assert sheet.read_bytes() == blank


def test_every_file_that_is_written_is_looked_at() -> None:
    """An option of a file that needn't exist is one that is written, and its command is one that looks."""
    for name in COMMANDS:
        command = cli.load(name)
        written = [param for param in command.params if isinstance(param.type, cli.OutFile)]
        assert isinstance(command, cli.Command) or not written
        for param in command.params:
            if isinstance(param, click.Option) and isinstance(param.type, click.Path) and param.type.file_okay:
                assert param.type.exists or param in written, (name, param.name)


@pytest.mark.parametrize("name", ["mine", "refine", "infer", "score", "sft", "rl"])
def test_the_shell_completes_inputs(name: str) -> None:
    found = ShellComplete(main, {}, "cxr", "_CXR_COMPLETE").get_completions([name], "quest")
    assert [(item.type, item.value) for item in found] == [("file", "quest")]


def test_the_shell_completes_lists() -> None:
    shell = ShellComplete(main, {}, "cxr", "_CXR_COMPLETE")
    assert [item.value for item in shell.get_completions(["mine", "--tasks"], "binary,")] == [
        f"binary,{task}" for task in ("single", "multiple", "anomaly", "temporal")
    ]
    assert [item.value for item in shell.get_completions(["refine", "--checks"], "claims,ans")] == ["claims,answer"]


def test_a_mapping_is_shown_as_it_was_typed() -> None:
    assert "'=uid': write FIELD=COLUMN" in cxr("mine", REPORTS, "--map", "=uid", code=2).stderr
    told = cxr("mine", REPORTS, "--map", "report=a", "--map", "report=b", code=2).stderr
    assert "'report' is given twice: a and b" in told


# ------------------------------------------------------------------------------------------------- a table of labels


def labels(folder: Path, name: str = "labels.csv", delimiter: str = ",") -> list[dict[str, str]]:
    with open(folder / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.mark.parametrize(("name", "delimiter"), [("labels.csv", ","), ("labels.tsv", "\t")])
def test_a_table_says_what_the_records_say(folder: Path, name: str, delimiter: str) -> None:
    cxr("mine", folder / "r.csv", "--findings", "-q", "-o", folder / name)
    made = [json.loads(line) for line in cxr("mine", folder / "r.csv", "--findings", "-q").stdout.splitlines()]
    rows = labels(folder, name, delimiter)
    assert list(rows[0]) == [
        *("id", "study_id", "patient_id", "split", "study_time"),
        *LABELS,
        *("normal", "acute", "understood"),
    ]
    assert len(rows) == len(made) > 3
    for row, record in zip(rows, made, strict=True):
        assert {label: int(row[label]) for label in LABELS if row[label]} == record["labels"]
        assert row["study_id"] == record["study_id"]
        assert row["acute"] == ("" if record["acute"] is None else str(int(record["acute"])))
        assert float(row["understood"]) == record["understood"]
        assert record["report"] not in str(row)
    states = {row[label] for row in rows for label in LABELS}
    assert states == {"", "0", "1", "-1"}


def test_a_table_runs_no_formula(folder: Path) -> None:
    rows = ['=HYPERLINK(1),"P,1"', "@x,-5"]
    (folder / "r.csv").write_text("study_id,patient_id,report\n" + "".join(f"{row},No effusion.\n" for row in rows))
    cxr("mine", folder / "r.csv", "--findings", "-q", "-o", folder / "labels.csv")
    assert [(row["study_id"], row["patient_id"]) for row in labels(folder)] == [
        ("'=HYPERLINK(1)", "P,1"),
        ("'@x", "'-5"),
    ]


@pytest.mark.parametrize("name", ["labels.csv", "labels.csv.gz"])
def test_a_table_is_the_same_in_parts_and_processes(folder: Path, name: str) -> None:
    line = ("mine", folder / "r.csv", "--findings", "-q", "-o")
    cxr(*line, folder / name)
    once = (folder / name).read_bytes()
    cxr(*line, folder / name)
    cxr(*line, folder / f"two-{name}", "--jobs", "2")
    assert once == (folder / name).read_bytes() == (folder / f"two-{name}").read_bytes()
    (folder / "empty.csv").write_text("study_id,report\nS1,Rodilla derecha.\n")
    cxr("mine", folder / "empty.csv", "--findings", "-q", "-o", folder / "none.csv")
    assert labels(folder, "none.csv") == []
    assert (folder / "none.csv").read_text().startswith("id,study_id,")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("mine r.csv -o out.csv", "out.csv asks for a table, which has a row a study and no questions"),
        ("mine r.csv -o out.TSV.gz", "asks for a table"),
        ("mine r.csv --format csv", "csv is a table"),
        ("mine r.csv --findings -o out.xlsx", "a workbook can't be written"),
        ("mine r.csv -o out.ods", "a workbook can't be written"),
        ("refine q.jsonl -o out.csv", "asks for a table"),
        ("infer q.jsonl --ckpt tiny -o out.csv", "asks for a table"),
        ("refine q.jsonl --format csv", "is not one of"),
    ],
)
def test_questions_are_no_table(folder: Path, line: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert what in cxr(*line.split(), code=2).stderr
    assert not list(folder.glob("out*"))
