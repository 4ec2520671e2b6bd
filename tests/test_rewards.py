"""Reading answers, splitting reasoning, the ratios and the judges, on texts of our own."""

from __future__ import annotations

import csv
import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Run
from growth import assert_linear
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_reason import sheets
from cxr_reason.radrbench import from_item
from cxr_reason.rewards import JUDGES, functions, judge, process, prose, rules
from cxr_reason.rewards.answers import open_ended, read_answer
from cxr_reason.rewards.options import stated
from cxr_reason.rewards.ratios import PARTS, ratios
from cxr_reason.rewards.readers import notes_of, verdicts_of
from cxr_reason.rewards.statements import stated_as
from cxr_reason.scoring import verify_claims
from cxr_reason.scoring.tally import criticals

OPTIONS = ("small left pleural effusion", "right pneumothorax", "calcified granuloma", "normal")
REPORT = (
    "The heart is mildly enlarged. Small left pleural effusion. Possible pneumonia. No acute bone abnormality. "
    "No large pneumothorax."
)
CHAIN = [
    {"text": "Look at the angles, the heart and the lungs.", "kind": "plan"},
    {"text": "There is a small left pleural effusion.", "kind": "observe"},
    {"text": "The heart is mildly enlarged.", "kind": "observe"},
    {"text": "No pulmonary edema is seen.", "kind": "observe"},
    {"text": "The answer is A, small left pleural effusion.", "kind": "conclude"},
]


def record(prediction: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "r1", "task": "single", "question": "Which finding is on this film?", "options": list(OPTIONS),
        "answer": "A", "report": REPORT, "steps": CHAIN, "prediction": prediction,
    } | more  # fmt: skip


def answered(text: str, options: tuple[str, ...] = OPTIONS, question: str = "Which one is it?", task: str = "single"):
    reasoning, tagged = prose.parts(text)
    return read_answer(prose.concluding(text, reasoning), tagged, question=question, options=options, task=task)


# ------------------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("<think>Option A looks right.</think><answer>B</answer>", "B"),  # the tag, not the text
        ("<answer> option (C) </answer>", "C"),
        ("<answer>Right pneumothorax</answer>", "B"),
        ("<answer>b</answer>", "B"),
        ("<answer>B</answer> No, wait. <answer>C</answer>", "C"),
        ("<answer>D", "D"),  # cut off within the tag
        ("I looked at everything. Option A seems most suitable.", "A"),
        ("Option A is unlikely, and option B is ruled out. Therefore the best choice is option C.", "C"),
        ("The finding that fits best is:\n\n**B) right pneumothorax**", "B"),
        ("Answer: C. calcified granuloma", "C"),
        ("So the answer is \\boxed{C}.", "C"),
        ("The finding most consistent with this film is a small left effusion.", "A"),
        ("In conclusion, the film shows a pneumothorax on the right side.", "B"),
        ("The film is normal in every respect, so D.", "D"),
        ("B", "B"),
        ("Considering all of this, option D … seems most suitable.", "D"),
        ("**Answer:** C) calcified granuloma", "C"),
        ("ANSWER: B", "B"),
        ("the answer is b.", "B"),
        ("I pick option c.", "C"),
        ("The answer is \\boxed{\\text{C}}.", "C"),
        ("### Final Answer\n**B) right pneumothorax**", "B"),
        ("<think>The lungs are clear.</think>\n\nB", "B"),  # below the reasoning, without a tag of its own
        ("<think>Option A looks right.</think> The answer is B.", "B"),
        ("Neither option A nor option B fits. Option C remains.", "C"),
        ("The correct option isn't A; it's C.", "C"),
        ("Option A is correct and option B is incorrect.", "A"),
        ("D is correct.", "D"),
        ("Answer: A small effusion cannot be seen, so D.", "D"),  # an article, no letter
        ("A) No blunting, ruled out.\nB) No pleural line, ruled out.\nC) No nodule, ruled out.\nD) normal fits.", "D"),
        ("I can't provide a diagnosis. However, based on the image, the best answer is B.", "B"),
        ("<think>Option A. </think> <answer> C", "C"),
    ],
)
def test_an_answer_is_read(text: str, letter: str) -> None:
    assert answered(text) == (letter, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<answer></answer>",
        "<answer>A, C</answer>",
        "<answer>E</answer>",  # there is no such option
        "I'm sorry, but I can't interpret medical images.",
        "Option A and option C both fit. Therefore, the correct answers are A and C.",
        "The answer is either A or C.",
        "The answer is not A. The answer is not B. The answer is not C.",
        "Neither A nor B.",
        "<answer>None of the above</answer>",
        "<answer>not B</answer>",
        "I go through them.\nA) small left pleural effusion\nB) right pneumothorax\nC) calcified granuloma\nD) normal",
        "1. **Option A**: small left pleural effusion\n   - Look at the left",  # broken off before it decides
    ],
)
def test_what_cannot_be_read_is_unread(text: str) -> None:
    assert answered(text) == (None, False)
    line = judge(record(text))
    assert (line["chosen"], line["answer_read"], line["correct"]) == (None, False, False)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Therefore: no", "B"),
        ("Yes, there is fluid on the left.", "A"),
        ("Both angles are sharp. There is no pleural effusion.", "B"),
        ("The left angle is blunted. So there is a pleural effusion.", "A"),
        ("No pneumothorax is seen. The answer is yes.", "A"),
        ("No, wait. There is a left pleural effusion, so yes.", "A"),
        ("I see no reason to doubt it: yes.", "A"),
        ("Is there an effusion? No.", "B"),
        ("Option B (No) is right.", "B"),
        ("Neither yes nor no.", None),
        ("It can't be said whether there is an effusion.", None),
        ("<answer>yes/no</answer>", None),
    ],
)
def test_yes_and_no(text: str, letter: str | None) -> None:
    question = "Does this chest X-ray show a pleural effusion?"
    assert answered(text, ("Yes", "No"), question, "binary").chosen == letter


def test_changes() -> None:
    choices = ("Improved", "Stable", "Worse")
    assert answered("Overall, the opacity is unchanged.", choices, task="temporal").chosen == "B"
    assert answered("<answer>worse</answer>", choices, task="temporal").chosen == "C"
    assert answered("It has not improved; it is worse.", choices, task="temporal").chosen == "C"
    assert answered("It is neither better nor worse: stable.", choices, task="temporal").chosen == "B"


@pytest.mark.parametrize(
    ("wanted", "told", "score"),
    [
        ("left pleural effusion; cardiomegaly", "There is a left pleural effusion and cardiomegaly.", 1),
        ("left pleural effusion; cardiomegaly", "There is a left pleural effusion.", 2 / 3),
        ("left pleural effusion", "There is a right pleural effusion.", 0),
        ("left pleural effusion", "There is a left pleural effusion and a fracture.", 2 / 3),
        ("lung opacity", "There is consolidation.", 1),  # a kind of it
        ("consolidation", "There is a lung opacity.", 0.5),  # only what it is a kind of
        ("pleural effusion", "There is no pleural effusion.", 0),
        ("normal", "The film is normal.", 1),
        ("normal", "There is a pneumothorax.", 0),
        ("left-handed zebra", "left-handed zebra", 1),  # not in the lexicon: by its words
    ],
)
def test_open_answers_are_marked_by_f1(wanted: str, told: str, score: float) -> None:
    assert open_ended(stated(told), wanted, says=told) == pytest.approx(score)
    line = judge(record(f"<answer>{told}</answer>", options=None, answer=wanted))
    assert line["correct"] == pytest.approx(score)


# -------------------------------------------------------------------------------------------------------------- prose


def said(text: str) -> list[list[tuple[str, str, str | None]]]:
    return [[(c.name, c.status, c.side) for c in step.claims] for step in prose.steps(text, OPTIONS)]


def test_a_list_of_options_falls_into_its_items() -> None:
    text = """I go through the options.

1. **Option A: Small left pleural effusion**
   - Effusions blunt the costophrenic angle.
   - In this film, no such signs are seen.

2. **Option B: Right pneumothorax**
   - There is a small right pneumothorax.
"""
    assert said(text) == [
        [("pleural effusion", "absent", "left")],  # what explains claims nothing, "no such signs" answers the heading
        [("pneumothorax", "present", "right")],
    ]


def test_running_prose_is_cut_at_its_turns() -> None:
    text = (
        "First, we look for an effusion, which would blunt the angles. The angles are sharp, so there is no pleural "
        "effusion. Next, we check for a pneumothorax. There is a small right pneumothorax. Therefore, the answer is B."
    )
    found = said(text)
    assert [claims[-1] for claims in found[:2]] == [
        ("pleural effusion", "absent", None),
        ("pneumothorax", "present", "right"),
    ]


def test_bullets_and_headings() -> None:
    assert said("On this film:\n- Heart: not enlarged\n- No pneumothorax.\n- Left pleural effusion.") == [
        [("cardiomegaly", "absent", None)],
        [("pneumothorax", "absent", None)],
        [("pleural effusion", "present", "left")],
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Heart enlarged.\nThere is no edema.\nNo pneumothorax.", ["cardiomegaly", "pulmonary edema", "pneumothorax"]),
        ("Heart enlarged\nNo edema\nNo pneumothorax", ["cardiomegaly", "pulmonary edema", "pneumothorax"]),
        ("Step 1: The heart is enlarged.\nStep 2: No pneumothorax.", ["cardiomegaly", "pneumothorax"]),
        ("Pleural effusion:\nNo such sign is seen.\n\nPneumothorax:\nNone.", ["pleural effusion", "pneumothorax"]),
        ("1. The heart is\n   enlarged.\n2) There is no\n   pneumothorax.", ["cardiomegaly", "pneumothorax"]),
        # wrapped for its length: one step, and the denial reaches over the break
        ("No pneumothorax is seen on this film, and there is no sign of pulmonary\nedema at all.", ["pneumothorax"]),
    ],
)  # fmt: skip
def test_lines_are_steps_unless_they_were_wrapped(text: str, names: list[str]) -> None:
    found = said(text)
    assert [claims[0][0] for claims in found] == names
    assert all(
        status == "absent"
        for claims in found
        for name, status, _ in claims
        if name in ("pneumothorax", "consolidation")
    )


@pytest.mark.parametrize(
    "text",
    [
        "A) small left pleural effusion\nB) right pneumothorax\nC) calcified granuloma\nD) normal",
        "A pneumothorax would appear as a thin pleural line.",
        "Pleural effusions blunt the costophrenic angles.",
        "Option B refers to a right pneumothorax.",
        "Look for a pneumothorax at the apices.",
        "To answer, we need to determine whether there is an effusion.",
    ],
)
def test_what_claims_nothing_of_the_film(text: str) -> None:
    assert not any(said(text))


def test_it_stands_for_the_organ_before() -> None:
    assert said("Look at the heart. It is enlarged.") == [[("cardiomegaly", "present", None)]]
    assert said("Look at the heart and the lungs. It is enlarged.") == []  # which?


def test_a_topic_is_a_finding_in_its_place() -> None:
    chain = [
        {"text": "There is an opacity in the right upper lobe and a small left pleural effusion.", "kind": "observe"}
    ]

    def named(told: str) -> list[tuple[str, bool]]:
        return [(t["finding"], t["named"]) for t in judge(record(f"<think>{told}</think>", steps=chain))["topics"]]

    assert named("No effusion. No opacity at the right apex.") == [("lung opacity", True), ("pleural effusion", True)]
    assert named("Right effusion. Opacity at the right base.") == [("lung opacity", False), ("pleural effusion", False)]


def test_no_abnormality_beside_others_is_not_of_the_whole_film() -> None:
    assert said("No fracture or other abnormality is seen.") == [[("fracture", "absent", None)]]


# --------------------------------------------------------------------------------------------------------- statements


@pytest.mark.parametrize(
    ("claim", "verdict", "basis"),
    [
        ("Cardiomegaly: present", "supported", "stated"),
        ("Cardiac silhouette: enlarged", "supported", "stated"),
        ("Heart size: normal", "contradicted", "stated"),
        ("Absence of cardiomegaly: not present", "supported", "stated"),
        ("severe cardiomegaly: not present", "supported", "stated"),  # a mild one is
        ("small left pleural effusion: confirmed", "supported", "stated"),
        ("right pleural effusion: not present", "supported", "stated"),  # it is on the left
        ("No pleural effusion: not present", "contradicted", "stated"),  # a denial, told twice
        ("Pneumonia: cannot be excluded", "supported", "stated"),
        ("pneumonia: ruled out", "unverifiable", "stated"),
        ("rib fracture: not present", "supported", "silent"),  # "no acute bone abnormality" leaves it open
        ("There is no lung nodule.", "supported", "silent"),
        ("There is a lung nodule.", "contradicted", "silent"),
        ("pneumothorax: not present", "unverifiable", "stated"),  # only a large one is denied
        ("large pneumothorax: absent", "supported", "stated"),
        ("Normal chest X-ray: unlikely", "supported", "stated"),
        ("zebra stripes: not present", "supported", "silent"),  # a word that neither the lexicon nor the report knows
        ("adequate exposure: confirmed", "unverifiable", "silent"),
        ("The film was taken on a Monday.", "unverifiable", "silent"),
    ],
)
def test_statements(claim: str, verdict: str, basis: str) -> None:
    assert verify_claims([claim], REPORT, basis=True) == [(verdict, basis)]
    assert verify_claims([claim], REPORT) == [verdict]
    if basis == "silent":
        assert verify_claims([claim], REPORT, silence="unknown") == ["unverifiable"]


def test_silence_is_normal_or_unknown() -> None:
    with pytest.raises(ValueError, match="silence"):
        verify_claims(["No fracture."], REPORT, silence="maybe")  # type: ignore[call-overload]


def test_places_at_another_height_are_others() -> None:
    report = "There is consolidation in the right upper lobe."
    claims = ["Consolidation in the right lower lobe: present", "Consolidation in the right lower lobe: not present"]
    assert verify_claims(claims, report) == ["contradicted", "supported"]
    assert verify_claims(["There is consolidation in the right upper lung."], report) == ["supported"]


# ------------------------------------------------------------------------------------------------------------- ratios


def claim(status: str, verdict: str, basis: str = "stated") -> dict[str, str]:
    return {"status": status, "verdict": verdict, "basis": basis}


def test_ratios_by_hand() -> None:
    claims = [
        claim("present", "supported"), claim("uncertain", "unverifiable"),
        claim("absent", "supported"), claim("absent", "contradicted"), claim("absent", "supported", "silent"),
    ]  # fmt: skip
    reference = [
        {"status": "present", "state": "told"}, {"status": "present", "state": "opposite"},
        {"status": "absent", "state": "told"}, {"status": "absent", "state": "missed"},
    ]  # fmt: skip
    topics = [{"named": True}, {"named": True}, {"named": True}, {"named": False}]
    steps = [{"effective": True}, {"effective": False}, {"effective": True}, {"effective": True}]
    assert ratios(claims, reference, topics, steps) == {
        "factuality": 0.6, "completeness": 0.5, "coverage": 0.75, "effectiveness": 0.75,
        "radrscore": round((0.6 + 0.5 + 0.75) / 3, 6), "positive_factuality": 0.5, "positive_completeness": 0.5,
        # positive half (1/2 + 1/2) / 2; negative (1/2 + 1/2) / 2 without the silent one
        "balanced_radrscore": 0.5, "zero_denominators": [],
    }  # fmt: skip


def test_denying_everything_has_no_balance() -> None:
    reference = [{"status": "present", "state": "opposite"}, {"status": "absent", "state": "told"}]
    scores = ratios([claim("absent", "supported")] * 4, reference, [], [{"effective": True}])
    assert scores["factuality"] == 1
    assert (scores["positive_factuality"], scores["balanced_radrscore"]) == (0, 0)


def test_zero_denominators_are_zero_and_named() -> None:
    scores = ratios([], [], [], [])
    assert [scores[part] for part in PARTS] == [0, 0, 0, 0, 0, None, None, None]
    assert scores["zero_denominators"] == ["factuality", "completeness", "coverage", "effectiveness"]


def test_nothing_present_is_nothing_to_balance() -> None:
    scores = ratios([claim("present", "contradicted")], [{"status": "absent", "state": "told"}], [], [])
    assert (scores["positive_factuality"], scores["positive_completeness"]) == (0, None)
    assert scores["balanced_radrscore"] is None


# -------------------------------------------------------------------------------------------------------------- rules


def test_a_line_of_the_rules() -> None:
    line = judge(record(
        "<think>First, there is a small right pleural effusion. Next, the heart is enlarged. Then, there is pneumonia. "
        "Finally, no pulmonary edema is seen.</think><answer>A</answer>", sex="F", model="m",
    ))  # fmt: skip
    assert (line["chosen"], line["correct"], line["judge"], line["sex"]) == ("A", True, "rules", "F")
    told = {c["finding"]: (c["step"], c["verdict"], c["basis"]) for c in line["claims"]}
    assert told == {
        "pleural effusion": (0, "contradicted", "stated"),
        "cardiomegaly": (1, "supported", "stated"),
        "pneumonia": (2, "unverifiable", "stated"),
        "pulmonary edema": (3, "supported", "silent"),
    }
    flags = [(c["finding"], c["side_error"], c["hedge_as_fact"]) for c in line["claims"]]
    assert flags[0] == ("pleural effusion", True, False)
    assert flags[2] == ("pneumonia", False, True)
    (start, end), *_ = line["claims"][1]["spans"]
    assert "heart" in REPORT[start:end]
    states = {r["finding"]: r["state"] for r in line["reference"]}
    assert states == {"pleural effusion": "named", "cardiomegaly": "told", "pulmonary edema": "told"}
    assert (line["factuality"], line["coverage"]) == (0.5, pytest.approx(2 / 3, abs=1e-6))  # the left is not spoken of
    assert line["completeness"] == pytest.approx(2 / 3, abs=1e-6)
    json.dumps(line)


def test_states_of_the_reference() -> None:
    opposite = judge(record("<think>There is no pleural effusion.</think><answer>D</answer>"))
    states = {r["finding"]: r["state"] for r in opposite["reference"]}
    assert states == {"pleural effusion": "opposite", "cardiomegaly": "missed", "pulmonary edema": "missed"}
    hedged = judge(record("<think>There may be a left pleural effusion.</think><answer>A</answer>"))
    assert {r["finding"]: r["state"] for r in hedged["reference"]}["pleural effusion"] == "named"


TWO_FILMS: dict[str, Any] = {
    "task": "temporal", "question": "How has the left pneumothorax changed?",
    "options": ["Improved", "Stable", "Worse"],
    "report": "No pneumothorax. The heart is normal in size.", "prior_report": "Small left pneumothorax. No effusion.",
    "steps": [
        {"text": "On the film before, a small left pneumothorax is seen.", "kind": "observe", "film": "prior"},
        {"text": "On the current film, there is no pneumothorax.", "kind": "observe"},
        {"text": "It was there before and is there no more: the answer is A, Improved.", "kind": "conclude"},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "claims"),
    [
        ("On the film before, a small left pneumothorax is seen.", ["supported prior"]),
        ("The previous radiograph showed a right pneumothorax.", ["contradicted prior"]),
        ("On the prior study there is no effusion.", ["supported prior"]),
        ("Previously, a small left pneumothorax was present.", ["supported prior"]),
        ("A left pneumothorax was seen on the earlier chest X-ray.", ["supported prior"]),
        ("In the comparison study, there was a left pneumothorax.", ["supported prior"]),
        (
            "The earlier film shows a left pneumothorax, whereas the current film shows no pneumothorax.",
            ["supported current", "supported prior"],
        ),
        (
            "The current film shows no pneumothorax, while the previous film showed a left pneumothorax.",
            ["supported current", "supported prior"],
        ),
        ("Compared with the previous film, there is no pneumothorax.", ["supported current"]),
        ("There is a left pneumothorax.", ["contradicted current"]),
        ("An old pneumothorax on this film is not seen.", ["supported current"]),
        ("No pneumothorax is seen, as on the previous film.", ["supported current"]),
        ("The previously seen pneumothorax has resolved.", ["supported current"]),
        ("There is no pneumothorax, which was seen on the previous film.", ["supported current"]),
        ("There was a left pneumothorax previously.", ["supported prior"]),
        ("No effusion is seen on the previous and current films.", ["supported current"]),
    ],
)
def test_what_is_said_of_the_film_before_is_judged_by_its_report(told: str, claims: list[str]) -> None:
    prediction = f"<think>{told}</think><answer>A</answer>"
    line = judge(record(prediction, **TWO_FILMS))
    assert [f"{claim['verdict']} {claim.get('film', 'current')}" for claim in line["claims"]] == claims
    named = criticals(line)[1]
    assert named == (["pneumothorax"] if claims == ["contradicted current"] else [])
    # Without the report of that film nobody can say, and it is no claim of this one.
    alone = judge(record(prediction, **TWO_FILMS | {"prior_report": None}))
    assert [claim["verdict"] for claim in alone["claims"]] == [c.split()[0] for c in claims if c.endswith("current")]


@pytest.fixture(scope="module")
def references(cxr: Run, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every chain that `cxr mine` makes of the example reports and of the pairs of films."""
    folder = tmp_path_factory.mktemp("references")
    pairs = [json.loads(line) for line in (ROOT / "tests" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("study_id", "patient_id", "study_time", "view", "report"))
        for pair in pairs:
            for end, kind in (("a", "prior_"), ("b", "")):
                report = pair["prior" if kind else "current"]
                table.writerow([f"{pair['id']}-{end}", pair["id"], pair[f"{kind}time"], pair[f"{kind}view"], report])
    found = []
    for source in (ROOT / "examples" / "reports.csv", folder / "pairs.csv"):
        mined = cxr("mine", "-q", str(source), "--open-ended", "--per-finding", "10000")
        assert mined.returncode == 0, mined.stderr
        found += [json.loads(line) for line in mined.stdout.splitlines()]
    return found


def in_paragraphs(steps: list[str]) -> str:
    return "\n\n".join(steps)


def in_one_line(steps: list[str]) -> str:
    return " ".join(steps)


def numbered(steps: list[str]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


@pytest.mark.parametrize("written", [in_paragraphs, in_one_line, numbered])
def test_a_reference_chain_scores_what_it_teaches(references: list[dict[str, Any]], written: Any) -> None:
    """What a model is trained to write is worth everything, in every task, to the score and to the process reward."""
    tasks = {(record["task"], record["options"] is None) for record in references}
    assert len(tasks) >= 6
    short = []
    for one in references:
        told = written([step["text"] for step in one["steps"]])
        line = judge({**one, "prediction": f"<think>{told}</think><answer>{one['answer']}</answer>"})
        parts = [line[part] for part in ("factuality", "completeness", "effectiveness")]
        if line["correct"] not in (True, 1.0) or parts != [1, 1, 1] or criticals(line) != ([], []):
            short.append((one["id"], told))
        elif process.score(rules.examine({**one, "prediction": line["prediction"]})) != 1:
            short.append((one["id"], "process", told))
    assert short == []


def test_a_flipped_side_costs_no_less_than_a_dropped_finding() -> None:
    rest = "The heart is mildly enlarged. No pulmonary edema is seen."
    right, flipped, dropped = (
        judge(record(f"<think>{effusion}{rest}</think><answer>A</answer>"))["radrscore"]
        for effusion in ("There is a small left pleural effusion. ", "There is a small right pleural effusion. ", "")
    )
    assert right > dropped >= flipped


def test_does_the_reasoning_support_the_answer() -> None:
    for prediction, supports in {
        "<think>There is a left pleural effusion.</think><answer>A</answer>": True,
        "<think>There is no left pleural effusion.</think><answer>A</answer>": False,
        "<think>The heart is enlarged.</think><answer>A</answer>": None,
        "<think>The heart is enlarged.</think><answer>D</answer>": False,
        "<think>The lungs are clear.</think><answer>D</answer>": True,
    }.items():
        assert judge(record(prediction))["supports_answer"] is supports


@pytest.mark.parametrize(
    "more", [{"report": None}, {"report": "La radiografía de tórax no muestra nada."}, {"steps": None}]
)
def test_what_cannot_be_judged_has_no_scores(more: dict[str, Any]) -> None:
    line = judge(record("<think>There is a left pleural effusion.</think><answer>A</answer>", **more))
    assert [line[part] for part in PARTS] == [None] * len(PARTS)
    assert line["correct"] is True


def test_padding_adds_no_claim() -> None:
    text = "There is a small left pleural effusion. The heart is enlarged."
    padding = "Let us look at this film step by step. A pneumothorax would appear as a thin line. "
    plain, padded = (
        judge(record(f"<think>{t}</think><answer>A</answer>")) for t in (text, padding + text + " " + text)
    )
    assert padded["factuality"] == plain["factuality"]
    assert [c["text"] for c in padded["claims"]] == [c["text"] for c in plain["claims"]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PIECES = ["<think>", "</think>", "<answer>", "</answer>", "**", "1. ", "- ", "\n", "Option A:", "no ", "effusion", ": ",
          "left ", "therefore ", "(B)", "The heart is ", "normal", ".", " ", "\x00", "é", "\ud800"]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=40).map("".join))
def test_no_text_raises(text: str) -> None:
    for options in (list(OPTIONS), ["Yes", "No"], None):
        line = judge(record(text, options=options))
        assert 0 <= float(line["correct"]) <= 1
    verify_claims([text], REPORT)
    verify_claims([text], text)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(record(""))), JSON), st.sampled_from(["rules", "stored"]))
def test_no_record_raises(fields: dict[str, Any], name: str) -> None:
    judge({**record("There is an effusion."), **fields}, judge=name)
    judge(fields, judge=name)


# What a model writes that has not learnt to end. Each comes around again, between a beginning and an end that let no
# pattern match.
HOSTILE = {
    "letters": ("", "(A) ", ""),
    "denials": ("", "no effusion, ", ""),
    "options": ("", "Option A: effusion. ", ""),
    "bullets": ("", "- - ", ""),
    "bold": ("", "**a** ", ""),
    "rejected": ("", "not A or B, ", ""),
    "answers": ("", "<answer>", ""),
    "lines": ("", "a\n", ""),
    "empty lines": ("", "\n", ""),
    "no end": ("<think>", "The heart is normal. ", ""),
    "no answer": ("<think>", "The heart is normal. ", "</think>"),
    "blanks": ("<think>", " ", "x"),
    "brackets": ("<think>", "<", "</think>"),
    "letters between two marks": ("<answer>", "A, ; ", "x</answer>"),
    "letters between words": ("<answer>", "A and ", "x</answer>"),
    "marks": ("<answer>", "(", "x</answer>"),
    "an answer of blanks": ("The answer", " ", "is"),
    "aspects": ("<think>Its size ", "on two ", "nowhere.</think>"),
    "turns": ("<think>Before", ", that is as it was", ".</think>"),
    "a status of blanks": ("<think>ab", " ", ":</think>"),
}


def rewarded(text: str) -> None:
    judge(record(text))
    functions.format([text])
    stated_as(text)


@pytest.mark.parametrize("shape", HOSTILE)
def test_time_is_linear(shape: str) -> None:
    begin, again, end = HOSTILE[shape]
    assert_linear(rewarded, lambda n: begin + again * n + end, 16_000)


def test_quick_and_picklable() -> None:
    line = record(
        "<think>" + "There is a left effusion. The heart is enlarged. No edema. " * 30 + "</think><answer>A</answer>"
    )
    pickle.loads(pickle.dumps(judge))(line)
    start = time.process_time()
    for _ in range(50):
        judge(line)
    assert (time.process_time() - start) / 50 < 0.005  # asked is 1 ms; room for a busy machine


# ------------------------------------------------------------------------------------------------------- other judges


def item(**more: Any) -> dict[str, Any]:
    return {
        "question": "Which finding is on this film? Options:\nA) effusion\nB) none", "answer": "A", "pred": "A",
        "original_report": REPORT, "reason_steps": ["There is an effusion."], "correct": "Yes, it is.",
        "gt_key_finding": {"key_conclusion": [1, 2, 3, 4]}, "pred_key_finding": {"key_conclusion": [1, 2]},
        "recall_res": {"recalled_count": 1}, "precision_res": {"correct_count": 3},
        "efficiency": {"effective_count": 1, "ineffective_count": 1},
    } | more  # fmt: skip


def test_stored_judgements_keep_their_quirks() -> None:
    line = judge(from_item(item()), judge="stored")
    assert line["correct"] is True
    # 3 of 2 claims are right: believed, not clipped
    assert (line["factuality"], line["completeness"], line["coverage"], line["effectiveness"]) == (1.5, 0.25, 0.25, 0.5)
    assert line["radrscore"] == 0.75
    nothing = judge(from_item(item(efficiency={"effective_count": 0, "ineffective_count": 0})), judge="stored")
    assert (nothing["effectiveness"], nothing["zero_denominators"]) == (0, ["effectiveness"])


@pytest.mark.parametrize(
    "more",
    [
        {"recall_res": None},
        {"pred_key_finding": {"reason_steps": ""}},
        {"efficiency": "none"},
        {"recall_res": {"recalled_count": "2"}},
    ],
)
def test_unusable_judgements_are_left_out(more: dict[str, Any]) -> None:
    line = judge(from_item(item(**more)), judge="stored")
    assert [line[part] for part in PARTS] == [None] * len(PARTS)


def test_a_readers_sheet(tmp_path: Path) -> None:
    told = record(
        "<think>There is a left pleural effusion. The heart is enlarged. There is pneumonia.</think><answer>A</answer>"
    )
    line = judge(told)
    path = tmp_path / "sheet.csv"
    notes = [note | {"row": row} for row, note in enumerate(notes_of(line), 1)]
    blank = sheets.sheet(notes).decode("utf-8-sig").splitlines()
    head = blank[0].replace('"', "").split(",")
    filled = [blank[0]]
    for row, verdict in zip(blank[1:], ("contradicted", "s", ""), strict=True):
        cells = row.split('","')
        cells[head.index("verdict")] = verdict
        filled.append('","'.join(cells))
    path.write_text("\r\n".join(filled), encoding="utf-8-sig")
    verdicts = verdicts_of(sheets.read_sheet(path))
    judged = judge(told, judge="sheet", verdicts=verdicts)
    assert [(c["finding"], c["verdict"]) for c in judged["claims"]] == [
        ("pleural effusion", "contradicted"),
        ("cardiomegaly", "supported"),
    ]
    assert (judged["factuality"], judged["completeness"]) == (0.5, line["completeness"])
    assert judge(told, judge="sheet", verdicts={})["factuality"] is None


def test_unknown_judges_are_refused() -> None:
    with pytest.raises(ValueError, match="rules, stored"):
        judge(record(""), judge="oracle")
    assert {"rules", "stored", "sheet"} <= set(JUDGES)


# ------------------------------------------------------------------------------------------------------------ command


def test_the_examples_are_judged_in_their_order(cxr: Run, tmp_path: Path) -> None:
    predictions = ROOT / "examples" / "predictions.jsonl"
    done = cxr("score", str(predictions), "--details", str(tmp_path / "lines.jsonl"))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in (tmp_path / "lines.jsonl").read_text(encoding="utf-8").splitlines()]
    given = [json.loads(text) for text in predictions.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [record["id"] for record in given]
    assert all(line["judge"] == "rules" for line in lines)


def test_arrays_of_items_are_judged(cxr: Run, tmp_path: Path) -> None:
    details = tmp_path / "lines.jsonl"
    done = cxr(
        *("score", "--judge", "stored", "--details", str(details)), stdin=json.dumps([item(), item(recall_res=None)])
    )
    assert done.returncode == 0, done.stderr
    lines = details.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["radrscore"] for line in lines] == [0.75, None]


def test_a_sheet_is_for_its_judge(cxr: Run, tmp_path: Path) -> None:
    (tmp_path / "sheet.csv").write_text("id,verdict\n", encoding="utf-8")
    assert cxr("score", "-", "--sheet", str(tmp_path / "sheet.csv"), stdin="{}\n").returncode == 2
    assert cxr("score", "-", "--judge", "sheet", stdin="{}\n").returncode == 2


def test_the_example_of_the_docs_is_what_comes_out() -> None:
    steps = [
        ("plan", "Check both costophrenic angles, then the heart and the pleura."),
        ("observe", "There is a moderate left pleural effusion."),
        ("observe", "The heart is not enlarged."),
        ("observe", "No pneumothorax."),
        ("conclude", "So the answer is B, Yes."),
    ]
    record = {
        "id": "r", "task": "binary", "question": "Is there a pleural effusion?", "options": ["No", "Yes"],
        "answer": "B", "report": "Moderate left pleural effusion. The heart is not enlarged. No pneumothorax.",
        "steps": [{"kind": kind, "text": text} for kind, text in steps],
    }  # fmt: skip
    written = ["The heart is not enlarged.", "No rib fracture.", "An effusion is seen, so the answer is B, Yes."]
    denied = ("pleural effusion", "cardiomegaly", "pneumothorax", "consolidation", "rib fracture")
    said = {
        "B": ["There is a moderate right pleural effusion.", *written],
        "A": [f"No {name}." for name in denied],
        "left": ["There is a moderate left pleural effusion.", *written],
    }
    page = (ROOT / "docs" / "judging.md").read_text(encoding="utf-8")
    for answer, told, balanced in (("B", 0.583, 0.0), ("A", 0.622, 0.0), ("left", 0.806, 0.857)):
        letter = "A" if answer == "A" else "B"
        text = "\n\n".join(said[answer])
        line = judge({**record, "prediction": f"<think>{text}</think><answer>{letter}</answer>"})
        assert line["radrscore"] == pytest.approx(told, abs=5e-4)
        assert line["balanced_radrscore"] == pytest.approx(balanced, abs=5e-4)
        assert f"{told:.3f}" in page
