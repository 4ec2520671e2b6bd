"""Scoring as the runner sees it: a record with a prediction in, its details line out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_reason import radrbench
from cxr_reason.radiology.verify import Silence
from cxr_reason.rewards import judge
from cxr_reason.rewards.ratios import PARTS
from cxr_reason.runner import Result
from cxr_reason.streams import Row

STAGE = "score"


def items(rows: Iterator[Row]) -> Iterator[Row]:
    """Rows as records, items of RadRBench-CXR's evaluation files among them."""
    return radrbench.records_of(rows)


def score(row: Row, *, judged_by: str, silence: Silence, options: Mapping[str, Any] | None = None) -> Result:
    """The details line of one record. Pure and picklable: it goes to worker processes."""
    assert row.data is not None
    line = judge(row.data, judge=judged_by, silence=silence, **(options or {}))
    counts = {f"judged/{part}": 1 for part in PARTS if line[part] is not None}
    counts |= {f"sum/{part}": line[part] for part in PARTS if line[part] is not None}
    counts |= {"unread": not line["answer_read"], "sum/correct": line["correct"]}
    counts |= {f"zero/{part}": 1 for part in line["zero_denominators"]}
    return Result([line], counts=counts)
