"""Rewards in TRL's signature: lists of completions and columns in, a number in [0, 1] or None for each out.

`cxr rl` takes them by name (``--reward process=1``), and so does TRL's own script, by import path:

    trl grpo --reward_funcs cxr_reason.rewards.functions.process …

What they need of a record comes as columns of the data set: ``question``, ``options``, ``answer``, ``task``, and for
the reasoning ``report``, ``prior_report`` and ``steps``. They are the very functions of `cxr score`: one completion
gets one judgement, however many rewards ask for it. None says that a reward doesn't apply to an item; `format` always
applies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from cxr_reason.radiology.verify import Silence
from cxr_reason.records import dumps_plain, loads
from cxr_reason.rewards import process as processes
from cxr_reason.rewards import rules
from cxr_reason.rewards.ratios import PARTS

Reward = Callable[..., Sequence[float | None]]
"""(prompts, completions, **columns) -> a number for each completion."""

COLUMNS = ("id", "task", "question", "options", "answer", "report", "prior_report", "steps")
"""What a judgement is made of; those that a data set lacks are taken for null."""
REMEMBERED = 4096
"""Judgements that are kept for the next reward of the same batch."""

_UNTAGGED = r"<(?!/?(?:think|answer)>)"
# Possessive, so that the length of a malformed text, which a model that is learning writes many of, costs no more.
_TEXT = rf"\s*+(?=[^\s<]|{_UNTAGGED})[^<]*+(?:{_UNTAGGED}[^<]*+)*+"
_THOUGHT = re.compile(rf"\s*+<think>{_TEXT}</think>\s*+<answer>{_TEXT}</answer>\s*+")
_ANSWERED = re.compile(rf"\s*+<answer>{_TEXT}</answer>\s*+")


def texts(completions: Sequence[Any]) -> list[str]:
    """Completions as TRL has them, conversations or plain texts, as texts."""
    return [told if isinstance(told, str) else "".join(str(turn["content"]) for turn in told) for told in completions]


def format(completions: Sequence[Any], think: Sequence[bool] | None = None, **columns: Any) -> list[float]:
    """1 where the tags are there, once and in order, with something in each; `think`: whether reasoning is asked."""
    return [
        float((_THOUGHT if thinks else _ANSWERED).fullmatch(text) is not None)
        for text, thinks in zip(texts(completions), _thinks(completions, think), strict=True)
    ]


def _thinks(completions: Sequence[Any], think: Sequence[bool] | None) -> Sequence[bool]:
    """Whether reasoning was asked for each completion; everywhere, where nothing is said."""
    return [True] * len(completions) if think is None else think


def accuracy(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1 for the right option; open-ended: F1 over findings, hierarchy-aware."""
    rows = _rows(completions, columns)
    return [rules.correctness({**row, "prediction": text}) for row, text in zip(rows, texts(completions), strict=True)]


def process(completions: Sequence[Any], think: Sequence[bool] | None = None, **columns: Any) -> list[float | None]:
    """How true and complete the reasoning is (`cxr_reason.rewards.process`).

    This and the parts take ``silence`` too: with "unknown" instead of "normal", a finding that the report doesn't
    mention is neither true nor false.
    """
    return _reasoned(completions, think, columns, processes.score)


def part(name: str) -> Reward:
    """The reward that is one of the scores of `cxr_reason.rewards.ratios`."""

    def reward(completions: Sequence[Any], think: Sequence[bool] | None = None, **columns: Any) -> list[float | None]:
        return _reasoned(completions, think, columns, lambda told: told.line[name] if told.judged else None)

    reward.__name__ = reward.__qualname__ = name
    reward.__doc__ = f"``{name}`` of `cxr score`."
    return reward


def _reasoned(
    completions: Sequence[Any],
    think: Sequence[bool] | None,
    columns: Mapping[str, Any],
    value: Callable[[rules.Examined], float | None],
) -> list[float | None]:
    told = examined(completions, **columns)
    return [value(one) if thinks else None for one, thinks in zip(told, _thinks(completions, think), strict=True)]


REWARDS: dict[str, Reward] = {
    "format": format, "accuracy": accuracy, "process": process, **{name: part(name) for name in PARTS},
}  # fmt: skip
"""Ours, by the name that ``--reward`` takes."""
OF_REASONING = frozenset({"process", *PARTS})
"""Those that need a report and a reference chain."""


def examined(completions: Sequence[Any], *, silence: Silence = "normal", **columns: Any) -> list[rules.Examined]:
    """What the rules make of each completion; the same completion of the same record is judged once."""
    rows = _rows(completions, columns)
    return [_examined(dumps_plain(row), text, silence) for row, text in zip(rows, texts(completions), strict=True)]


@lru_cache(maxsize=REMEMBERED)
def _examined(row: bytes, text: str, silence: Silence) -> rules.Examined:
    return rules.examine({**loads(row), "prediction": text}, silence=silence)


def _rows(completions: Sequence[Any], columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records that completions belong to, of the columns of their batch."""
    there = [name for name in COLUMNS if columns.get(name) is not None]
    return [{name: columns[name][index] for name in there} for index in range(len(completions))]
