"""Which of several texts speaks for all: the majority of their answers, read as `cxr score` reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_reason.rewards.answers import read_answer
from cxr_reason.rewards.options import plain
from cxr_reason.rewards.prose import parts


def answers(record: Mapping[str, Any], texts: Sequence[str]) -> list[str | None]:
    """What each of `texts` answers to the question of `record`: a letter or, where it is open, a text; else None."""
    options = record.get("options") or ()
    found = []
    for text in texts:
        reasoning, tagged = parts(text)
        told = read_answer(
            reasoning, tagged, question=str(record.get("question") or ""), options=options, task=record.get("task")
        )
        found.append(told.chosen)
    return found


def elected(votes: Sequence[str | None]) -> int:
    """The first that gave the answer which most gave; of a tie, the answer that came first. 0 where none is readable.

    Open answers are the same where their words are.
    """
    told = [None if vote is None else plain(vote) for vote in votes]
    counts = Counter(vote for vote in told if vote is not None)
    if not counts:
        return 0
    (winner, _), *_ = counts.most_common(1)  # of equals, the first that was met
    return told.index(winner)
