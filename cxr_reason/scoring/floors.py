"""Two models that look at no film, made from the same questions: what a score is worth that doesn't beat them?

The *all-negative litany* denies everything that readers always report and picks the negative answer. Most of what
reports say is negative, so the published ratios pay it well. *Most frequent answer* gives the answer that is right most
often in its task and reasons nothing; which one that is, is known only when all items have been seen, so every answer
it might give is tried and the best one counts (`Tally.answers_of`). To questions without options it might give any
of `OPEN`.

Their texts are judged like any model's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_reason.records import letter
from cxr_reason.rewards.guards import denials

LITANY = "all-negative litany"
FREQUENT = "most frequent answer"

_NEGATIVE = re.compile(
    r"^(?:no|normal|none|absent|negative|without|unremarkable|stable|unchanged)\b",
    re.IGNORECASE,
)
# Tasks whose options are the same in every question, so that an answer is a text; elsewhere it is a letter.
_FIXED = frozenset({"binary", "anomaly", "temporal"})
_TRIED = 8
OPEN = ("No finding", "Pleural effusion", "Cardiomegaly", "Lung opacity", "Atelectasis")


def litany(record: Mapping[str, Any]) -> str:
    """What the litany answers to the question of `record`."""
    options = _options(record)
    index = next((number for number, option in enumerate(options) if _NEGATIVE.match(option)), 0)
    return f"<think>{denials()}</think><answer>{letter(index) if options else 'No finding'}</answer>"


def frequent(record: Mapping[str, Any]) -> dict[str, str]:
    """What *most frequent answer* would say to the question of `record`, by each answer that it might always give."""
    if not _options(record):
        return {answer: f"<answer>{answer}</answer>" for answer in OPEN}
    fixed = record.get("task") in _FIXED
    answers = {}
    for number, option in enumerate(_options(record)[:_TRIED]):
        answers[_plain(option) if fixed else letter(number)] = f"<answer>{letter(number)}</answer>"
    return answers


def _options(record: Mapping[str, Any]) -> Sequence[str]:
    options = record.get("options")
    return [option for option in options if isinstance(option, str)] if isinstance(options, list) else []


def _plain(option: str) -> str:
    return option.casefold().strip(" .")
