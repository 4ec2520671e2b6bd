"""Every check of `cxr refine`: what it must catch, what it must let pass; and no mend raises anybody's certainty."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cxr_reason import records
from cxr_reason.cli import main
from cxr_reason.radiology import claims
from cxr_reason.refining import rewrite
from cxr_reason.refining.checks import CHECKS
from cxr_reason.refining.study import refine
from cxr_reason.runner import Result
from cxr_reason.streams import Group, Row

EXAMPLES = Path(__file__).parents[1] / "examples" / "reports.csv"
REPORT = (
    "INDICATION: Cough.\n"
    "FINDINGS: There is a small left pleural effusion. There is no pneumothorax. The heart is mildly enlarged. "
    "No large consolidation. Possible atelectasis at the right base. A 12 mm nodule in the left upper lobe.\n"
    "IMPRESSION: Small left pleural effusion."
)
NORMAL = "The lungs are clear. No pleural effusion or pneumothorax. The heart is normal in size."
PLAN = "Look for blunting of the costophrenic angles."
SEEN = "There is a small left pleural effusion."
YES = "So the film does show a left pleural effusion, and the answer is A, Yes."


def record(*steps: Any, **fields: Any) -> dict[str, Any]:
    """A yes-no record about a left pleural effusion; steps without a kind are texts, as others write them."""
    return {
        "id": "S1-binary",
        "study_id": "S1",
        "task": "binary",
        "question": "Does this chest X-ray show a left pleural effusion?",
        "options": ["Yes", "No"],
        "answer": "A",
        "report": REPORT,
        "steps": list(steps) or [PLAN, SEEN, YES],
        **fields,
    }


def run(*given: dict[str, Any], checks: str | None = None, **options: Any) -> Result:
    names = tuple(CHECKS) if checks is None else tuple(checks.split(","))
    settings = {"silence": "normal", "max_steps": 24, "max_chars": 6000, "config": "0" * 12, **options}
    rows = [Row("<test>", number, one) for number, one in enumerate(given, 1)]
    return refine(Group("S1", rows), checks=names, **settings)


def kept(*given: dict[str, Any], **options: Any) -> dict[str, Any]:
    result = run(*given, **options)
    assert not result.rejects, result.rejects[0].reasons
    return result.records[-1]


def rejected(*given: dict[str, Any], **options: Any) -> list[str]:
    """The checks that found something in the last of `given`, the fatal one last."""
    result = run(*given, **options)
    assert result.rejects, [step["text"] for step in result.records[-1]["steps"]]
    return [reason["check"] for reason in result.rejects[-1].reasons]


def texts(refined: dict[str, Any]) -> list[str]:
    return [step["text"] for step in refined["steps"]]


# --------------------------------------------------------------------------------------------------------- whole chains


def test_a_sound_chain_is_kept_as_it_is_and_every_step_gets_its_verdict():
    refined = kept(record())
    assert texts(refined) == [PLAN, SEEN, YES]
    plan, observe, conclude = refined["steps"]
    assert [step["kind"] for step in refined["steps"]] == ["plan", "observe", "conclude"]
    assert "verdict" not in plan
    assert observe["verdict"] == conclude["verdict"] == "supported"
    assert observe["basis"] == "stated"
    [finding] = observe["findings"]
    assert (finding["name"], finding["status"], finding["side"]) == ("pleural effusion", "present", "left")
    assert all("effusion" in REPORT[start:end] for start, end in observe["evidence"])
    assert records.check(refined) == []


def test_what_a_step_claims_is_read_from_its_text_not_from_its_author():
    lie = {"text": SEEN, "kind": "observe", "findings": [{"name": "pneumothorax", "status": "present"}], "note": 7}
    refined = kept(record(PLAN, lie, YES))
    assert [finding["name"] for finding in refined["steps"][1]["findings"]] == ["pleural effusion"]
    assert refined["steps"][1]["note"] == 7


def test_steps_of_others_get_kinds_and_radrbench_calls_them_reason_steps():
    given = record(reason_steps=[f"Step 1: {PLAN}", f"Step 2: {SEEN}", "Step 3: Therefore, the answer is A."])
    del given["steps"]
    refined = kept(given)
    assert [step["kind"] for step in refined["steps"]] == ["plan", "observe", "conclude"]
    assert refined["reason_steps"] == given["reason_steps"]


def test_verdicts_are_told_as_they_are_where_the_claims_are_not_checked():
    wrong = "There is no pleural effusion."
    steps = kept(record(PLAN, SEEN, wrong, YES), checks="degenerate")["steps"]
    assert [step.get("verdict") for step in steps] == [None, "supported", "contradicted", "supported"]


def test_a_record_without_an_id_gets_one_of_its_own():
    nameless = {name: value for name, value in record().items() if name != "id"}
    first, again = kept(nameless), kept(nameless)
    other = kept({**nameless, "question": "Is there a left pleural effusion on this film?"})
    assert first["id"] == again["id"] != other["id"]


def test_a_record_with_broken_fields_is_rejected_by_their_names():
    result = run(record(labels={"Fever": 1}))
    assert "labels" in result.rejects[0].reasons[0]["message"]


def test_numbers_of_steps_follow_when_a_step_is_dropped():
    refined = kept(record(f"1. {PLAN}", "2. There is a right pneumothorax.", f"3. {SEEN}", f"4. {YES}"))
    assert texts(refined) == [f"1. {PLAN}", f"2. {SEEN}", f"3. {YES}"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question": None}, "asks no question"),
        ({"steps": []}, "no steps"),
        ({"steps": None}, "no steps"),
        ({"report": " "}, "no report"),
        ({"answer": None}, "no answer"),
        ({"options": "A or B"}, "options"),
        ({"report": "Es besteht kein Pleuraerguss. Das Herz ist nicht vergrößert. Kein Pneumothorax."}, "English"),
    ],
)
def test_what_can_not_be_judged_is_rejected_with_a_reason_never_lost(change, words):
    result = run(record(**change))
    [reject] = result.rejects
    assert [reason["check"] for reason in reject.reasons] == ["record"]
    assert words in reject.reasons[0]["message"]
    assert reject.record is not None


@pytest.mark.parametrize("steps", [[3, None, SEEN], [{"kind": "observe"}], [{"text": 5, "kind": []}], ["", " "]])
def test_broken_steps_are_a_reason_not_a_crash(steps):
    assert rejected(record(*steps))[-1] == "degenerate"


# ---------------------------------------------------------------------------------------------------------------- talk

TALK = [
    ("leak", "There is a small left pleural effusion, as documented in the report.", SEEN),
    ("leak", "According to the radiology report, there is a small left pleural effusion.", SEEN),
    ("leak", "The report mentions a small left pleural effusion.", "The film shows a small left pleural effusion."),
    ("leak", "The radiologist states that there is a small left pleural effusion.", SEEN),
    ("leak", f"{SEEN} The findings section says so.", SEEN),
    ("prior", "Compared to the prior study, there is a small left pleural effusion.", SEEN),
    ("prior", "There is a small left pleural effusion, unchanged from the previous exam.", SEEN),
    ("prior", "There is a new small left pleural effusion.", SEEN),
    ("prior", "An unchanged left pleural effusion is seen.", "A left pleural effusion is seen."),
    ("prior", "A small left pleural effusion is again seen.", "A small left pleural effusion is seen."),
    ("history", "Given the history of heart failure, there is a small left pleural effusion.", SEEN),
    ("history", f"{SEEN} The patient presents with fever.", SEEN),
    ("advice", f"{SEEN} Clinical correlation is recommended.", SEEN),
    ("advice", "There is a small left pleural effusion, and a follow-up CT is recommended.", SEEN),
]


@pytest.mark.parametrize(("check", "text", "mended"), TALK)
def test_talk_is_taken_out_of_a_step(check, text, mended):
    result = run(record(PLAN, text, YES))
    assert not result.rejects, result.rejects[0].reasons
    assert texts(result.records[0]) == [PLAN, mended, YES]
    assert result.counts[f"mended/{check}"] == 1


@pytest.mark.parametrize(("check", "text", "mended"), TALK)
def test_a_check_that_is_left_out_leaves_its_talk_alone(check, text, mended):
    others = [name for name in ("leak", "prior", "history", "advice", "degenerate") if name != check]
    assert text in texts(kept(record(PLAN, text, YES), checks=",".join(others)))


@pytest.mark.parametrize(
    "text",
    [
        "There is a small left pleural effusion, blunting the left costophrenic angle.",
        "The film shows a small left pleural effusion.",
        "A small left pleural effusion is noted.",
        "There is an old fracture of the left clavicle.",
        "The lungs are clear and well expanded.",
        "There is chronic volume loss.",
        "An endotracheal tube is in place, its tip 4 cm above the carina.",
        "The interstitial markings are increased.",
        "Lung volumes are decreased.",
    ],
)
def test_plain_observations_are_no_talk(text):
    assert rewrite.said(text).talk == ()


def test_a_temporal_chain_may_compare():
    report = "Comparison is made with the study of the day before. The left pleural effusion has increased."
    refined = kept(
        record(
            "Compare the two films for the left pleural effusion.",
            "The left pleural effusion has increased.",
            "The change is for the worse, so the answer is C, worse.",
            task="temporal",
            question="How has the left pleural effusion changed since the prior film?",
            options=["improved", "stable", "worse"],
            answer="C",
            report=report,
            prior_report="There is a small left pleural effusion.",
        )
    )
    assert texts(refined)[1] == "The left pleural effusion has increased."
    worse = [refined["steps"][0], "The left pleural effusion is worse than before.", refined["steps"][2]]
    assert texts(kept({**refined, "steps": worse})) == [texts(refined)[0], worse[1], texts(refined)[2]]
    better = [*refined["steps"][:2], "The left pleural effusion has decreased.", refined["steps"][2]]
    assert texts(kept({**refined, "steps": better})) == texts(refined)
    assert rejected({**refined, "steps": [better[0], *better[2:]]}) == ["claims", "degenerate"]
    assert rejected({**refined, "answer": "B"})[-1] == "conclusion"


HEDGED = [
    "There may be atelectasis at the right base",
    "Atelectasis at the right base is possible",
    "The appearance suggests atelectasis at the right base",
    "There is probably atelectasis at the right base",
    "There is no large consolidation",
    "There is no new consolidation",
    "No definite pneumothorax is seen",
    "There is likely atelectasis versus pneumonia",
    "Atelectasis cannot be excluded",
]
WRAPPED = [
    "According to the report, {}.",
    "{}, as documented by the radiologist.",
    "Compared to the prior study, {}.",
    "{}, unchanged from the previous exam.",
    "Given the history of fever, {}.",
    "{} in this patient with cough.",
    "{}, and clinical correlation is recommended.",
    "The report states that {}.",
    "{}, which may be artifact as noted in the report.",
]


@pytest.mark.parametrize(("statement", "wrapping"), list(product(HEDGED, WRAPPED)))
def test_no_mend_makes_a_statement_stronger(statement, wrapping):
    sentence = rewrite.said(wrapping.format(statement if wrapping[0] == "{" else statement[0].lower() + statement[1:]))
    plain = {(claim.name, claim.status): claim for claim in claims(f"{statement}.")}
    mended = rewrite.mend(sentence, rewrite.TALK)
    if mended is None:
        return
    assert not mended.talk
    for claim in mended.claims:
        before = plain[claim.name, claim.status]
        assert rewrite.CERTAINTY[claim.certainty] <= rewrite.CERTAINTY[before.certainty]
        assert before.bound is None or claim.bound == before.bound


@pytest.mark.parametrize(
    "text",
    [
        "No new consolidation is seen.",
        "There is no residual pneumothorax.",
        "There is a nodule in the left upper lobe, which may be artifact on the prior.",
        "The report says so.",
    ],
)
def test_what_a_mend_would_make_stronger_or_empty_is_not_mended(text):
    assert rewrite.mend(rewrite.said(text), rewrite.TALK) is None


# -------------------------------------------------------------------------------------------------------------- claims


@pytest.mark.parametrize(
    "wrong",
    [
        "There is a right pneumothorax.",
        "There is no pleural effusion.",
        "There is a right pleural effusion.",
        "There is no consolidation.",
        "There is definite atelectasis at the right base.",
        "There is pulmonary edema.",
        "There is no rib fracture.",  # silent, and an observation
        "It looks quite nice over there.",
    ],
)
def test_a_step_that_the_report_does_not_bear_out_is_dropped(wrong):
    result = run(record(PLAN, wrong, SEEN, YES))
    assert not result.rejects, result.rejects[0].reasons
    assert texts(result.records[0]) == [PLAN, SEEN, YES]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("There is a small left pleural effusion, suggesting pulmonary edema.", SEEN),
        (f"{SEEN} There is a right pneumothorax.", SEEN),
    ],
)
def test_a_clause_that_does_not_hold_goes_alone(text, left):
    assert texts(kept(record(PLAN, text, YES))) == [PLAN, left, YES]


def test_a_chain_goes_when_its_one_observation_does():
    assert rejected(record(PLAN, "There is a left pneumothorax.", YES)) == ["claims", "degenerate"]


def test_a_hedge_in_a_sentence_of_its_own_does_not_go_without_what_it_hedges():
    assert rejected(record(PLAN, f"{SEEN} According to the report this may be artifact.", YES))[-1] == "degenerate"


def test_silence_is_no_observation_but_may_be_an_inference():
    question = "Is there a pneumothorax on this film?"
    report = "The heart is normal in size. No pleural effusion."
    wrong = record(
        "Follow the lung edge.",
        "There is no pneumothorax.",
        "There is no pneumothorax, and the answer is B, No.",
        question=question,
        report=report,
        answer="B",
    )
    assert rejected(wrong)[0] == "claims"
    right = record(
        "Follow the lung edge.",
        "There is no pleural effusion.",
        "Nothing points to a pneumothorax, and that has to do as a no: the answer is B, No.",
        question=question,
        report=report,
        answer="B",
    )
    assert texts(kept(right))[-1].startswith("Nothing points")
    plan, _, conclusion = right["steps"]
    assert texts(kept({**right, "steps": [plan, conclusion]})) == [plan, conclusion]
    assert rejected({**right, "steps": [plan, conclusion]}, silence="unknown")[-1] in ("claims", "degenerate")
    assert rejected({**right, "steps": [plan, "There is no pneumothorax, so the answer is B, No."]})[-1] == "claims"
    of_bone = json.loads(json.dumps(right).replace("a pneumothorax", "a rib fracture"))
    assert rejected({**of_bone, "steps": [plan, of_bone["steps"][2]]})[-1] in ("claims", "degenerate")


# ------------------------------------------------------------------------------------------------------------ invented


@pytest.mark.parametrize(
    "text",
    [
        "There is a small left pleural effusion with a meniscus sign.",
        "There is a left pleural effusion, 3 cm in height.",
        "There is a large left pleural effusion.",
        "A 25 mm nodule is seen in the left upper lobe.",
        "A nodule is seen in the right upper lobe.",
        "A spiculated nodule is seen in the left upper lobe.",
    ],
)
def test_invented_signs_and_details_are_dropped(text):
    refined = kept(record(PLAN, text, SEEN, YES), checks="claims,invented")
    assert texts(refined) == [PLAN, SEEN, YES]


@pytest.mark.parametrize("text", ["A 12 mm nodule is seen in the left upper lobe.", "The heart is mildly enlarged."])
def test_details_of_the_report_are_not_invented(text):
    assert text in texts(kept(record(PLAN, text, SEEN, YES), checks="claims,invented"))


def test_a_plan_may_tell_what_would_be_seen():
    plan = "A pleural effusion would blunt the costophrenic angle with a meniscus."
    assert texts(kept(record(plan, SEEN, YES))) == [plan, SEEN, YES]


@pytest.mark.parametrize(
    ("text", "general"),
    [
        ("Look for a meniscus at both lung bases.", True),
        ("First, we assess the lung volumes.", True),
        ("By inspecting the ribs one after the other we would find a step in the cortex.", True),
        ("A pneumothorax would show as a thin white line.", True),
        ("Pneumonia could present as a patchy density.", True),
        ("To answer the question, compare both costophrenic angles.", True),
        ("The signs of edema include thick septa.", True),
        ("Looking at the lung bases, there is an effusion on the left.", False),
        ("Next, we assess the ribs and find a fracture.", False),
        ("The image shows a small effusion.", False),
        ("No such signs are present, ruling out edema.", False),
        ("There may be atelectasis.", False),
        ("A nodule measuring 12 mm in the left upper lobe.", False),
        ("Focus of consolidation at the left base.", False),
        ("The heart is mildly enlarged.", False),
    ],
)
def test_plans_and_general_knowledge_claim_nothing(text, general):
    assert rewrite.said(text).general is general
    assert not (general and rewrite.said(text).claims)


# ---------------------------------------------------------------------------------------------------------- the rest


def test_a_mask_costs_a_step_and_in_the_question_the_chain():
    assert texts(kept(record(PLAN, "There is a XXXX in the left base.", SEEN, YES))) == [PLAN, SEEN, YES]
    for field in ({"question": "Is there a left ___ effusion?"}, {"options": ["Yes", "[**No**]"]}):
        assert rejected(record(**field)) == ["mask"]


def test_what_the_question_does_not_ask_for_is_dropped_from_the_chain():
    result = run(record(PLAN, "The heart is mildly enlarged.", SEEN, YES))
    assert texts(result.records[0]) == [PLAN, SEEN, YES]
    assert result.counts["mended/relevant"] == 1


def test_everything_bears_on_whether_a_film_is_normal():
    given = record(
        "Go over the film in order.",
        "The heart is mildly enlarged.",
        SEEN,
        "So the film is not normal, and the answer is B, Abnormal.",
        task="anomaly",
        question="Is this chest X-ray normal or abnormal?",
        options=["Normal", "Abnormal"],
        answer="B",
    )
    assert len(kept(given)["steps"]) == 4
    assert rejected({**given, "answer": "A"})[-1] == "conclusion"
    assert rejected({**given, "report": NORMAL})[-1] in ("degenerate", "conclusion")


@pytest.mark.parametrize("extra", ["", "Fine.", SEEN, "The left pleural effusion is seen in the"])
def test_empty_repeated_and_broken_steps_are_dropped(extra):
    assert texts(kept(record(PLAN, SEEN, extra, YES))) == [PLAN, SEEN, YES]


def test_a_chain_needs_observations_and_an_end():
    assert rejected(record(PLAN, YES)) == ["degenerate"]
    assert rejected(record(PLAN, SEEN)) == ["degenerate"]


@pytest.mark.parametrize(
    ("question", "answer", "conclusion", "fault"),
    [
        ("Does this chest X-ray show a left pleural effusion?", "B", "The answer is B, No.", "conclusion"),
        ("Does this chest X-ray show a right pleural effusion?", "A", "The answer is A, Yes.", "conclusion"),
        ("Is there a pneumothorax?", "B", "The answer is B, No.", None),
        ("Is there a pneumothorax?", "A", "The answer is A, Yes.", "conclusion"),
        ("Is there a left pleural effusion?", "A", "The answer is B, No.", "answer"),
        ("Is there a left pleural effusion?", "A", "That settles the question for good.", "answer"),
        ("Is there a left pleural effusion?", "C", "The answer is C.", "conclusion"),
    ],
)
def test_the_answer_follows_from_what_was_observed(question, answer, conclusion, fault):
    observed = "There is no pneumothorax." if "pneumothorax" in question else SEEN
    given = record(
        {"text": "Look at the pleura.", "kind": "plan"},
        {"text": observed, "kind": "observe"},
        {"text": conclusion, "kind": "conclude"},
        question=question,
        answer=answer,
    )
    if fault:
        assert rejected(given)[-1] == fault
    else:
        kept(given)


OPTIONS = ["Right pneumothorax", "Small left pleural effusion", "Rib fracture", "Pulmonary edema"]


def choice(*, options: list[str] = OPTIONS, answer: str = "B", **fields: Any) -> dict[str, Any]:
    return record(
        "To choose among the options, look at the pleura and the bones.",
        SEEN,
        f"Only option {answer} agrees with what is seen, so the answer is {answer}, {options[ord(answer) - 65]}.",
        task="single",
        question="Which of these findings is in this chest X-ray?",
        options=options,
        answer=answer,
        **fields,
    )


def test_the_right_option_is_observed_and_no_other_holds():
    kept(choice())
    assert rejected(choice(answer="A"))[-1] in ("conclusion", "claims")
    assert rejected(choice(options=[*OPTIONS[:3], "Mild cardiomegaly"])) == ["conclusion"]
    assert rejected(choice(options=[*OPTIONS[:3], OPTIONS[1]])) == ["conclusion"]


def test_an_open_answer_is_stated_by_the_conclusion():
    given = record(
        "Read the film region by region.",
        SEEN,
        "The heart is mildly enlarged.",
        "Taken together, the answer is: small left pleural effusion, mild cardiomegaly.",
        task="multiple",
        question="Which findings are on this film?",
        options=None,
        answer="small left pleural effusion, mild cardiomegaly",
    )
    kept(given)
    assert rejected({**given, "answer": "small left pleural effusion, pneumonia"})[-1] == "conclusion"
    assert rejected({**given, "answer": "small left pleural effusion"})[-1] == "conclusion"


def test_long_chains_are_rejected_whole():
    assert rejected(record(), max_steps=2) == ["length"]
    assert rejected(record(), max_chars=40) == ["length"]
    kept(record(), max_steps=3)


def test_the_second_of_two_equal_questions_of_a_study_is_rejected():
    again = record(PLAN, "A small left pleural effusion is seen.", YES, id="S1-other")
    assert rejected(record(), again) == ["duplicate"]
    other = record(PLAN, SEEN, YES, id="S1-other", question="Is there a left pleural effusion on this film?")
    assert rejected(record(), other) == ["duplicate"]  # another question, the same chain
    result = run(record(answer="B"), record(id="S1-other"))
    assert len(result.records) == 1  # what was rejected makes no duplicate


# ------------------------------------------------------------------------------------------------------------- command


def lines(*given: dict[str, Any]) -> str:
    return "".join(records.dumps(one) + "\n" for one in given)


def cxr(*arguments: str, text: str) -> Any:
    return CliRunner().invoke(main, ["refine", *arguments], input=text)


MIXED = [
    record(),
    record(PLAN, "There is a new small left pleural effusion.", "There is a right pneumothorax.", YES, study_id="S2"),
    record(PLAN, "There is no pleural effusion.", YES, study_id="S3"),
    {"id": "S4", "study_id": "S4", "report": REPORT, "findings": []},
]


def test_its_own_output_is_left_as_it_is(tmp_path):
    first = cxr(text=lines(*MIXED))
    assert first.exit_code == 0, first.stderr
    assert len(first.stdout.splitlines()) == 2
    second = cxr(text=first.stdout)
    assert second.stdout == first.stdout
    assert "2 in, 2 kept (0 of them mended), 0 rejected" in second.stderr


def test_rejects_tell_a_colleague_why(tmp_path):
    target = tmp_path / "rejects.jsonl"
    result = cxr("--rejects", str(target), text=lines(*MIXED))
    assert "4 in, 2 kept (1 of them mended), 2 rejected" in result.stderr
    told = [json.loads(line) for line in target.read_text().splitlines()]
    assert [reject["record"]["study_id"] for reject in told] == ["S3", "S4"]
    assert [reason["check"] for reason in told[0]["reasons"]] == ["claims", "degenerate"]
    assert told[0]["reasons"][0]["step"] == 2
    assert REPORT not in result.stderr


def test_checks_are_chosen_by_name():
    listed = cxr("--list-checks", text="")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(CHECKS)
    assert cxr("--checks", "nonsense", text=lines(record())).exit_code == 2
    wrong = record(PLAN, SEEN, "The heart is mildly enlarged.", YES)
    for choice_of_checks, steps in (("-relevant", 4), ("relevant", 3), ("claims,answer", 4)):
        result = cxr("--checks", choice_of_checks, text=lines(wrong))
        assert len(json.loads(result.stdout)["steps"]) == steps, choice_of_checks


def test_mined_chains_of_the_examples_hold_and_a_second_pass_changes_nothing(tmp_path):
    mined, once, twice = (tmp_path / name for name in ("mined.jsonl", "once.jsonl", "twice.jsonl"))
    for arguments in (("mine", EXAMPLES, "-o", mined), ("refine", mined, "-o", once), ("refine", once, "-o", twice)):
        assert CliRunner().invoke(main, [*map(str, arguments), "-q"]).exit_code == 0
    assert once.read_bytes() == twice.read_bytes()
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (mined, once))
    assert len(after) > 0.95 * len(before)
    for line in after:
        refined = json.loads(line)
        assert records.check(refined) == []
        assert [entry["stage"] for entry in refined["provenance"]] == ["mine", "refine"]
        for step in refined["steps"]:
            assert step["kind"] == "plan" or step["kind"] == "conclude" or step["findings"]
            for said in rewrite.sentences(step["text"]):
                assert not said.masked
                assert set(said.talk) <= ({"prior"} if refined["task"] == "temporal" else set())


def test_processes_and_order_make_no_difference():
    given = lines(*(record(PLAN, SEEN, YES, id=f"S{n}", study_id=f"S{n}") for n in range(80)), *MIXED)
    assert cxr("--jobs", "2", text=given).stdout == cxr(text=given).stdout
