"""Claims drawn for review: the sample, the sheet, the page, and two readers compared. All texts are our own."""

from __future__ import annotations

import csv
import io
import json
import stat
from collections import Counter
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Run

from cxr_reason import sheets
from cxr_reason.errors import InputError
from cxr_reason.radiology.verify import claims
from cxr_reason.refining import review, study
from cxr_reason.refining.checks import CHECKS
from cxr_reason.rewards import judge
from cxr_reason.rewards.readers import notes_of
from cxr_reason.samples import page
from cxr_reason.samples.draw import Sample
from cxr_reason.sheets import Answer, agreement, key_path, read_sheet
from cxr_reason.streams import Input

REPORT = "FINDINGS: Small left pleural effusion. The heart is normal in size. No pneumothorax."


def chain(number: int, side: str = "left", extra: str = "") -> dict[str, Any]:
    seen = f"There is a small {side} pleural effusion."
    return {
        "id": f"S{number:03}-binary",
        "study_id": f"{number:05}",
        "question": "Does this film show a pleural effusion?",
        "options": ["Yes", "No"],
        "answer": "A",
        "report": f"{REPORT} Film {number}.",
        "steps": ["Look along the chest wall.", f"{seen} {extra}".strip(), "The answer is A, Yes."],
    }


def chains() -> list[dict[str, Any]]:
    """Every third tells the wrong side, every fifth something that nobody mentioned."""
    return [
        chain(n, "right" if n % 3 == 0 else "left", "There is a rib fracture." if n % 5 == 0 else "") for n in range(60)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in chains()), encoding="utf-8")
    return path


SETTINGS: dict[str, Any] = {
    "checks": tuple(CHECKS), "silence": "normal", "max_steps": 24, "max_chars": 6000, "config": "x",
}  # fmt: skip


def drawn(source: Path, count: int = 12, *, seed: int = 0, by: tuple[str, ...] = ("finding", "verdict")) -> list[Any]:
    """The sample of the chains of `source`, nothing written."""
    sample = Sample(count, by=by, seed=seed)
    review.run(
        Input(source),
        partial(study.refine, **SETTINGS, review_seed=seed),
        sample,
        stage="refine",
        units=study.by_study,
        config={},
        dry_run=True,
    )
    return sample.chosen()


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


# ---------------------------------------------------------------------------------------------------------- the sample


def test_the_sample_is_spread_over_the_strata_and_has_what_is_rejected(source: Path):
    notes = drawn(source, 9)
    assert [note["row"] for note in notes] == list(range(1, 10))
    assert len({note["id"] for note in notes}) == 9
    strata = Counter(note["stratum"] for note in notes)
    assert strata == {
        "pleural effusion / supported": 3,
        "pleural effusion / contradicted": 3,
        "rib fracture / contradicted": 3,
    }
    assert {note["stratum"]: note["stratum_size"] for note in notes} == {
        "pleural effusion / supported": 40,
        "pleural effusion / contradicted": 20,
        "rib fracture / contradicted": 12,
    }
    wrong = [note for note in notes if note["verdict"] == "contradicted" and note["finding"] == "pleural effusion"]
    assert all(note["chain"] == "rejected" and note["checks"] == ["claims"] for note in wrong)


def test_the_sample_depends_on_the_seed_and_not_on_the_order(source: Path, tmp_path: Path):
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("".join(f"{json.dumps(record)}\n" for record in reversed(chains())), encoding="utf-8")
    assert drawn(mixed) == drawn(source) != drawn(source, seed=1)


def test_a_sample_larger_than_the_claims_takes_them_all_once(source: Path, tmp_path: Path):
    twice = tmp_path / "twice.jsonl"
    twice.write_text(source.read_text() * 2)
    assert len(drawn(source, 500)) == len(drawn(twice, 500)) == 72


def test_memory_is_that_of_the_sample():
    sample = Sample(20, by=("finding", "verdict"))
    every = [
        {"rank": hash((n, "x")) % 2**64, "finding": f"f{n % 30}", "verdict": "supported" if n % 7 else "contradicted",
         "report_id": "r", "record": str(n), "step": 1, "claim": 1}
        for n in range(5000)
    ]  # fmt: skip
    held = 0
    for note in every:
        sample.add([note])
        held = max(held, sum(map(len, sample.state()["held"].values())))
    assert held <= 20 + sample.strata
    least = sorted(every, key=lambda note: note["rank"])
    expected = {}
    for note in least:
        expected.setdefault((note["finding"], note["verdict"]), note["rank"])
    assert {note["rank"] for note in sample.chosen()} <= set(expected.values())


def test_a_run_that_was_killed_gives_the_same_files_and_keeps_its_journal_private(source: Path, tmp_path: Path):
    names = {"output": "out.jsonl", "sheet": "review.csv", "html": "review.html"}
    for folder in ("whole", "killed", "plain"):
        (tmp_path / folder).mkdir()

    def go(folder: str, stop: int | None = None, jobs: int = 1) -> None:
        paths = {name: tmp_path / folder / file for name, file in names.items()}
        options = {"stage": "refine", "units": study.by_study, "checkpoint_seconds": 0, "jobs": jobs}
        work = Stopping(stop)
        sample = Sample(10, by=("finding", "verdict", "chain"))
        review.run(Input(source), work, sample, config={}, **paths, **options)

    go("whole")
    for stop in (20, 45):
        with pytest.raises(KeyboardInterrupt):
            go("killed", stop)
        left = {path.name for path in (tmp_path / "killed").iterdir()}
        assert left == {"out.jsonl.partial", "out.jsonl.partial.json"}
        journal = tmp_path / "killed" / "out.jsonl.partial.json"
        assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    go("killed")
    go("plain", jobs=2)
    for file in (*names.values(), "review.key.csv"):
        whole = (tmp_path / "whole" / file).read_bytes()
        assert whole == (tmp_path / "killed" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


class Stopping:
    def __init__(self, stop: int | None) -> None:
        self.stop = stop

    def __call__(self, unit: Any) -> Any:
        if self.stop is not None and unit.key == f"{self.stop:05}":
            raise KeyboardInterrupt
        return study.refine(unit, **SETTINGS, review_seed=0)


# ----------------------------------------------------------------------------------------------------- the command line


def test_the_command_writes_sheet_key_and_page_beside_its_usual_output(cxr: Run, source: Path, tmp_path: Path):
    usual = cxr("refine", str(source))
    done = cxr("refine", str(source), "--sample", "6", "--sheet", "r.csv", "--html", "r.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == usual.stdout
    assert "6 claims drawn" in done.stderr
    rows, keys = rows_of(tmp_path / "r.csv"), rows_of(tmp_path / "r.key.csv")
    assert [row["id"] for row in rows] == [row["id"] for row in keys]
    assert all(row[column] == "" for row in rows for column in sheets.READERS_COLUMNS)
    assert {row["verdict"] for row in keys} == {"supported", "contradicted"}
    assert not {"basis", "reason", "chain", "checks", "stratum"} & rows[0].keys()  # readers are blind
    told = next(row for row in rows if row["status"] == "present" and row["finding"] == "pleural effusion")
    assert told["question"] == "Does this film show a pleural effusion? (A: Yes, B: No)"
    assert told["evidence"] == "Small left pleural effusion."
    assert told["statement"] in ("mild left pleural effusion: present", "mild right pleural effusion: present")
    silent = next(row for row in rows if row["finding"] == "rib fracture")
    assert silent["evidence"] == sheets.NO_EVIDENCE
    assert "Small left pleural effusion." in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_without_reports_no_word_of_them_is_written(cxr: Run, source: Path, tmp_path: Path):
    done = cxr("refine", "-q", str(source), "--sheet", "r.csv", "--html", "r.html", "--no-reports", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("r.csv", "r.html", "r.key.csv"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "S0" in text
        assert "heart is normal" not in text
        assert "Small left" not in text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--sample", "5"], "--sheet FILE"),
        (["--sheet", "r.csv", "--shard", "0/2"], "whole input"),
        (["--sheet", "r.csv", "--html", "./r.csv"], "file of their own"),
        (["--sheet", "r", "-o", "r.key.csv", "--format", "jsonl"], "r.key.csv asks for csv"),
        (["--sheet", "r.csv", "--rejects", "r.key.csv"], "file of their own"),
        (["--html", "-"], "stdout"),
        (["--sheet", "r.csv", "--stratify", "finding,mood"], "'mood'"),
    ],
)
def test_contradicting_options_are_usage_errors(cxr: Run, tmp_path: Path, options: list[str], problem: str):
    done = cxr("refine", *options, stdin=json.dumps(chain(1)) + "\n", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_none_and_a_missing_folder_is_told_before_the_work(cxr: Run, source: Path, tmp_path: Path):
    assert cxr("refine", str(source), "--sheet", "r.csv", "-n", cwd=tmp_path).returncode == 0
    done = cxr("refine", str(source), "--sheet", "no/r.csv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no/r.csv" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_too_many_unreadable_rows_leave_the_sheet_written(cxr: Run, source: Path, tmp_path: Path):
    source.write_text(source.read_text() + "torn\n" * 30)
    assert cxr("refine", str(source), "--sheet", "r.csv", cwd=tmp_path).returncode == 3
    assert len(rows_of(tmp_path / "r.csv")) == 50


# ----------------------------------------------------------------------------------------------------- sheet and page


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\uff1d"])
def test_no_cell_is_a_formula(source: Path, start: str):
    note = drawn(source, 1)[0] | {"question": f"{start}HYPERLINK(1)", "study": f"{start}1", "step_text": '=a";=b'}
    text = sheets.sheet([note]).decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["question"], row["study"]) == (f"'{start}HYPERLINK(1) (A: Yes, B: No)", f"'{start}1")
    assert row["step_text"] == "'=a\";=b"
    assert all(cell.startswith('"') for line in text.split("\r\n") if line for cell in line.split('","')[:1])
    for cell in row.values():
        assert not cell.startswith(tuple("=+-@\t\r"))


def test_readers_are_blind(source: Path):
    """What we make of the claims changes no byte of what they see."""
    notes = drawn(source, 9)
    others = [
        note
        | {"verdict": "unverifiable", "basis": "region", "reason": "?", "chain": "?", "checks": ["?"], "stratum": "?"}
        for note in notes
    ]
    assert sheets.sheet(notes) == sheets.sheet(others)
    assert page.page(notes) == page.page(others)
    assert sheets.key(notes) != sheets.key(others)


class Tags(HTMLParser):
    """What a page is made of; fails where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_one_file_that_asks_for_nothing(source: Path):
    notes = drawn(source, 12)
    hostile = '<script>alert("x")</script> & </mark>'
    notes[0] = notes[0] | {"report": f"{hostile} {notes[0]['report']}", "question": hostile, "step_text": hostile}
    text = page.page(notes).decode()
    tags = Tags(text)
    assert not tags.seen.keys() & {"script", "link", "img", "iframe", "form", "object"}
    assert tags.seen["li"] == 12
    assert all(link.startswith("#") and link[1:] in tags.ids for link in tags.links)
    assert tags.links
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert tags.text.count('alert("x")') >= 3  # report, question, step
    assert "This page holds report text." in tags.text


def test_the_page_marks_the_sentence_of_each_claim_in_its_report(source: Path):
    notes = [note for note in drawn(source, 12) if note["spans"]][:1]
    text = page.page(notes).decode()
    assert '<mark>Small left pleural effusion.</mark><sup><a href="#claim-' in text
    assert "<mark>The heart" not in text
    assert "The heart is normal in size." in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("There is a small left pleural effusion.", "mild left pleural effusion: present"),
        ("No large pleural effusion.", "large pleural effusion: absent"),
        ("Possible right pneumonia.", "right pneumonia: possible"),
        ("No pneumothorax.", "pneumothorax: absent"),
    ],
)
def test_claims_are_told_in_words(text: str, words: str):
    assert [review.in_words(claim) for claim in claims(text)] == [words]


# -------------------------------------------------------------------------------------------------------- filled sheets


def filled(source: Path, tmp_path: Path, verdicts: list[str], **cells: str) -> Path:
    """The sheet of a sample, its verdict column filled."""
    path = tmp_path / "filled.csv"
    path.write_bytes(sheets.sheet(drawn(source, len(verdicts))))
    rows = rows_of(path)
    for row, verdict in zip(rows, verdicts, strict=True):
        row |= {"verdict": verdict, **cells}
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(file.getvalue(), encoding="utf-8", newline="")
    return path


def test_a_filled_sheet_is_read(source: Path, tmp_path: Path):
    path = filled(source, tmp_path, [" Supported", "CONTRADICTED.", "u", ""], side_correct="Y", severity_correct=" no ")
    answers = read_sheet(path)
    assert [answer.verdict for answer in answers] == ["supported", "contradicted", "unverifiable", None]
    assert {(answer.side, answer.severity) for answer in answers} == {(True, False)}
    assert [answer.line for answer in answers] == [2, 3, 4, 5]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_make_of_a_sheet_is_understood(tmp_path: Path, encoding: str, delimiter: str):
    lines = [
        ["Comment", "ID", " Verdict ", "Side Correct", "mine"],
        ["nicht möglich, sagt er", "c1", "Supported", "TRUE", ""],
        ["", "", "", "", ""],
        ["a\nb", "c2", "n/a", "", "7"],
    ]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows(lines)
    path = tmp_path / "excel.csv"
    path.write_bytes(file.getvalue().encode(encoding))
    answers = read_sheet(path)
    assert [(answer.id, answer.verdict, answer.side) for answer in answers] == [
        ("c1", "supported", True),
        ("c2", None, None),
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("id,verdict\nc1,perhaps\n", ":2:verdict: this is no verdict"),
        ("id,verdict,side_correct\nc1,s,\nc2,s,left\n", ":3:side_correct: this is neither"),
        ("id,verdict\nc1,s\n,s\n", ":3:id: a row without its id"),
        ("id,verdict\nc1,s\nc2,s\nc1,u\n", ":4:id: the claim c1 stands in line 2 too"),
        ("id,judgement\nc1,s\n", ":1: there is no column 'verdict'"),
        ("id,verdict\nc1,s,x,y\n", ":2: 4 columns"),
    ],
)
def test_errors_name_line_and_column_and_quote_no_cell(tmp_path: Path, text: str, where: str):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_sheet(path)
    assert str(caught.value).startswith(f"{path}{where}")
    assert "perhaps" not in str(caught.value)
    if ":verdict:" in where:
        assert "supported, contradicted, unverifiable" in caught.value.what


def test_a_workbook_is_told_to_be_saved_as_csv(tmp_path: Path):
    path = tmp_path / "filled.xlsx"
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(InputError, match="Excel workbook"):
        read_sheet(path)


# ------------------------------------------------------------------------------------------------------------ agreement


def answers(verdicts: str, *, study: str = "S{}", finding: str = "edema", status: str = "present") -> list[Answer]:
    """One answer a letter: s, c, u or - for none."""
    names = {"s": "supported", "c": "contradicted", "u": "unverifiable", "-": None}
    return [
        Answer(f"c{n}", n + 2, study.format(n), finding, status, names[letter]) for n, letter in enumerate(verdicts)
    ]


def test_agreement_overall_by_finding_and_by_kind_of_claim():
    first = answers("sscus-")
    second = answers("scccss")
    second[3] = Answer("other", 5, "", "", "", "supported")
    told = agreement(first, second)
    assert (told.overall.n, told.overall.agreement) == (4, 0.75)
    assert told.overall.kappa == pytest.approx(0.5)  # 3 of 4; chance (3 * 2 + 1 * 2) / 16
    assert (told.unanswered, told.unmatched) == (1, 2)
    assert list(told.findings) == ["edema"]
    assert told.statuses == {"present": told.overall}
    mixed = [*answers("sc"), Answer("d", 9, "S9", "mass", "absent", "supported")]
    assert {name: kappa.n for name, kappa in agreement(mixed, mixed).findings.items()} == {"edema": 2, "mass": 1}
    with pytest.raises(InputError, match="no claim") as caught:
        agreement(answers("-"), answers("s"))
    assert "They share 1 claims" in str(caught.value)  # their ids are the same: it is the verdicts that lack
    with pytest.raises(InputError, match="ids must be the same"):
        agreement(answers("s"), [Answer("other", 5, "", "", "", "supported")])


def test_what_readers_say_yes_to():
    """Of chains that were kept our verdict is the same everywhere: what tells is the share that the reader supports."""
    key, reader = answers("s" * 20), answers("s" * 18 + "cu")
    told = agreement(reader, key)
    assert told.overall.kappa == 0
    assert (told.supported.first.n, told.supported.first.share) == (20, 0.9)
    assert told.supported.first.low is not None
    assert told.supported.first.low < 0.9 < (told.supported.first.high or 0)
    assert told.supported.second.share == 1
    assert told.supported.second.low == pytest.approx(0.025 ** (1 / 20))
    assert told.sides.first.share is None
    marked = [Answer(a.id, a.line, a.study, a.finding, a.status, a.verdict, a.line > 4, None) for a in reader]
    told = agreement(marked, marked[:10])
    assert (told.sides.first.n, told.sides.first.share) == (20, 0.85)
    assert told.sides.both is not None
    assert (told.sides.both.n, told.sides.both.agreement) == (10, 1.0)
    assert told.severities.both is None
    assert agreement(reader, key, draws=0).supported.first.low is None


def test_the_interval_is_seeded_narrows_with_more_studies_and_counts_studies_not_claims():
    few, many = (
        agreement(answers("sscc" * 5), answers("sccc" * 5)),
        agreement(answers("sscc" * 50), answers("sccc" * 50)),
    )
    for told in (few, many):
        assert told.overall.kappa == pytest.approx(0.5)
        assert told.overall.low is not None
        assert told.overall.high is not None
        assert -1 <= told.overall.low < 0.5 < told.overall.high <= 1
    width = lambda told: told.overall.high - told.overall.low  # noqa: E731
    assert width(many) < width(few) / 2
    assert agreement(answers("sscc" * 5), answers("sccc" * 5)) == few
    one = agreement(answers("sscc" * 50, study="S"), answers("sccc" * 50, study="S")).overall
    assert (one.kappa, one.low, one.high) == (pytest.approx(0.5), None, None)


def test_a_sheet_is_compared_with_its_key(cxr: Run, source: Path, tmp_path: Path):
    cxr("refine", "-q", str(source), "--sample", "9", "--sheet", "r.csv", cwd=tmp_path)
    keys = rows_of(tmp_path / "r.key.csv")
    rows = rows_of(tmp_path / "r.csv")
    for row, told in zip(rows, keys, strict=True):
        row["verdict"] = told["verdict"].upper()
    rows[0]["verdict"] = "unverifiable"
    with (tmp_path / "r.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    assert key_path(tmp_path / "r.csv") == tmp_path / "r.key.csv"
    told = agreement(read_sheet(tmp_path / "r.csv"), read_sheet(tmp_path / "r.key.csv"))
    assert (told.overall.n, told.overall.agreement) == (9, pytest.approx(8 / 9))
    assert told.unmatched == told.unanswered == 0


def test_the_examples_give_a_sheet(cxr: Run, tmp_path: Path):
    questions = cxr("mine", str(ROOT / "examples" / "reports.csv"), "-q").stdout
    done = cxr("refine", "-q", "--sheet", "r.csv", "--html", "r.html", stdin=questions, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "r.csv")) == 50
    assert Tags((tmp_path / "r.html").read_text(encoding="utf-8")).seen["li"] == 50


def test_claims_about_two_films_are_shown_beside_both_reports(tmp_path: Path):
    record = {
        "id": "T1", "study_id": "7", "task": "temporal", "question": "How has the left pneumothorax changed?",
        "options": ["Improved", "Stable", "Worse"], "answer": "A",
        "report": "No pneumothorax now. The heart is normal in size.",
        "prior_report": "A small left pneumothorax. The right lung is clear.",
        "steps": [
            {"text": "On the film before, a small left pneumothorax is seen.", "kind": "observe", "film": "prior"},
            {"text": "On the current film, there is no pneumothorax.", "kind": "observe"},
            {"text": "It was there before and is there no more, so the answer is A, Improved.", "kind": "conclude"},
        ],
    }  # fmt: skip
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    notes = drawn(path, 10)
    written = page.page(notes).decode()
    assert "The right lung is clear." in written
    assert "<mark>A small left pneumothorax.</mark>" in written
    assert "<mark>No pneumothorax now.</mark>" in written
    assert [note["statement"] for note in notes if "film before" in note["statement"]] != []
    assert [sheets.evidence(note) for note in notes] == [["A small left pneumothorax."], ["No pneumothorax now."]]
    assert "side_correct" in written
    assert "severity_correct" in written
    assert "right lung" not in page.page(notes, reports=False).decode()
    # The claims of a prediction are told likewise.
    prediction = "<think>On the film before, a small left pneumothorax is seen.</think><answer>A</answer>"
    [note] = notes_of(judge({**record, "prediction": prediction}))
    assert sheets.evidence(note) == ["A small left pneumothorax."]
