"""RadRBench-CXR's layout: items of every published shape in, items out. All texts are our own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Run

from cxr_reason import radrbench, records
from cxr_reason.radrbench import from_item, is_item, to_item
from cxr_reason.runner import Result, run
from cxr_reason.streams import Input

JUDGEMENTS = ROOT.parent / "shared" / "data" / "openi_judgements"
PROMPT = (
    "\nLet's think step by step. Enclose the reasoning within <think></think> and the answer within <answer></answer>."
)

REPORT = "Findings: Small left pleural effusion. No pneumothorax. Impression: Small left effusion."
EARLIER = "Large left pleural effusion."

# An item of a baseline's evaluation file, with everything that such files have.
SINGLE: dict[str, Any] = {
    "image_path": ["7_front.png", "7_side.png"],
    "answer": "B",
    "answer_content": "small left pleural effusion",
    "dataset_name": "Image Classification",
    "item_id": "[Findings Summarization] [Ours] [7]Ours",
    "question": "Which finding is in this chest X-ray? Options:\nA) right pneumothorax\n"
    "B) small left pleural effusion\nC) cardiomegaly\nD) old rib fracture",
    "original_report": REPORT,
    "plan": {"pleural effusion": "Look at the costophrenic angles."},
    "reason_steps": [
        "Look at both costophrenic angles.",
        "There is a small left pleural effusion.",
        "Therefore, the answer is B, small left pleural effusion.",
    ],
    "pred": "The left angle is blunted.\n\n**B**",
    "correct": "yes",
    "gt_key_finding": {"key_conclusion": [{"observation": "left pleural effusion", "status": "present"}]},
    "pred_key_finding": {"key_conclusion": []},
    "recall_res": {"recalled_findings": [], "recalled_count": 0},
    "precision_res": {"correct_steps": [], "correct_count": 0},
    "efficiency": {"effective_steps": [], "effective_count": 0, "ineffective_count": 1},
}
# One of the model's own: no ids and no images, the prompt in the question, the whole chat in the prediction.
QUESTION = f"Does this chest X-ray show pleural effusion? Options:\nA) Yes\nB) No{PROMPT}"
BINARY: dict[str, Any] = {
    "question": QUESTION,
    "answer": "<answer> A </answer>",
    "pred": f"system\nBe helpful.\nuser\n{QUESTION}\nassistant\n<think> Fluid. </think><answer> A </answer>",
    "reason_steps": "Look at both angles. There is a small left pleural effusion. Thus, the answer is A, Yes.",
    "original_report": REPORT,
    "correct": "no",
}
TEMPORAL: dict[str, Any] = {
    "image_path": ["before.jpg", "now.jpg"],
    "answer": "C",
    "answer_content": "improving",
    "dataset_name": "reason Image Classification",
    "item_id": "[ours-t] [test-3]Ours-T",
    "question": "You are given two images: one reference image and one new image. Please identify the progression of "
    "pleural effusion. Options:\nA) stable\nB) worsening\nC) improving",
    "original_report1": EARLIER,
    "original_report2": "The left pleural effusion has decreased.",
    "original_report": f"Previous Report: {EARLIER}\nCurrent Report:The left pleural effusion has decreased.",
    "reason_steps": {"reason_steps": "The left pleural effusion has decreased. Thus, the answer is C, improving."},
    "pred": "",
}
OPEN = {
    **SINGLE,
    "question": "Which findings are in this chest X-ray?",
    "answer": "small left pleural effusion",
}


def test_an_item_becomes_a_record():
    record = from_item(SINGLE)
    assert record["question"] == "Which finding is in this chest X-ray?"
    assert record["options"] == [
        "right pneumothorax",
        "small left pleural effusion",
        "cardiomegaly",
        "old rib fracture",
    ]
    assert (record["answer"], record["task"], record["report"]) == ("B", "single", REPORT)
    assert record["study_id"] == SINGLE["item_id"]
    assert record["id"].startswith(SINGLE["item_id"])
    assert record["images"] == ["7_front.png", "7_side.png"]
    assert [step["text"] for step in record["steps"]] == SINGLE["reason_steps"]
    assert (record["prediction"], record["correct"]) == (SINGLE["pred"], True)
    for name in ("dataset_name", "plan", *radrbench.JUDGEMENTS):
        assert record[name] == SINGLE[name]
    assert [problem for problem in records.check(record) if "kind is missing" not in problem] == []


def test_prompt_chat_tags_and_paragraphs_of_the_models_own_files_are_taken_off():
    record = from_item(BINARY)
    assert (record["question"], record["options"]) == ("Does this chest X-ray show pleural effusion?", ["Yes", "No"])
    assert (record["answer"], record["task"], record["correct"]) == ("A", "binary", False)
    assert record["prediction"] == "<think> Fluid. </think><answer> A </answer>"
    assert len(record["steps"]) == 3
    assert "study_id" not in record
    assert (
        record["id"]
        == from_item({**BINARY, "pred": "else"})["id"]
        != from_item({**BINARY, "original_report": "x"})["id"]
    )


def test_of_two_reports_and_two_films_the_first_is_the_prior():
    for item in (TEMPORAL, {name: TEMPORAL[name] for name in TEMPORAL if not name.endswith(("1", "2"))}):
        record = from_item(item)
        assert (record["task"], record["prior_report"]) == ("temporal", EARLIER)
        assert record["report"] == "The left pleural effusion has decreased."
        assert record["images"] == [{"path": "before.jpg", "role": "prior"}, {"path": "now.jpg", "role": "current"}]
        assert (len(record["steps"]), record["prediction"]) == (2, "")


def test_questions_of_one_study_share_the_study_and_not_the_id():
    other = {**TEMPORAL, "question": TEMPORAL["question"].replace("pleural effusion", "edema")}
    one, two = from_item(TEMPORAL), from_item(other)
    assert one["study_id"] == two["study_id"] == TEMPORAL["item_id"]
    assert one["id"] != two["id"]


@pytest.mark.parametrize(
    ("question", "answer", "task"),
    [
        ("Which findings are in this film? Options:\nA) mass\nB) effusion, mass", "A", "multiple"),
        ("Which finding is in this film? Options:\nA) mass, right\nB) effusion, left", "A", "single"),
        ("What is seen? Options:\nA) mass; effusion\nB) effusion; edema\nC) normal", "A", "multiple"),
        ("What is seen? Options:\nA) mass\nB) effusion", "A", "single"),
        ("Is this film normal? Options: A) Normal B) Abnormal", "A", "anomaly"),
        ("How did the edema change? Options:\n(A) improved\n(B) unchanged\n(C) worse", "A", "temporal"),
        ("Is there edema? Options:\nYes\nNo", "A", "binary"),
        ("Is there edema?", "No", "binary"),
        ("Which findings are in this chest X-ray?", "mass, effusion", "multiple"),
        ("What is the one finding?", "mass", "single"),
    ],
)
def test_the_task_is_told_from_the_question(question, answer, task):
    record = from_item({"question": question, "answer": answer, "item_id": 5})
    assert (record["task"], record["id"]) == (task, "5")
    assert (record["options"] is None) is ("Options" not in question)


@pytest.mark.parametrize(
    ("answer", "content", "letter"),
    [
        ("B", None, "B"), ("b) ", None, "B"), ("<answer> B </answer>", None, "B"), ("Mass", None, "B"),
        ("", "mass", "B"), ("E", None, "E"), ("nodule", "mass", "B"), ("nodule", None, "nodule"),
    ],
)  # fmt: skip
def test_an_answer_is_a_letter_a_tagged_letter_or_the_options_text(answer, content, letter):
    item = {"question": "Which? Options:\nA) effusion\nB) mass", "answer": answer, "answer_content": content}
    assert from_item(item)["answer"] == letter


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        (["One.", "Two."], ["One.", "Two."]),
        ("", None),
        ([], None),
        ("Seen by Dr. Smith, no. 3. There are 2 nodules, e.g. here. So: A.", None),
        ('```json\n{"reason_steps": ["One.", "Two."]}\n```', ["One.", "Two."]),
        ({"reason_step": "One. Two."}, ["One.", "Two."]),
        ('{"reason_steps": ["One.", "Two', None),
        (["One.", None], None),
        (7, None),
    ],
)
def test_steps_come_as_lists_texts_objects_and_json(given, texts):
    record = from_item({"question": "Which?", "pred": "", "reason_steps": given})
    if given and isinstance(given, str) and "Smith" in given:
        texts = ["Seen by Dr. Smith, no. 3.", "There are 2 nodules, e.g. here.", "So: A."]
    assert [step["text"] for step in record.get("steps", [])] == (texts or [])
    assert record.get("reason_steps") == (given or None if texts is None else None)  # what can't be read stays


@pytest.mark.parametrize("item", [SINGLE, BINARY, TEMPORAL, OPEN])
def test_there_and_back_keeps_what_the_layout_holds(item):
    record = from_item(item)
    again = from_item(json.loads(json.dumps(to_item(record))))
    assert again == {**record, "dataset_name": record.get("dataset_name", "Image Classification")}
    if item in (SINGLE, OPEN):
        assert to_item(record) == item
    else:
        assert to_item(record)["original_report"].replace(": ", ":") == item["original_report"].replace(": ", ":")


def test_any_item_gives_a_record():
    for value in (None, 5, "", "x", [], [1], {}, {"a": []}, True):
        for name in SINGLE:
            assert isinstance(from_item({**SINGLE, name: value}), dict)
            assert isinstance(from_item({**TEMPORAL, name: value}), dict)


def test_records_are_no_items():
    assert all(map(is_item, (SINGLE, BINARY, TEMPORAL, OPEN)))
    assert not is_item({"question": "Which?", "report": REPORT, "pred": "x", "item_id": 3})
    assert not is_item({"original_report": REPORT})
    with pytest.raises(ValueError, match="question"):
        to_item({"id": "a", "report": REPORT})


def test_refine_judges_items_like_anybodys_chains(cxr: Run, tmp_path: Path):
    wrong = {**SINGLE, "reason_steps": [text.replace("left", "right") for text in SINGLE["reason_steps"]]}
    silent = {**SINGLE, "reason_steps": "", "item_id": "[x] [9]"}
    path = tmp_path / "items.json"
    path.write_text(json.dumps([SINGLE, BINARY, TEMPORAL, OPEN, wrong, silent], indent=1), encoding="utf-8")
    done = cxr("refine", str(path), "--rejects", str(tmp_path / "rejects.jsonl"))
    assert done.returncode == 0, done.stderr
    kept = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["task"] for record in kept] == ["single", "binary", "temporal", "multiple"]
    assert all(step["verdict"] == "supported" for record in kept for step in record["steps"] if "verdict" in step)
    assert kept[0]["efficiency"] == SINGLE["efficiency"]
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [reject["reasons"][-1]["check"] for reject in rejects] == ["claims", "record"]
    lines = "".join(f"{json.dumps(item)}\n" for item in (SINGLE, BINARY, TEMPORAL, OPEN, wrong, silent))
    assert cxr("refine", "-q", stdin=lines).stdout == done.stdout


# ---------------------------------------------------------------------------------------------------------- written


def test_mine_writes_a_benchmark_that_refine_reads(cxr: Run, tmp_path: Path):
    reports = str(ROOT / "examples" / "reports.csv")
    plain = cxr("mine", reports, "-q", "--split", "test")
    bench = tmp_path / "bench.json"
    assert cxr("mine", reports, "-q", "--split", "test", "--format", "radrbench", "-o", str(bench)).returncode == 0
    items = json.loads(bench.read_text(encoding="utf-8"))
    ours = [json.loads(line) for line in plain.stdout.splitlines()]
    assert [from_item(item)["task"] for item in items] == [record["task"] for record in ours]
    assert items == [to_item(record) for record in ours]
    assert len(bench.read_text(encoding="utf-8").splitlines()) == len(items) + 2
    assert [row.data for row in Input(bench).rows()] == items
    refined = cxr("refine", str(bench), "-q", "--format", "radrbench")
    assert [item["item_id"] for item in json.loads(refined.stdout)] == [record["id"] for record in ours]


@pytest.mark.parametrize("name", ["out.json", "out.json.gz"])
def test_an_array_is_the_same_with_any_jobs_and_after_a_kill(tmp_path: Path, name: str):
    source = tmp_path / "in.jsonl"
    lines = [json.dumps({**from_item(SINGLE), "id": str(n), "study_id": f"S{n}"}) for n in range(700)]
    source.write_text("\n".join(lines) + "\n")
    whole, parallel, killed = (tmp_path / folder / name for folder in ("whole", "parallel", "killed"))
    for path in (whole, parallel, killed):
        path.parent.mkdir()
    run(Input(source), Copy(), stage="copy", output=whole, output_format="radrbench")
    run(Input(source), Copy(), stage="copy", output=parallel, output_format="radrbench", jobs=2)
    for stop in (0, 300, 699):
        with pytest.raises(KeyboardInterrupt):
            run(
                Input(source), Copy(stop), stage="copy", output=killed, output_format="radrbench", checkpoint_seconds=0
            )  # fmt: skip
        assert not killed.exists()
    summary = run(Input(source), Copy(), stage="copy", output=killed, output_format="radrbench")
    assert summary.resumed
    assert whole.read_bytes() == parallel.read_bytes() == killed.read_bytes()
    text = gzip.decompress(whole.read_bytes()) if name.endswith("gz") else whole.read_bytes()
    assert [item["item_id"] for item in json.loads(text)] == [str(n) for n in range(700) if n % 3]


class Copy:
    """Gives its row back, but every third; stops the run at one of them."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop

    def __call__(self, row: Any) -> Result:
        number = int(row.data["id"])
        if number == self.stop:
            raise KeyboardInterrupt
        return Result([{**row.data, "study_id": "x"}] if number % 3 else [])


def test_an_array_of_nothing_is_an_array(cxr: Run):
    done = cxr("mine", "-q", "--tasks", "temporal", "--format", "radrbench", stdin="report\nThe lungs are clear.\n")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    done = cxr("mine", "--findings", "--format", "radrbench", stdin="report\nThe lungs are clear.\n")
    assert (done.returncode, done.stdout) == (2, "")


# ------------------------------------------------------------------------------------------------- the published files


@pytest.mark.skipif(not JUDGEMENTS.is_dir(), reason="the published evaluation files are not beside this checkout")
def test_the_published_evaluation_files_are_read_whole():
    shares = {}
    for path in sorted(JUDGEMENTS.glob("*/*.json")):
        items = [row.data for row in Input(path).rows()]
        assert items == json.loads(path.read_text(encoding="utf-8"))
        found = [from_item(item) for item in items if item and is_item(item)]
        assert len(found) == len(items)
        expected = "multiple" if "multi" in path.name else "single"
        assert {record["task"] for record in found} == {expected}
        with_options = "no_option" not in path.name
        assert all((record["options"] is not None and len(record["answer"]) == 1) is with_options for record in found)
        shares[path] = sum("steps" in record for record in found) / len(found)
    assert min(shares.values()) > 0.99
