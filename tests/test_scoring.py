"""Tables, statistics, floors, comparisons and the page of `cxr score`. All texts are our own."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, Run, environment
from cxr_reason.commands.score import score as score_command
from playwright.sync_api import expect, sync_playwright

from cxr_reason.agreement import icc, pearson
from cxr_reason.errors import InputError
from cxr_reason.rewards import judge
from cxr_reason.scoring import compare, floors, metrics, page, paired, statistics, tables
from cxr_reason.scoring.tally import NAMED, OTHERS, Tally, cells, criticals, group_value, noted, task_of
from cxr_reason.sheets import read_sheet
from cxr_reason.sinks import opened
from cxr_reason.streams import record_id

EXAMPLES = ROOT / "examples"
PREDICTIONS = EXAMPLES / "predictions.jsonl"
HASTY = EXAMPLES / "predictions-hasty.jsonl"
REPORT = "Small left pleural effusion. The heart is not enlarged. No pneumothorax."


def record(**changes: Any) -> dict[str, Any]:
    return {
        "id": "q1",
        "study_id": "S1",
        "patient_id": "P1",
        "task": "binary",
        "question": "Does this film show a pleural effusion?",
        "options": ["No", "Yes"],
        "answer": "B",
        "report": REPORT,
        "steps": [
            {"text": "There is a small left pleural effusion.", "kind": "observe"},
            {"text": "There is no pneumothorax.", "kind": "observe"},
        ],
        "prediction": "<think>There is a left pleural effusion.</think><answer>B</answer>",
        "model": "sketch",
        **changes,
    }


def line(identity: str = "i1", *, task: str = "binary", patient: str | None = None, **changes: Any) -> dict[str, Any]:
    """A details line with numbers of our choice."""
    score = changes.pop("score", 0.5)
    told = dict.fromkeys(("factuality", "completeness", "coverage", "effectiveness", "radrscore"), score)
    about = {"patient_id": patient} if patient else {}
    return {
        "id": identity, "task": task, "options": ["No", "Yes"], "judge": "rules", "correct": True, "answer_read": True,
        **about, **told, "balanced_radrscore": score, "positive_factuality": None, "positive_completeness": None,
        "zero_denominators": [], "claims": [], "reference": [], "steps": [], "supports_answer": None, **changes,
    }  # fmt: skip


def claim(finding: str, status: str, verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "finding": finding,
        "status": status,
        "verdict": verdict,
        "side_error": False,
        "hedge_as_fact": False,
        **more,
    }


def fact(finding: str, status: str, state: str, urgency: str = "routine") -> dict[str, Any]:
    return {"finding": finding, "status": status, "state": state, "urgency": urgency}


def tally_of(lines: list[dict[str, Any]], **options: Any) -> Tally:
    by = options.pop("by", ())
    tally = Tally(**{"draws": 200, **options})
    tally.add(noted(one, by=by) for one in lines)
    return tally


def score_of(lines: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return tables.result(tally_of(lines, **options), judge="rules")


# --------------------------------------------------------------------------------------------------------- statistics


def test_poisson_weights_give_the_mean_and_its_standard_error() -> None:
    values = np.random.default_rng(1).random(400)
    replicates = statistics.Replicates(2000)
    for number, value in enumerate(values):
        replicates.add(f"p{number}", {("sum",): value, ("n",): 1.0})
    means = statistics.ratio(replicates.sums(("sum",)), replicates.sums(("n",)))
    assert means.mean() == pytest.approx(values.mean(), abs=0.002)
    assert means.std() == pytest.approx(values.std() / 20, rel=0.08)
    low, high = statistics.interval(means) or (0, 0)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_items_of_a_patient_are_drawn_together() -> None:
    """Ten copies of each value in one patient tell no more than one."""
    values = np.random.default_rng(2).random(60)
    alone, together, apart = (statistics.Replicates(1000) for _ in range(3))
    for number, value in enumerate(values):
        alone.add(f"p{number}", {("sum",): value, ("n",): 1.0})
        for copy in range(10):
            together.add(f"p{number}", {("sum",): value, ("n",): 1.0})
            apart.add(f"p{number}-{copy}", {("sum",): value, ("n",): 1.0})
    spread = [statistics.ratio(r.sums(("sum",)), r.sums(("n",))).std() for r in (alone, together, apart)]
    assert spread[1] == pytest.approx(spread[0], rel=1e-9)
    assert spread[2] == pytest.approx(spread[0] / np.sqrt(10), rel=0.15)


def test_replicates_are_the_same_in_any_order_and_after_a_pause() -> None:
    values = [(f"p{n % 70}", n / 7 % 1) for n in range(700)]
    whole, other = statistics.Replicates(300, seed=5), statistics.Replicates(300, seed=5)
    for patient, value in values:
        whole.add(patient, {("x", "sum"): value})
    for patient, value in reversed(values[300:]):
        other.add(patient, {("x", "sum"): value}, batch="another")
    resumed = statistics.Replicates(300, seed=5)
    resumed.restore(json.loads(json.dumps(other.state())))
    for patient, value in values[:300]:
        resumed.add(patient, {("x", "sum"): value})
    assert np.array_equal(whole.sums(("x", "sum")), resumed.sums(("x", "sum")))
    assert not np.array_equal(whole.sums(("x", "sum")), statistics.Replicates(300, seed=6).sums(("x", "sum")))


def test_the_permutation_test_agrees_with_all_permutations() -> None:
    differences = [0.5, 0.25, -0.125, 0.375, 0.0625, 0.25, -0.1875, 0.4375]
    flipped = statistics.Replicates(9999, kind="signs")
    for number, value in enumerate(differences):
        flipped.add(f"p{number}", {("d",): value})
    observed = sum(differences)
    every = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=8)]
    exact = sum(abs(one) >= abs(observed) - 1e-9 for one in every) / len(every)
    assert statistics.p_value(observed, flipped.sums(("d",))) == pytest.approx(exact, abs=0.01)
    assert statistics.p_value(99.0, flipped.sums(("d",))) == 1 / 10_000  # never 0


@pytest.mark.parametrize("each", [1, 5])
@pytest.mark.parametrize("value", [0, 1])
def test_a_share_of_all_or_none_has_an_interval_with_a_width(each: int, value: int) -> None:
    """Clopper and Pearson's of 30 of 30 begins at .8843; what stands 5 to a patient is worth no more than one."""
    replicates = statistics.Replicates(1000)
    for patient, _ in product(range(30), range(each)):
        replicates.add(f"p{patient}", {("n",): 1.0})
    low, high = statistics.exact(value, 30 * each, replicates.sums(("n",)))
    assert (low if value else 1 - high) == pytest.approx(0.8843, abs=0.01)
    assert (high if value else low) == value
    assert statistics.exact(0.5, 30, replicates.sums(("n",))) == (0.5, 0.5)


def test_an_interval_of_nothing_is_none() -> None:
    assert statistics.interval(np.full(10, np.nan)) is None


def test_icc_is_that_of_shrout_and_fleiss() -> None:
    """Table 2 of their paper of 1979: six targets, four judges, ICC(2,1) = .29."""
    ratings = [(9, 2, 5, 8), (6, 1, 3, 2), (8, 4, 6, 8), (7, 1, 2, 6), (10, 5, 6, 9), (6, 2, 4, 7)]
    assert icc(ratings) == pytest.approx(0.29, abs=0.005)
    assert icc([(1, 1), (2, 2), (3, 3)]) == pytest.approx(1)
    assert icc([(1, 1), (1, 1)]) is None
    assert pearson([(0, 1), (1, 3), (2, 5)]) == pytest.approx(1)
    assert pearson([(0, 1), (0, 3)]) is None


# -------------------------------------------------------------------------------------------------------------- tally


@pytest.mark.parametrize(
    ("claims", "reference", "expected"),
    [
        ([claim("pneumothorax", "present", "supported")], [fact("pneumothorax", "present", "told")], "tp"),
        ([], [fact("pneumothorax", "present", "missed")], "fn"),
        ([claim("pneumothorax", "absent", "contradicted")], [fact("pneumothorax", "present", "opposite")], "fn"),
        ([], [fact("pneumothorax", "absent", "missed")], "tn"),
        ([claim("pneumothorax", "present", "contradicted")], [fact("pneumothorax", "absent", "opposite")], "fp"),
        ([claim("pneumothorax", "uncertain", "contradicted")], [fact("pneumothorax", "absent", "named")], "fp"),
        ([claim("pneumothorax", "present", "contradicted")], [], "fp"),
        ([claim("pneumothorax", "absent", "supported")], [], "tn"),
        ([claim("pneumothorax", "absent", "contradicted")], [], "fn"),
        ([claim("pneumothorax", "present", "unverifiable")], [], None),
        ([claim("pneumothorax", "present", "supported")], [fact("pneumothorax", "uncertain", "named")], None),
        ([claim("pneumothorax", "present", "contradicted", side_error=True)], [], "tp"),
        ([], [fact("pneumothorax", "present", "told")], "tp"),  # by a kind of it
        ([claim("pneumothorax", "present", "contradicted", reported="present")], [], "tp"),  # of another severity
        ([claim("pneumothorax", "uncertain", "supported", reported="uncertain")], [], None),
        ([claim("pneumothorax", "present", "contradicted", reported="uncertain")], [], None),
    ],
)
def test_whether_a_finding_was_called_rightly(claims: list[Any], reference: list[Any], expected: str | None) -> None:
    assert cells(line(claims=claims, reference=reference)).get("pneumothorax") == expected


def test_regions_are_no_findings() -> None:
    assert cells(line(claims=[claim("lung abnormality", "absent", "supported")])) == {}


def test_critical_misses_and_false_criticals() -> None:
    missed = [fact("pneumothorax", "present", state, "critical") for state in ("missed", "opposite")]
    assert criticals(line(reference=missed)) == (["pneumothorax"], [])
    assert criticals(line(reference=[fact("pneumothorax", "present", "named", "critical")])) == ([], [])
    assert criticals(line(reference=[fact("pneumothorax", "absent", "missed", "critical")])) == ([], [])
    called = claim("pneumothorax", "present", "contradicted")
    assert criticals(line(claims=[called, claim("cardiomegaly", "present", "contradicted")])) == ([], ["pneumothorax"])
    assert criticals(line(claims=[{**called, "side_error": True}])) == ([], [])


@pytest.mark.parametrize(
    ("report", "said", "invented"),
    [
        ("Small left pneumothorax.", "There is a large left pneumothorax.", []),
        ("Left pneumothorax, larger than before.", "There is a left pneumothorax, which has decreased.", []),
        ("Left pneumothorax.", "There is a bilateral pneumothorax.", []),
        ("The left pneumothorax has resolved.", "There is a left pneumothorax.", ["pneumothorax"]),
        ("No pneumothorax.", "There is a left pneumothorax.", ["pneumothorax"]),
    ],
)
def test_what_is_there_in_another_way_is_no_false_critical(report: str, said: str, invented: list[str]) -> None:
    told = judge(record(report=f"{report} The heart is not enlarged.", prediction=said))
    assert [one["verdict"] for one in told["claims"]] == ["contradicted"]
    assert criticals(told) == ([], invented)
    assert cells({**told, "reference": []})["pneumothorax"] == ("fp" if invented else "tp")


def test_tasks_and_groups() -> None:
    assert task_of({"task": "single", "options": ["a", "b"]}) == "single"
    assert task_of({"task": "single", "options": None}) == "single, open"
    films = [{"path": "a.png", "view": "LAT", "role": "prior"}, {"path": "b.png", "view": "AP"}]
    assert group_value({"images": films}, "view") == "AP"
    assert group_value({"images": ["b.png"], "site": ""}, "site") == "(unknown)"
    assert group_value({"age": 0}, "age") == "0"


def test_a_tally_goes_on_from_its_state() -> None:
    lines = [
        line(f"i{n}", patient=f"P{n % 5}", task=("binary", "single")[n % 2], score=n / 30, site=n % 3)
        for n in range(30)
    ]
    whole = tally_of(lines, by=("site",), hold=True)
    half = tally_of(lines[:17], by=("site",), hold=True)
    other = Tally(draws=200, hold=True)
    other.restore(json.loads(json.dumps(half.state())))
    other.add(noted(one, by=("site",)) for one in lines[17:])
    assert tables.result(other, judge="rules") == tables.result(whole, judge="rules")
    assert other.held == whole.held


def test_memory_is_bounded() -> None:
    lines = [
        line(f"i{n}", site=f"s{n}", reference=[fact("pneumothorax", "present", "missed", "critical")])
        for n in range(1500)
    ]
    tally = tally_of(lines, by=("site",), draws=20)
    assert len(tally.missed) == NAMED
    assert tally.counts["missed"] == 1500
    assert len(tally.groups["site"]) < 50
    assert OTHERS in tally.groups["site"]
    assert not tally.held


def test_memory_is_bounded_whatever_a_record_holds() -> None:
    """Tasks, models and the answers of floors are texts of the input: each would cost columns of replicates."""
    tally = Tally(draws=5)
    for number in range(300):
        own = noted(line(f"i{number}", task=f"t{number}", model=f"m{number}", options=["x"]))
        told = {floors.LITANY: {"": {"accuracy": 0.0}}, floors.FREQUENT: {f"a{number}": {"accuracy": 1.0}}}
        tally.add([own | {"floors": told}, own | {"task": "one", "floors": told}])
    assert len(tally.sums) < 2000
    assert len(tally.state()["replicates"]["columns"]) < 2000
    score = tables.result(tally, judge="rules")
    assert score["items"] == sum(score["counts"]["items"].values()) == 600
    assert OTHERS in score["models"]
    assert OTHERS in score["tasks"]


# ------------------------------------------------------------------------------------------------------------- tables


def test_a_figure_is_the_mean_over_items_of_a_task_then_over_tasks() -> None:
    lines = [line(f"b{n}", score=1.0) for n in range(30)] + [line(f"s{n}", task="single", score=0.0) for n in range(20)]
    score = score_of(lines)
    assert score["tasks"]["binary"]["radrscore"]["value"] == 1
    assert score["overall"]["radrscore"]["value"] == 0.5
    assert score["all_items"]["radrscore"]["value"] == 0.6
    assert score["overall"]["radrscore"]["n"] == 50
    assert not score["overall"]["radrscore"]["few"]
    assert score["overall"]["radrscore"]["low"] <= 0.5 <= score["overall"]["radrscore"]["high"]


def test_figures_over_few_items_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    score = score_of([line(f"b{n}") for n in range(30)] + [line(f"s{n}", task="single") for n in range(19)])
    assert not score["tasks"]["binary"]["accuracy"]["few"]
    assert score["tasks"]["single"]["accuracy"]["few"]
    assert score["overall"]["accuracy"]["few"]
    tables.show(score, sys.stdout)
    shown = capsys.readouterr().out
    assert "1.000*" in shown
    assert "* over fewer than 20 items, or a mean over tasks one of which has fewer" in shown
    tables.show(score_of([line(f"b{n}") for n in range(30)]), sys.stdout)
    assert "*" not in capsys.readouterr().out


def test_what_cannot_be_judged_is_in_no_mean_and_counted() -> None:
    nothing = dict.fromkeys(
        ("factuality", "completeness", "coverage", "effectiveness", "radrscore", "balanced_radrscore")
    )
    lines = [line("a", score=0.8), line("b", correct=False, answer_read=False, **nothing)]
    lines.append(line("c", score=0.0, zero_denominators=["factuality"]))
    score = score_of(lines)
    assert score["tasks"]["binary"]["radrscore"]["value"] == 0.4
    assert score["tasks"]["binary"]["radrscore"]["n"] == 2
    assert score["tasks"]["binary"]["accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert score["counts"]["unjudged"] == {"binary": 1}
    assert score["counts"]["answers_unread"] == {"binary": 1}
    assert score["counts"]["zero_denominators"] == {"factuality": 1}


def test_findings_with_their_shares() -> None:
    lines = [line(f"tp{n}", reference=[fact("cardiomegaly", "present", "told")]) for n in range(6)]
    lines += [line(f"fn{n}", reference=[fact("cardiomegaly", "present", "missed")]) for n in range(2)]
    lines += [line("fp", claims=[claim("cardiomegaly", "present", "contradicted")])]
    lines += [line(f"tn{n}", reference=[fact("cardiomegaly", "absent", "told")]) for n in range(3)]
    told = score_of(lines)["findings"]["cardiomegaly"]
    assert (told["n"], told["tp"], told["fp"], told["tn"], told["fn"]) == (12, 6, 1, 3, 2)
    assert [told[share]["value"] for share in ("sensitivity", "specificity")] == [0.75, 0.75]
    assert told["ppv"]["value"] == pytest.approx(6 / 7, abs=1e-6)
    assert told["f1"]["value"] == 0.8
    assert told["sensitivity"]["low"] < 0.75 < told["sensitivity"]["high"]
    assert (told["sensitivity"]["n"], told["sensitivity"]["few"]) == (8, True)


def test_whether_patients_are_known_is_said() -> None:
    known, unknown = [line("a", patient="P1")], [line("b", study_id="S1"), line("c")]
    assert tables.clusters(score_of(known)) == "bootstrap over patients"
    assert tables.clusters(score_of(known + unknown)) == "bootstrap over patients; of 2 items the patient isn't known"
    assert tables.clusters(score_of(unknown)) == "bootstrap over studies: no patient is known"


def test_the_schema_is_that_of_the_docs() -> None:
    """docs/scoring.md names every key of the object, and no other."""
    lines = [line("a", patient="P1", claims=[claim("pneumothorax", "present", "contradicted")], sex="F")]
    score = score_of(lines, by=("sex",), hold=True)
    both = tally_of(lines, hold=True)
    score |= {
        "silence": "normal",
        "input": "-",
        "against": paired.compare(both, both, name="b", draws=50, permutations=99),
    }
    text = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- schema -->\n(.*?)<!-- end of schema -->", text, flags=re.S)
    assert table
    named = set(re.findall(r"^\| `(\w+)` \|", table[1], flags=re.M))
    assert named == set(score)
    figure = score["overall"]["accuracy"]
    assert set(figure) == {"value", "low", "high", "n", "few"}
    assert set(figure) <= set(re.findall(r"`(\w+)`", text))


# ------------------------------------------------------------------------------------------------------------- floors


def test_the_litany_denies_everything_and_answers_no() -> None:
    text = floors.litany(record())
    assert text.endswith("<answer>A</answer>")
    assert "There is no pneumothorax." in text
    judged = judge(record(prediction=text))
    assert judged["correct"] is False
    assert judged["positive_completeness"] == 0
    assert judged["factuality"] > 0.8  # what the published ratio pays for it
    assert floors.litany(record(options=["Worse", "Stable", "Improved"], task="temporal")).endswith(
        "<answer>B</answer>"
    )
    assert floors.litany(record(options=None)).endswith("<answer>No finding</answer>")


def test_the_most_frequent_answer_is_found_at_the_end() -> None:
    tally = Tally(draws=0)
    for number, right in enumerate(["yes", "yes", "no", "yes"]):
        note = noted(line(f"i{number}"))
        values = {answer: {"accuracy": float(answer == right)} for answer in ("no", "yes")}
        if number == 3:
            del values["no"]  # not offered
        note["floors"] = {floors.LITANY: {"": {"accuracy": float(right == "no")}}, floors.FREQUENT: values}
        tally.add([note])
    told = tables.result(tally, judge="rules")["floors"]
    assert told[floors.FREQUENT]["answers"] == {"binary": "yes"}
    assert told[floors.FREQUENT]["overall"]["accuracy"]["value"] == 0.75
    assert told[floors.LITANY]["overall"]["accuracy"]["value"] == 0.25


def test_floors_have_the_intervals_of_everybody() -> None:
    """A floor that gets what the model gets has the model's interval, whatever answers were tried beside it."""
    lines = [line(f"i{n}", patient=f"P{n // 3}", score=n % 7 / 7, correct=n % 3 == 0) for n in range(90)]
    tally = Tally(draws=300)
    for number, one in enumerate(lines):
        note = noted(one)
        tried = {"yes": note["values"]} | ({"no": {"accuracy": 0.0, "radrscore": 0.0}} if number % 2 else {})
        tally.add([note | {"floors": {floors.LITANY: {"": note["values"]}, floors.FREQUENT: tried}}])
    score = tables.result(tally, judge="rules")
    for floor in (floors.LITANY, floors.FREQUENT):
        assert score["floors"][floor]["overall"] == score["overall"]
        assert score["floors"][floor]["tasks"] == score["tasks"]
    assert score["overall"]["radrscore"]["low"] < score["overall"]["radrscore"]["high"]


def test_answers_that_may_be_the_most_frequent() -> None:
    assert floors.frequent(record()) == {"no": "<answer>A</answer>", "yes": "<answer>B</answer>"}
    assert list(floors.frequent(record(task="single", options=["x", "y", "z"]))) == ["A", "B", "C"]
    assert list(floors.frequent(record(options=None))) == list(floors.OPEN)


# ------------------------------------------------------------------------------------------------------ text metrics


def test_text_metrics_compare_the_reasoning_with_the_reference_chain() -> None:
    steps = [{"text": "There is a small left pleural effusion."}, "There is no pneumothorax."]
    chain = "There is a small left pleural effusion. There is no pneumothorax."

    def told(prediction: str | None) -> dict[str, float]:
        return metrics.values(["rouge", "bleu"], {"steps": steps, "prediction": prediction})

    assert told(f"<think>{chain}</think><answer>anything at all</answer>") == pytest.approx(
        {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0, "bleu": 1.0}
    )
    flipped = told(f"<think>{chain.replace('is no', 'is a')}</think><answer>B</answer>")
    assert 0.85 < flipped["rouge1"] < 1  # 10 of 11 words
    assert 0.5 < flipped["bleu"] < 1
    assert set(told("<answer>B</answer>").values()) == {0.0}
    assert told(None) == metrics.values(["rouge"], {"steps": None, "prediction": chain}) == {}


def test_text_metrics_are_figures_like_ours(cxr: Run, tmp_path: Path) -> None:
    details = tmp_path / "d.jsonl"
    files = ["--details", str(details), "--html", str(tmp_path / "page.html")]
    flags = ["--metrics", "rouge,bleu", "--by", "sex", "--against", str(HASTY)]
    done = cxr("score", str(PREDICTIONS), *flags, *files, "--json")
    assert done.returncode == 0, done.stderr
    score = json.loads(done.stdout)
    values = [one["text_metrics"]["rougeL"] for one in lines_of(details) if one["task"] == "anomaly"]
    assert score["tasks"]["anomaly"]["rougeL"]["value"] == pytest.approx(sum(values) / len(values), abs=1e-6)
    for name in ("rouge1", "rouge2", "rougeL", "bleu"):
        for figure in (score["overall"][name], score["against"]["overall"][name]):
            assert -1 < figure["low"] < figure["value"] < figure["high"] < 1
        assert 0 < score["groups"]["sex"]["F"][name]["value"] < 1
        assert score["floors"][floors.LITANY]["overall"][name]["value"] < score["overall"][name]["value"]
    assert "rougeL" in (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = cxr("score", str(details), "--metrics", "bleu").stdout
    assert "Text metrics" in shown
    assert "rougeL" not in shown  # that of an earlier run


def test_a_metric_that_is_not_there_says_what_to_install(cxr: Run) -> None:
    refused = cxr("score", str(PREDICTIONS), "--metrics", "meteor")
    assert refused.returncode == 2
    assert "radeval:radgraph" in refused.stderr
    if importlib.util.find_spec("radeval") is None:
        refused = cxr("score", str(PREDICTIONS), "--metrics", "rouge,radeval:bleu")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "radeval:bleu needs radeval" in refused.stderr
        assert re.search(r"pip install -c \S+ radeval\b", " ".join(refused.stderr.split()))


# ------------------------------------------------------------------------------------------------------------- paired


def held(values: list[float], task: str = "binary") -> Tally:
    return tally_of(
        [line(f"i{n}", patient=f"P{n}", task=task, score=value) for n, value in enumerate(values)], draws=0, hold=True
    )


def test_paired_differences() -> None:
    ours, theirs = held([0.5 + n % 5 / 10 for n in range(40)]), held([0.3 + n % 5 / 10 for n in range(40)])
    theirs.held["only theirs"] = ours.held.pop("i39")
    told = paired.compare(ours, theirs, name="b", draws=300, permutations=999)
    figure = told["overall"]["radrscore"]
    assert told["pairs"] == figure["n"] == 39
    assert figure["value"] == pytest.approx(0.2, abs=1e-6)
    assert figure["low"] is None  # always the same difference: no replicate differs
    assert figure["p"] == 0.001
    assert told["unmatched"]["ours"]["named"] == []
    assert told["unmatched"]["theirs"]["named"] == ["i39", "only theirs"]


def test_ids_that_came_before_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    twice = tally_of([line("a"), line("b"), line("a")], hold=True)
    told = paired.compare(twice, tally_of([line("a"), line("b")], hold=True), name="b", draws=20, permutations=19)
    assert told["repeated"] == {"ours": 1, "theirs": 0}
    tables.show({**score_of([line("a")]), "against": told}, sys.stdout)
    assert "ids that came before in ours, of which the last counts: 1" in capsys.readouterr().out


def test_models_that_differ_by_chance_are_not_told_apart() -> None:
    random = np.random.default_rng(3)
    ours, theirs = held(list(random.random(60))), held(list(random.random(60)))
    figure = paired.compare(ours, theirs, name="b", draws=500, permutations=999)["overall"]["radrscore"]
    assert figure["low"] < 0 < figure["high"]
    assert figure["p"] > 0.05


# ---------------------------------------------------------------------------------------------------------- agreement


def details_file(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    return path


def test_agreement_of_two_judges(tmp_path: Path) -> None:
    verdicts = ["supported", "contradicted", "supported", "supported"]
    other = ["supported", "contradicted", "contradicted", "supported"]
    first, second = (
        details_file(
            tmp_path / f"{name}.jsonl",
            [
                line(f"i{n}", score=n / 4, claims=[claim("cardiomegaly", "present", verdict, id=f"c{n}")])
                for n, verdict in enumerate(said)
            ],
        )
        for name, said in (("a", verdicts), ("b", other))
    )
    told = compare.agreement(first, second, draws=50)
    assert told["items"] == 4
    assert told["measures"]["radrscore"]["icc"] == 1
    assert told["claims"]["findings"]["cardiomegaly"]["n"] == 4
    assert told["claims"]["overall"]["agreement"] == 0.75
    assert told["claims"]["overall"]["kappa"] == 0.5
    with pytest.raises(InputError, match="no item in common"):
        compare.agreement(first, details_file(tmp_path / "c.jsonl", [line("x")]))
    with pytest.raises(InputError, match="no details line"):
        compare.agreement(first, PREDICTIONS)


# -------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def scored(cxr: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one whole run on the examples."""
    folder = tmp_path_factory.mktemp("scored")
    files = ["--details", str(folder / "details.jsonl"), "--html", str(folder / "page.html")]
    done = cxr("score", str(PREDICTIONS), "--against", str(HASTY), "--by", "sex,view", "--json", *files)
    assert done.returncode == 0, done.stderr
    (folder / "score.json").write_text(done.stdout, encoding="utf-8")
    return folder


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in path.read_text(encoding="utf-8").splitlines()]


def test_details_have_a_line_an_item_in_order(scored: Path) -> None:
    details, predictions = lines_of(scored / "details.jsonl"), lines_of(PREDICTIONS)
    assert [one["id"] for one in details] == [one["id"] for one in predictions]
    assert all(one["report"] and one["judge"] == "rules" and one["reference_steps"] for one in details)
    assert {path.name for path in scored.iterdir()} <= {"details.jsonl", "page.html", "score.json"}


def test_the_score_is_of_both_models_and_the_floors(scored: Path) -> None:
    score = json.loads((scored / "score.json").read_text())
    assert score["models"] == ["careful"]
    assert score["items"] == 72
    assert set(score["floors"]) == {floors.LITANY, floors.FREQUENT}
    assert score["against"]["pairs"] == 72
    assert score["against"]["overall"]["radrscore"]["value"] > 0
    balanced = score["overall"]["balanced_radrscore"]["value"]
    assert score["floors"][floors.LITANY]["overall"]["balanced_radrscore"]["value"] < min(0.4, balanced)
    assert set(score["groups"]["sex"]) == {"F", "M"}
    assert sum(score["counts"]["items"].values()) == 72


def test_details_can_be_scored_again(cxr: Run, scored: Path) -> None:
    again = cxr("score", str(scored / "details.jsonl"), "--by", "sex,view", "--json", "-q")
    first = json.loads((scored / "score.json").read_text())
    assert {**json.loads(again.stdout), "input": first["input"], "against": first["against"]} == first


def test_jobs_and_stdin_change_nothing(cxr: Run, scored: Path, tmp_path: Path) -> None:
    text = PREDICTIONS.read_text(encoding="utf-8")
    done = cxr(
        "score", "-", "--jobs", "2", "--by", "sex,view", "--details", str(tmp_path / "d.jsonl"), "--json", stdin=text
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d.jsonl").read_bytes() == (scored / "details.jsonl").read_bytes()
    score, first = json.loads(done.stdout), json.loads((scored / "score.json").read_text())
    assert score["tasks"] == first["tasks"]
    assert score["findings"] == first["findings"]


def test_several_files_are_one_input(cxr: Run, scored: Path, tmp_path: Path) -> None:
    """The shards of a run, in their order, an empty one among them: all as of the whole."""
    rows = PREDICTIONS.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in (("a", rows[:20]), ("b", rows[20:21]), ("c", []), ("d", rows[21:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    parts = [f"{name}.jsonl" for name in "abcd"]
    against = ["--against", str(HASTY), "--by", "sex,view"]
    done = cxr("score", *parts, *against, "--details", "d.details", "--html", "p.html", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "c.jsonl is empty" in done.stderr
    assert (tmp_path / "d.details").read_bytes() == (scored / "details.jsonl").read_bytes()
    assert (tmp_path / "p.html").read_bytes() == (scored / "page.html").read_bytes()
    score, first = json.loads(done.stdout), json.loads((scored / "score.json").read_text())
    assert score == {**first, "input": ", ".join(parts)}
    flags = ["--against", "d.jsonl", "--against", "a.jsonl", "--json"]
    turned = cxr("score", "a.jsonl", "b.jsonl", "a.jsonl", *flags, cwd=tmp_path)
    assert json.loads(turned.stdout)["against"]["pairs"] == 20
    assert "about 20 ids came before" in turned.stderr


def test_questions_without_a_prediction_are_an_error(cxr: Run, tmp_path: Path) -> None:
    records = lines_of(PREDICTIONS)[:3]
    some = tmp_path / "some.jsonl"
    some.write_text(
        "".join(json.dumps({**r, "prediction": r["prediction"] if n else None}) + "\n" for n, r in enumerate(records))
    )
    assert cxr("score", "-q", str(some)).returncode == 0
    none = tmp_path / "none.jsonl"
    none.write_text("".join(json.dumps({**r, "prediction": None}) + "\n" for r in records))
    done = cxr("score", str(none))
    assert done.returncode == 1
    assert "no record has a `prediction`" in done.stderr
    assert "cxr infer" in done.stderr
    assert done.stdout == ""


def test_groups_by_a_field_that_no_record_has(cxr: Run, tmp_path: Path) -> None:
    records = [{**r, "Station": "ICU"} for r in lines_of(PREDICTIONS)[:4]]
    source = details_file(tmp_path / "p.jsonl", records)
    told = json.loads(cxr("score", "-q", str(source), "--by", "station", "--json").stdout)
    assert list(told["groups"]["station"]) == ["ICU"]
    done = cxr("score", "-q", str(source), "--by", "ward,Station")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--by ward" in done.stderr
    assert "Station" in done.stderr
    assert "sex" in done.stderr
    assert "report" not in done.stderr


def test_items_that_figures_rest_on(cxr: Run, tmp_path: Path) -> None:
    """A reader has judged few claims: what the figures of reasoning rest on stands beside them."""
    sheet, own = tmp_path / "claims.csv", tmp_path / "filled.csv"
    assert cxr("score", "-q", str(PREDICTIONS), "--sample", "8", "--sample-sheet", str(sheet)).returncode == 0
    filled(sheet, own)
    shown = cxr("score", "-q", str(PREDICTIONS), "--judge", "sheet", "--sheet", str(own)).stdout
    assert re.search(r"^task +items +judged +accuracy", shown, re.MULTILINE)
    assert re.search(r"^part +items +mean", shown, re.MULTILINE)
    assert re.search(r"^accuracy +72 ", shown, re.MULTILINE)
    plain = cxr("score", "-q", str(PREDICTIONS), "--draws", "0").stdout
    assert re.search(r"^task +items +accuracy", plain, re.MULTILINE)


def test_no_interval_has_no_width(scored: Path) -> None:
    def widths(told: Any) -> list[float]:
        if isinstance(told, dict):
            own = [told["high"] - told["low"]] if told.get("low") is not None else []
            return own + [width for value in told.values() for width in widths(value)]
        return []

    found = widths(json.loads((scored / "score.json").read_text()))
    assert len(found) > 100
    assert min(found) > 0


def test_the_tables_of_agreement(cxr: Run, tmp_path: Path) -> None:
    sheet, blank, own = tmp_path / "claims.csv", tmp_path / "blank.CSV", tmp_path / "filled.csv"
    cxr("score", "-q", str(PREDICTIONS), "--sample", "60", "--sample-sheet", str(sheet))
    blank.write_bytes(sheet.read_bytes())
    filled(sheet, own)
    shown = cxr("score", "--agreement", str(tmp_path / "claims.key.csv"), str(own)).stdout
    assert re.search(r"^By finding \(the 20 most frequent; \d+ more in --json\)$", shown, re.MULTILINE)
    assert "By what the claim says" in shown
    assert "without a verdict in one" in shown
    assert re.search(r"^claim supported +\S*filled.csv +60 +1\.000 ", shown, re.MULTILINE)
    assert re.search(r"\d\.\d{3}\*", shown)
    assert "over fewer than 20 claims" in shown
    refused = cxr("score", "--agreement", str(own), str(blank))
    assert refused.returncode == 1
    assert "this sheet is not filled" in refused.stderr


def test_one_draw_and_none(cxr: Run, scored: Path, tmp_path: Path) -> None:
    """`--draws 1` once divided by zero, and `--agreement --draws 0` drew a thousand."""
    page = tmp_path / "page.html"
    assert cxr("score", "-q", str(PREDICTIONS), "--draws", "1").returncode == 0
    assert cxr("score", "-q", str(PREDICTIONS), "--draws", "0", "--html", str(page)).returncode == 0
    assert "Without numpy" not in page.read_text(encoding="utf-8")
    assert "--draws 0" in page.read_text(encoding="utf-8")
    details = str(scored / "details.jsonl")
    told = json.loads(cxr("score", "--agreement", details, details, "--draws", "0", "--json").stdout)
    assert told["claims"]["overall"]["low"] is None
    assert statistics.exact(1.0, 4, np.array([4.0])) == (pytest.approx(0.3976, abs=1e-3), 1.0)


def test_questions_that_differ_in_their_options_are_two(tmp_path: Path, cxr: Run) -> None:
    """Without ids of their own; what they are called is the same everywhere."""
    record = {
        "study_id": "S1", "task": "single", "question": "Which is seen?", "options": ["edema", "pneumothorax"],
        "answer": "A", "report": "Mild pulmonary edema.", "images": ["a.png"],
        "steps": [{"text": "There is mild pulmonary edema."}, {"text": "So the answer is A, edema."}],
    }  # fmt: skip
    other = {**record, "options": ["edema", "rib fracture"]}
    ids = [record_id(one) for one in (record, other)]
    assert len(set(ids)) == 2
    assert record_id({**record, "id": "own"}) == "own"
    text = "".join(json.dumps(one) + "\n" for one in (record, other))
    refined = [json.loads(line)["id"] for line in cxr("refine", "-q", stdin=text).stdout.splitlines()]
    assert refined == ids[:1]  # the second says the same of the same film
    answered = text.replace('"task"', '"prediction": "<answer>A</answer>", "task"')
    cxr("score", "-q", "--details", str(tmp_path / "d.jsonl"), stdin=answered)
    assert [line["id"] for line in lines_of(tmp_path / "d.jsonl")] == ids


def test_a_page_goes_on_after_a_kill(cxr: Run, scored: Path, tmp_path: Path) -> None:
    """Without --details too: what a page is made of lies beside it until it is done."""
    rows = PREDICTIONS.read_bytes().splitlines(keepends=True)
    packed = gzip.compress(b"".join(rows[40:]))
    (tmp_path / "a.jsonl").write_bytes(b"".join(rows[:40]))
    (tmp_path / "b.jsonl.gz").write_bytes(packed[:-100])
    (tmp_path / "c.jsonl").write_bytes(HASTY.read_bytes())
    inputs = ["a.jsonl", "b.jsonl.gz", "--against", "c.jsonl"]
    command = ["score", *inputs, "--html", "page.html", "--by", "sex,view"]
    done = cxr(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert "goes on from there" in done.stderr
    assert not (tmp_path / "page.html").exists()
    (tmp_path / "b.jsonl.gz").write_bytes(packed)
    done = cxr(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "continuing an earlier run" in done.stderr
    whole, page = ((folder / "page.html").read_text(encoding="utf-8") for folder in (scored, tmp_path))
    assert page.replace("c.jsonl", str(HASTY)) == whole
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "b.jsonl.gz", "c.jsonl", "page.html"}


def test_tables_for_people(cxr: Run) -> None:
    done = cxr("score", str(PREDICTIONS))
    assert done.returncode == 0, done.stderr
    for words in (
        "mean over tasks",
        "floor: all-negative litany",
        "floor: most frequent answer",
        "bootstrap over patients",
    ):
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 140
    assert done.stderr == "score: 72 judged, 0 unreadable\n"


def test_report_text_can_be_left_out(cxr: Run, tmp_path: Path) -> None:
    text = json.dumps(record(report="Small left pleural effusion, told to Doctor Quail.")) + "\n"
    places = {name: tmp_path / name for name in ("details.jsonl", "page.html")}
    files = ["--details", str(places["details.jsonl"]), "--html", str(places["page.html"])]
    for flags, holds in (([], True), (["--no-reports", "--force"], False)):
        done = cxr("score", "-", *files, *flags, stdin=text)
        assert done.returncode == 0, done.stderr
        assert [("Quail" in path.read_text()) for path in places.values()] == [holds, holds]
        assert "Quail" not in done.stdout + done.stderr


def test_without_numpy_there_are_figures_without_intervals() -> None:
    script = (
        "import sys; sys.modules['numpy'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'numpy' else real(name, *a)\n"
        "from cxr_reason.cli import main; main(sys.argv[1:], prog_name='cxr')"
    )

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, "score", str(PREDICTIONS), *flags]
        return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment(), timeout=60)

    done = run("--json")
    assert done.returncode == 0, done.stderr
    figure = json.loads(done.stdout)["overall"]["radrscore"]
    assert 0 < figure["value"] < 1
    assert figure["low"] is None
    assert "numpy is not installed" in done.stderr
    refused = run("--against", str(HASTY))
    assert refused.returncode == 1
    assert "comparing needs numpy" in refused.stderr


def test_options_that_contradict_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for flags in (
        ["--details", "-"],
        ["--details", "a", "--html", "a"],
        ["--agreement", str(HASTY), str(HASTY)],
        ["--sample", "5"],
        ["--sample-sheet", "a.csv", "--details", "a.key.csv"],
        ["--sample-sheet", "a.csv", "--shard", "0/2"],
        ["--sample-sheet", "a.csv", "--judge", "stored"],
    ):
        done = CliRunner().invoke(score_command, [str(PREDICTIONS), *flags])
        assert (done.exit_code, done.stdout) == (2, ""), flags
        assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------ readers' sheets


def filled(sheet: Path, target: Path, verdicts: dict[str, str] | None = None) -> None:
    """`sheet` as a reader saves it who says `verdicts`, by claim, or that all is supported."""
    with open(sheet, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows([row | {"verdict": verdicts[row["id"]] if verdicts else "s"} for row in rows])


def test_from_the_blank_sheet_to_a_score_by_its_reader(cxr: Run, scored: Path, tmp_path: Path) -> None:
    sample = ["--sample", "40", "--sample-sheet", "claims.csv", "--sample-html", "claims.html"]
    done = cxr("score", str(PREDICTIONS), *sample, "--stratify", "status,task", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["overall"] == json.loads((scored / "score.json").read_text())["overall"]
    blank = (tmp_path / "claims.csv").read_text(encoding="utf-8-sig")
    assert blank.count("supported") == 0  # readers are blind
    key = {answer.id: answer.verdict for answer in read_sheet(tmp_path / "claims.key.csv")}
    assert len(key) == 40
    assert 'id="claim-40"' in (tmp_path / "claims.html").read_text(encoding="utf-8")
    # A reader who agrees but on the first five claims.
    turned = dict.fromkeys(list(key)[:5], "unverifiable")
    filled(tmp_path / "claims.csv", tmp_path / "filled.csv", {**{k: str(v) for k, v in key.items()}, **turned})
    judging = ["--judge", "sheet", "--sheet", "filled.csv", "--details", "read.jsonl"]
    done = cxr("score", str(PREDICTIONS), *judging, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = {claim["id"]: claim["verdict"] for one in lines_of(tmp_path / "read.jsonl") for claim in one["claims"]}
    assert told == {**key, **turned}
    assert json.loads(done.stdout)["counts"]["claims"]["unverifiable"] == list(told.values()).count("unverifiable")
    wanted = sum(turned.get(identity, verdict) == verdict for identity, verdict in key.items()) / 40
    for first in ("claims.key.csv", str(scored / "details.jsonl")):
        done = cxr("score", "--agreement", first, "filled.csv", "--json", cwd=tmp_path)
        assert json.loads(done.stdout)["claims"]["overall"]["agreement"] == pytest.approx(wanted)


def test_a_sample_is_the_same_with_any_jobs_and_order(cxr: Run, tmp_path: Path) -> None:
    turned = "".join(reversed(PREDICTIONS.read_text(encoding="utf-8").splitlines(keepends=True)))
    for name, flags in (("a", []), ("b", ["--jobs", "2"])):
        text = PREDICTIONS.read_text(encoding="utf-8") if name == "a" else turned
        done = cxr("score", "-", "-q", "--sample-sheet", f"{name}.csv", *flags, stdin=text, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.key.csv").read_bytes() == (tmp_path / "b.key.csv").read_bytes()


# ----------------------------------------------------------------------------------------------------------- the page

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp; “ü” 🫁"


class Elements(HTMLParser):
    """What a page is made of; fails where a tag is not closed."""

    VOID = frozenset({"meta", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def page_of(tmp_path: Path, lines: list[dict[str, Any]], **options: Any) -> Path:
    target = tmp_path / "page.html"
    with opened(target) as sink:
        page.write(sink, score_of(lines, by=("site",)), details_file(tmp_path / "cases.jsonl", lines), **options)
        sink.commit()
    return target


def hostile_case() -> dict[str, Any]:
    text = record(
        report=f"Small left pleural effusion. {HOSTILE}", question=HOSTILE, options=[HOSTILE, "Yes"], model=HOSTILE
    )
    return judge(
        {**text, "id": HOSTILE, "site": HOSTILE, "task": HOSTILE, "prediction": f"{HOSTILE} There is an effusion."}
    )


def test_the_page_is_one_closed_file_that_runs_its_own_script_alone(tmp_path: Path) -> None:
    text = page_of(tmp_path, [hostile_case()]).read_text(encoding="utf-8")
    elements = Elements(text)
    (_, index), (_, own) = elements.scripts[-2:]
    policy = next(a["content"] or "" for t, a in elements.found if t == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert json.loads(index)[0]["id"] == HOSTILE
    assert [a for a, _ in elements.scripts if "type" not in a] == [{}]
    assert not {tag for tag, _ in elements.found} & {"img", "link", "iframe"}
    assert not [a for _, a in elements.found if "src" in a or "href" in a]


def test_a_page_of_more_cases_than_it_holds_keeps_the_critical_ones(tmp_path: Path) -> None:
    lines = [line(f"i{n}") for n in range(40)]
    lines[33]["reference"] = [fact("pneumothorax", "present", "missed", "critical")]
    text = page_of(tmp_path, lines, count=5).read_text(encoding="utf-8")
    index = json.loads(Elements(text).scripts[-2][1])
    assert len(index) == 5
    assert "i33" in {entry["id"] for entry in index}
    assert "The page holds 5 of them" in text


def browser_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser() -> Any:
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


def opened_page(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    tab = browser.new_context(**options).new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(path.as_uri())
    tab.wait_for_selector("#case h3")
    return tab, said


@pytest.mark.xdist_group("browser")
def test_search_and_filters_in_a_browser(browser: Any, scored: Path) -> None:
    tab, said = opened_page(browser, scored / "page.html")
    details = lines_of(scored / "details.jsonl")
    count = tab.locator("#count")
    assert count.inner_text() == "72 of 72 cases"
    wrong = sum(one["correct"] not in (True, 1) for one in details)
    tab.select_option("#answer", "wrong")
    assert count.inner_text() == f"{wrong} of 72 cases"
    tab.locator("button[type=reset]").click()
    expect(count).to_have_text("72 of 72 cases")
    low = [one for one in details if one["factuality"] is not None and one["factuality"] < 0.5]
    tab.select_option("#reasoning", "low")
    assert count.inner_text() == f"{len(low)} of 72 cases"
    tab.select_option("#reasoning", "missed")
    missed = [one["id"] for one in details if criticals(one)[0]]
    assert len(missed) == tab.locator("#rows .row").count() == 1
    assert tab.locator("#case h3").inner_text() == missed[0]
    tab.select_option("#reasoning", "")
    tab.fill("#search", details[5]["study_id"])
    expected = sum(details[5]["study_id"].lower() in json.dumps(one).lower() for one in details)
    expect(count).to_have_text(f"{expected} of 72 cases")
    tab.fill("#search", "no such words anywhere")
    expect(count).to_have_text("0 of 72 cases")
    assert tab.locator("#case").inner_text() == "No case fits."
    assert said == []


@pytest.mark.xdist_group("browser")
def test_the_page_by_keyboard(browser: Any, scored: Path) -> None:
    tab, said = opened_page(browser, scored / "page.html")
    ids = [one["id"] for one in lines_of(scored / "details.jsonl")]
    title, count = tab.locator("#case h3"), tab.locator("#count")
    tab.keyboard.press("j")
    assert title.inner_text() == ids[1]
    tab.keyboard.press("k")
    assert title.inner_text() == ids[0]
    tab.keyboard.press("/")
    tab.keyboard.type("jk")  # words of a search move nothing
    assert tab.evaluate("document.activeElement.id") == "search"
    tab.keyboard.press("Control+A")
    tab.keyboard.press("Backspace")
    expect(count).to_have_text("72 of 72 cases")
    tab.keyboard.press("Escape")
    tab.keyboard.press("End")
    assert title.inner_text() == ids[-1]
    selected = tab.locator(f"#{tab.locator('#list').get_attribute('aria-activedescendant')}")
    assert selected.get_attribute("aria-selected") == "true"
    assert selected.get_attribute("aria-posinset") == "72"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "case"
    tab.goto(f"{(scored / 'page.html').as_uri()}#{ids[7]}")
    tab.reload()
    tab.wait_for_selector("#case h3")
    assert title.inner_text() == ids[7]
    assert said == []


@pytest.mark.xdist_group("browser")
def test_evidence_is_marked_and_lit_in_both_schemes(browser: Any, tmp_path: Path) -> None:
    case = judge(record(report="🫁 " + REPORT))  # offsets count characters, and this one is two units of UTF-16
    backgrounds = set()
    for scheme in ("light", "dark"):
        tab, said = opened_page(browser, page_of(tmp_path, [case]), color_scheme=scheme)
        assert tab.locator("#case mark").all_inner_texts() == ["pleural effusion"]
        assert tab.locator(".claim.supported").count() == 1
        tab.locator(".claim").first.click()
        assert tab.locator("mark.lit").all_inner_texts() == ["pleural effusion"]
        backgrounds.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert said == []
    assert len(backgrounds) == 2


@pytest.mark.xdist_group("browser")
def test_what_is_said_of_the_film_before_is_lit_in_its_report(browser: Any, tmp_path: Path) -> None:
    told = "On the film before, there is a pleural effusion. On the current film, there is no pleural effusion."
    prediction = f"<think>{told}</think><answer>A</answer>"
    two = {"task": "temporal", "report": "No pleural effusion.", "prior_report": "Left pleural effusion. Clear lungs."}
    tab, said = opened_page(browser, page_of(tmp_path, [judge(record(**two, prediction=prediction))]))
    assert tab.locator("#case mark").all_inner_texts() == ["pleural effusion", "pleural effusion"]
    tab.locator(".claim", has_text="on the film before").click()
    assert tab.locator("#case .report").nth(1).locator("mark.lit").count() == 1
    assert tab.locator("mark.lit").count() == 1
    assert said == []


@pytest.mark.xdist_group("browser")
def test_nothing_that_a_case_says_is_run(browser: Any, tmp_path: Path) -> None:
    tab, said = opened_page(browser, page_of(tmp_path, [hostile_case()]), viewport={"width": 390, "height": 800})
    assert tab.title().startswith("Score")
    assert tab.locator("#case h3").inner_text() == HOSTILE
    assert tab.locator("#case img").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    rows = tab.locator(".bars tr")
    assert tab.locator(".bars").bounding_box()["height"] < 70 * rows.count()  # no column of single letters
    assert tab.evaluate("[...document.querySelectorAll('.row')].every((row) => row.scrollHeight <= row.clientHeight)")
    assert said == []


@pytest.mark.xdist_group("browser")
def test_five_thousand_cases_open(browser: Any, scored: Path, tmp_path: Path) -> None:
    details = lines_of(scored / "details.jsonl")
    many = [{**details[n % len(details)], "id": f"case {n}"} for n in range(5000)]
    path = tmp_path / "page.html"
    with opened(path) as sink:
        score = json.loads((scored / "score.json").read_text())
        page.write(sink, score, details_file(tmp_path / "cases.jsonl", many))
        sink.commit()
    tab, said = opened_page(browser, path)
    assert tab.locator("#count").inner_text() == "5,000 of 5,000 cases"
    assert tab.locator("#rows .row").count() < 60  # only those in view are drawn
    tab.focus("#list")
    tab.keyboard.press("End")
    assert tab.locator("#case h3").inner_text() == "case 4999"
    assert tab.evaluate("performance.getEntriesByType('navigation')[0].domComplete") < 10_000  # ms; one here
    assert said == []


# --------------------------------------------------------------------------------------------------------- robustness


def test_flips_cost_and_other_words_do_not() -> None:
    script = ROOT / "benchmarks" / "robustness.py"
    done = subprocess.run(
        [sys.executable, str(script), "--limit", "40"],
        capture_output=True,
        encoding="utf-8",
        env=environment(PYTHONPATH=f"{ROOT}:{script.parent}"),
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in done.stdout.splitlines() if row.startswith("|")
    ]
    change = {name: float(cells[5]) for name, *cells in rows[2:]}
    harmless = {"paraphrase", "padding", "shuffle"}
    assert len(change) == 12
    assert all(change[name] < -0.02 for name in change.keys() - harmless), change
    assert all(abs(change[name]) < 0.05 for name in harmless), change
