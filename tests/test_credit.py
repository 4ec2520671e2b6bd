"""Credit by step: advantages by hand, tokens and where they stand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from cxr_reason.training import credit

NAN = float("nan")


@dataclass
class Step:
    start: int
    end: int
    verdict: float


def by_step(
    whole: list[float], verdicts: list[list[float]], std: list[float], weight: float = 0.5
) -> list[list[float]]:
    import torch

    told = credit.by_step(torch.tensor(whole), torch.tensor(verdicts), torch.tensor(std), weight=weight)
    rows: list[list[float]] = told.tolist()
    return rows


def test_advantages_by_hand() -> None:
    # Four tokens of steps, their mean verdict (1 + 1 + 0 + 0.5) / 4 = 0.625; sigma 0.5, lambda 0.5.
    (row,) = by_step([0.8], [[NAN, 1.0, 1.0, 0.0, 0.5, NAN]], [0.5])
    assert row == pytest.approx([0.8, 0.8 + 0.375, 0.8 + 0.375, 0.8 - 0.625, 0.8 - 0.125, 0.8])


def test_corrections_sum_to_nothing() -> None:
    for row, whole in zip(by_step([0.3, -1.0], [[1, 0, 0.2, NAN], [0, 0, 1, 1]], [0.4, 2.0]), [0.3, -1.0], strict=True):
        assert sum(value - whole for value in row) == pytest.approx(0, abs=1e-6)


def test_steps_of_one_verdict_change_nothing() -> None:
    (row,) = by_step([1.25], [[0.5, 0.5, NAN, 0.5]], [0.3])
    assert row == [1.25] * 4
    assert by_step([-0.5], [[NAN] * 3], [0.3]) == [[-0.5] * 3]


def test_a_group_without_spread_makes_no_giants() -> None:
    (row,) = by_step([0.0], [[1.0, 0.0]], [0.0])
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
    steps = [Step(2, 6, 1.0), Step(8, 12, 0.0)]
    told = credit.verdicts_of([(0, 3), (3, 6), (6, 7), (7, 9), (9, 12), (12, 12), (12, 14)], steps)
    assert [None if math.isnan(value) else value for value in told] == [1.0, 1.0, None, 0.0, 0.0, None, None]
