"""Rewards for reasoning: functions in TRL's signature, verdicts by step, and what cheats are paid."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from cxr_reason.errors import CxrError
from cxr_reason.rewards import functions, guards, process, prose, rules
from cxr_reason.rewards.guards import CHEATS
from cxr_reason.training import linting, rewarding
from cxr_reason.training.runs import Run
from cxr_reason.training.settings import RlSettings

REPORT = "Moderate left pleural effusion. The heart is not enlarged. No pneumothorax. No consolidation."
CHAIN = ["Moderate left pleural effusion.", "No cardiomegaly.", "No pneumothorax.", "So the answer is B, Yes."]
RECORD: dict[str, Any] = {
    "id": "r1", "task": "binary", "question": "Is there a pleural effusion?", "options": ["No", "Yes"], "answer": "B",
    "report": REPORT, "steps": [{"text": text, "kind": "observe"} for text in CHAIN],
}  # fmt: skip


def completion(*steps: str, answer: str = "B") -> str:
    return "<think>" + "\n\n".join(steps) + f"</think>\n<answer>{answer}</answer>"


def columns(count: int = 1, **changed: Any) -> dict[str, list[Any]]:
    return {name: [value] * count for name, value in {**RECORD, **changed}.items()}


def score(*steps: str) -> float:
    (told,) = functions.process([completion(*steps)], **columns())
    assert told is not None
    return told


# ------------------------------------------------------------------------------------------------------------ functions


@pytest.mark.parametrize(
    ("text", "think", "wanted"),
    [
        ("<think>No effusion.</think>\n<answer>A</answer>", True, 1),
        ("  <think>a</think><answer>A</answer>\n", True, 1),
        ("<think></think><answer>A</answer>", True, 0),
        ("<think> \n</think><answer>A</answer>", True, 0),
        ("<answer>A</answer><think>a</think>", True, 0),
        ("<think>a</think><think>b</think><answer>A</answer>", True, 0),
        ("<think>a</think><answer>A</answer><answer>B</answer>", True, 0),
        ("<think>a</think><answer>A", True, 0),
        ("<think>a <think> b</think><answer>A</answer>", True, 0),
        ("<think><answer>A</answer></think><answer>A</answer>", True, 0),
        ("<think>a</think><answer><think></answer>", True, 0),
        ("<think> </think><answer>A</answer>", True, 0),
        ("<think>a < b, <b>c</b></think>\n<answer> < </answer>\n", True, 1),
        ("Well: <think>a</think><answer>A</answer>", True, 0),
        ("<answer>A</answer>", True, 0),
        ("<answer>A</answer>", False, 1),
        ("<think>a</think><answer>A</answer>", False, 0),
        ("", True, 0),
    ],
)
def test_format_wants_the_tags_once_and_in_order(text: str, think: bool, wanted: float) -> None:
    assert functions.format([text], think=[think]) == [wanted]


def test_completions_may_be_conversations_or_texts() -> None:
    text = completion(*CHAIN)
    turns = [{"role": "assistant", "content": text}]
    for function in (functions.format, functions.accuracy, functions.process):
        assert function([turns], **columns()) == function([text], **columns()) == [1.0]


@pytest.mark.parametrize("name", ["format", "accuracy", "process"])
def test_trl_imports_and_calls_them(name: str) -> None:
    """As TRL's script finds a function by its path, and as its trainer calls it."""
    module, function = f"cxr_reason.rewards.functions.{name}".rsplit(".", 1)
    reward = getattr(importlib.import_module(module), function)
    turns = [[{"role": "assistant", "content": completion(*CHAIN)}]] * 2
    more = {"completion_ids": [[1], [2]], "trainer_state": None, "log_extra": print, "log_metric": print}
    assert reward(prompts=[[], []], completions=turns, **more, **columns(2), images=[None, None]) == [1.0, 1.0]


def test_accuracy_reads_the_answer() -> None:
    told = functions.accuracy([completion(*CHAIN), completion(*CHAIN, answer="A"), "no idea"], **columns(3))
    assert told == [1.0, 0.0, 0.0]


def test_accuracy_of_open_answers_is_the_share_of_their_findings() -> None:
    wanted = columns(2, options=None, answer="pleural effusion and cardiomegaly")
    both, one = functions.accuracy(
        ["<answer>cardiomegaly, effusion</answer>", "<answer>cardiomegaly</answer>"], **wanted
    )
    assert both == 1.0
    assert one == pytest.approx(2 / 3)


def test_a_part_of_radrscore_is_what_score_says() -> None:
    text = completion("Moderate left pleural effusion.", "Pneumothorax is present.")
    line = rules.judge_by_rules({**RECORD, "prediction": text})
    for name in ("factuality", "completeness", "balanced_radrscore"):
        assert functions.REWARDS[name]([text], **columns()) == [line[name]]
        assert functions.REWARDS[name].__name__ == name


def test_what_cannot_be_judged_is_worth_nothing_known() -> None:
    assert functions.process([completion(*CHAIN)], **columns(report=None)) == [None]
    assert functions.process([completion(*CHAIN)], **columns(), think=[False]) == [None]
    assert functions.process(["<answer>B</answer>"], **columns()) == [0.0]


# -------------------------------------------------------------------------------------------------------------- process


def test_process_by_hand() -> None:
    # Of the reference two findings are absent and one is there: presence weighs 2.
    assert score(*CHAIN) == 1.0
    # Effusion supported (2), pneumothorax claimed and contradicted (2); told are 2 + 0 of 4.
    factuality, completeness = 2 / 4, 2 / 4
    assert score("Moderate left pleural effusion.", "There is a pneumothorax.") == pytest.approx(
        2 * factuality * completeness / (factuality + completeness)
    )
    # The litany: effusion denied (2, contradicted), both denials supported (1 + 1); told are 2 of 4.
    assert score("No pleural effusion.", "No cardiomegaly.", "No pneumothorax.") == pytest.approx(0.5)


def test_denials_outside_the_reference_weigh_nothing_and_cost_a_little() -> None:
    plain = score("Moderate left pleural effusion.", "There is a pneumothorax.")
    padded = score(
        "Moderate left pleural effusion.", "There is a pneumothorax.", "No rib fracture.", "No consolidation."
    )
    assert plain - 0.1 < padded < plain


def test_repetition_costs_from_the_third_time_on() -> None:
    assert score(*CHAIN, "Moderate left pleural effusion.") == 1.0
    assert score(*CHAIN, *["Moderate left pleural effusion."] * 4) < 1.0


def test_the_other_side_is_an_error() -> None:
    assert score("Moderate right pleural effusion.", *CHAIN[1:]) < score(*CHAIN[1:3], CHAIN[0])


def test_silence_is_normal_unless_it_is_unknown() -> None:
    """What the report doesn't mention is an error, or next to nothing; what it denies is an error either way."""
    unmentioned, denied = (
        completion(*CHAIN, f"There is {finding}.") for finding in ("pulmonary edema", "pneumothorax")
    )

    def scores(silence: str) -> list[float]:
        reward = rewarding.resolve("process", silence=silence)  # type: ignore[arg-type]
        return [value or 0.0 for value in reward(prompts=["", ""], completions=[unmentioned, denied], **columns(2))]

    normal, unknown = scores("normal"), scores("unknown")
    assert max(normal) < 0.9
    assert 0.95 < unknown[0] < 1
    assert unknown[1] == normal[1]
    (told,) = functions.examined([unmentioned], silence="unknown", **columns())
    assert len(process.steps(told, unmentioned)) == 3  # what is neither true nor false has no verdict


@pytest.mark.parametrize(
    "both",
    [
        ("There is a moderate left pleural effusion.", "There is no pleural effusion."),
        ("No pleural effusion.", "Moderate left pleural effusion."),
        ("A moderate left pleural effusion is seen. No, there is no left pleural effusion.",),
    ],
)
def test_who_says_both_has_told_neither(both: tuple[str, ...]) -> None:
    report = "Moderate left pleural effusion."
    record = columns(report=report, steps=[{"text": report, "kind": "observe"}])
    assert functions.process([completion(*both)], **record) == [0.0]
    assert functions.process([completion("Moderate left pleural effusion.")], **record) == [1.0]


def test_a_clear_region_beside_a_finding_takes_nothing_back() -> None:
    told = ("Calcified granuloma in the right lung.", "The lungs are otherwise clear.", "No left pleural effusion.")
    record = columns(report=" ".join(told), steps=[{"text": text, "kind": "observe"} for text in told])
    assert functions.process([completion(*told)], **record) == [1.0]


def test_silence_is_one_of_two() -> None:
    with pytest.raises(CxrError, match="silence can't be 'maybe'"):
        RlSettings(silence="maybe").check()  # type: ignore[arg-type]


def test_steps_have_their_places_and_verdicts() -> None:
    text = completion("**Lungs:** look first.", "There is a pneumothorax.", "Moderate left pleural effusion.", CHAIN[3])
    told = functions.examined([text], **columns())[0]
    found = process.steps(told, text)
    assert [(text[one.start : one.end], one.verdict) for one in found] == [
        ("There is a pneumothorax.", 0.0),
        ("Moderate left pleural effusion.", 1.0),
    ]


def test_a_step_with_two_claims_has_the_mean_by_weight() -> None:
    text = completion("No cardiomegaly, but a pneumothorax.")
    (step,) = process.steps(functions.examined([text], **columns())[0], text)
    assert step.verdict == pytest.approx(1 / 3)  # presence weighs 2


def test_spans_are_found_through_markup_and_line_breaks() -> None:
    text = "<think>1. **Heart**: The heart\nis enlarged.\n2. *No* effusion.</think><answer>A</answer>"
    told = prose.steps(prose.parts(text)[0])
    places = prose.spans(text, told)
    assert len(places) == 2
    assert all(places)
    first, second = (text[place[0] : place[1]] for place in places if place)
    assert first.startswith("Heart") or first.startswith("1.")
    assert first.endswith("is enlarged.")
    assert second.endswith("effusion.")


# --------------------------------------------------------------------------------------------------------------- guards


MIX = {"format": 1.0, "accuracy": 1.0, "process": 1.0}


def examples() -> list[dict[str, Any]]:
    from trainings import read

    return read(Path(__file__).parents[1] / "examples" / "predictions.jsonl")


def test_every_cheat_is_paid_less_than_one_error_on_the_examples() -> None:
    told = guards.lint(examples(), MIX, functions.REWARDS)
    assert told.items >= 20
    assert told.honest > told.error
    assert {margin.name for margin in told.margins} == set(CHEATS)
    assert {margin.name: margin.margin for margin in told.margins if margin.margin <= 0} == {}
    assert {margin.name: margin.below for margin in told.margins if margin.below < 0.95} == {}


def test_a_mix_that_pays_cheats_is_named() -> None:
    told = guards.lint(examples(), {"format": 1.0, "accuracy": 1.0}, functions.REWARDS)
    assert any(margin.margin <= 0 for margin in told.margins)
    assert "A model will find that out" in linting.table(told)
    assert "| all-negative litany |" in linting.table(told)


def test_records_of_normal_films_are_left_out_of_the_table() -> None:
    normal = {**RECORD, "report": "No effusion.", "steps": [{"text": "No effusion.", "kind": "observe"}]}
    told = guards.lint([normal, RECORD], MIX, functions.REWARDS)
    assert (told.items, told.left_out) == (1, 1)


def test_nothing_to_look_at_is_said() -> None:
    told = guards.lint([], MIX, functions.REWARDS)
    assert "Nothing could be looked at" in linting.table(told)


# ------------------------------------------------------------------------------------------------------------ rewarding


def test_rewards_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "our_rewards.py").write_text(
        "def length(completions, **columns):\n    return [min(1.0, len(text) / 100) for text in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert rewarding.resolve("our_rewards:length")(prompts=[""], completions=["x" * 50]) == [0.5]


@pytest.mark.parametrize("name", ["nonsense", "radeval:nonsense", "no_such_module:f", "math:no_such", "math:pi"])
def test_an_unknown_reward_is_refused(name: str) -> None:
    with pytest.raises(CxrError):
        rewarding.resolve(name)


def failing(completions: list[str], **columns: Any) -> list[Any]:
    if any("bad" in text for text in completions):
        raise RuntimeError(f"the secret of {completions}")
    return [float("nan") if "nan" in text else "one" if "word" in text else 1 for text in completions]


def test_a_reward_that_fails_names_itself_and_the_item(capsys: pytest.CaptureFixture[str]) -> None:
    reward = rewarding.Surviving("ours", failing)
    told = reward(prompts=[""] * 4, completions=["fine", "bad", "nan", "word"], id=["a", "b", "c", "d"])
    assert told == [1.0, None, None, None]
    assert reward.failures == 3
    said = capsys.readouterr().err
    assert "the reward ours raised RuntimeError on item b" in said
    assert "secret" not in said


def test_a_strict_reward_ends_the_run() -> None:
    with pytest.raises(CxrError, match="raised RuntimeError on item b"):
        rewarding.Surviving("ours", failing, strict=True)(prompts=[""], completions=["bad"], id=["b"])


def test_a_reward_of_another_length_ends_the_run() -> None:
    with pytest.raises(CxrError, match="2 numbers for 1 completions"):
        rewarding.Surviving("ours", lambda **_: [1, 2])(prompts=[""], completions=[""], id=["a"])


def test_lint_reads_the_records_of_a_run() -> None:
    file = Path(__file__).parents[1] / "examples" / "predictions.jsonl"
    told = linting.lint(Run(inputs=[str(file)], model="", out=Path(), settings=RlSettings()))
    assert told.items >= 20
