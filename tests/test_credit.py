"""Credit by step: advantages by hand, tokens and where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from cxr_reason.training import credit


@dataclass
class Step:
    start: int
    end: int


def by_step(whole: list[float], credits: list[list[float]], std: list[float], weight: float = 0.5) -> list[list[float]]:
    import torch

    told = credit.by_step(torch.tensor(whole), torch.tensor(credits), torch.tensor(std), weight=weight)
    rows: list[list[float]] = told.tolist()
    return rows


def test_advantages_by_hand() -> None:
    # Two completions. Both speak of effusion, one truly: its mean is 0.5. Only the first speaks of the heart.
    group = [[[("effusion", 1.0, True)], [("heart", 2.0, False)]], [[("effusion", 1.0, False)]]]
    (first, second), (other,) = credit.relative(group)
    assert (first, second, other) == (0.5, 0.0, -0.5)
    rows = by_step([0.8, -0.8], [[0.0, first, first, second, 0.0], [0.0, other, 0.0, 0.0, 0.0]], [0.5, 0.5])
    assert rows[0] == pytest.approx([0.8, 1.3, 1.3, 0.8, 0.8])
    assert rows[1] == pytest.approx([-0.8, -1.3, -0.8, -0.8, -0.8])


def test_a_step_with_several_claims_has_their_mean_by_weight() -> None:
    group = [[[("effusion", 3.0, True), ("heart", 1.0, True)]], [[("effusion", 3.0, False)], [("heart", 1.0, True)]]]
    assert credit.relative(group) == [[pytest.approx(0.375)], [pytest.approx(-0.5), 0.0]]


def test_easy_findings_are_not_held_against_hard_ones() -> None:
    """All deny a pneumothorax truly, and half are right about the effusion: nobody is praised for the denial."""
    easy, right, wrong = [("pneumothorax", 1.0, True)], [("effusion", 1.0, True)], [("effusion", 1.0, False)]
    assert credit.relative([[easy, right], [easy, wrong]]) == [[0.0, 0.5], [0.0, -0.5]]


def test_corrections_of_a_finding_sum_to_nothing() -> None:
    group = [[[("effusion", 1.0, true)]] for true in (True, True, False, True, False)]
    assert sum(row[0] for row in credit.relative(group)) == pytest.approx(0)


@pytest.mark.parametrize("true", [True, False])
def test_steps_of_one_verdict_change_nothing(true: bool) -> None:
    group = [[[("effusion", 1.0, true)], [("heart", 2.0, true)]], [[("heart", 1.0, true)]], []]
    assert credit.relative(group) == [[0.0, 0.0], [0.0], []]
    assert by_step([1.25], [[0.0, 0.0]], [0.3]) == [[1.25, 1.25]]


def test_a_group_without_spread_makes_no_giants() -> None:
    (row,) = by_step([0.0], [[0.5, -0.5]], [0.0])
    assert row == pytest.approx([0.5 * 0.5 / credit.LEAST_STD, -0.5 * 0.5 / credit.LEAST_STD])


# --------------------------------------------------------------------------------------------------------------- tokens


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    from cxr_reason.engines import models

    return AutoTokenizer.from_pretrained(models.resolve("tiny").path)


@pytest.mark.parametrize(
    "text",
    [
        "<think>No pleural effusion.\n\nModerate left pneumothorax.</think>\n<answer>B</answer>",
        "Größe ≥ 3 mm, naïve \u2013 \u201cquotes\u201d 🫁 and \u4e2d\u6587",
        "a",
        "",
    ],
)
def test_tokens_have_their_places(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    spans = credit.token_spans(tokenizer, ids, whole)
    assert len(spans) == len(ids)
    assert spans[-1] == (len(whole), len(whole))
    assert all(one[1] == other[0] for one, other in pairwise(spans))
    for count in range(1, len(ids)):
        told = tokenizer.decode(ids[:count], skip_special_tokens=True)
        if not told.endswith(credit.UNFINISHED):
            assert spans[count - 1][1] == len(told)


def test_ids_that_no_tokenizer_would_choose_have_their_places_too(tokenizer: Any) -> None:
    ids = [token for letter in "No effusion." for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    spans = credit.token_spans(tokenizer, ids, tokenizer.decode(ids))
    assert spans[-1][1] == len(tokenizer.decode(ids))


def test_a_token_belongs_to_the_step_where_it_ends() -> None:
    steps = [Step(2, 6), Step(8, 12)]
    spans = [(0, 3), (3, 6), (6, 7), (7, 9), (9, 12), (12, 12), (12, 14)]
    assert credit.by_token(spans, steps, [1.0, 0.0]) == [1.0, 1.0, None, 0.0, 0.0, None, None]
