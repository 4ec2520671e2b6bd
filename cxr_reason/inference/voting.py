"""Which of several texts speaks for all: the majority of their answers, read as `cxr score` reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_reason.rewards.options import plain
from cxr_reason.rewards.rules import read_prediction


def answers(record: Mapping[str, Any], texts: Sequence[str]) -> list[str | None]:
    """What each of `texts` answers to the question of `record`: a letter or, where it is open, a text; else None."""
    return [read_prediction(record, text)[0].chosen for text in texts]


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
