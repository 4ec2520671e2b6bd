"""The `stored` judge: the judgements that RadRBench-CXR's evaluation files bring with them, GPT-4o's by the reference.

Its ratios are kept with their quirks: counts are believed as they stand and never clipped, so that a share can exceed
1; completeness is the published recall, which counts a finding as recalled once it is named, whatever its status; a
denominator of zero gives 0; an item where any of the three answers is unusable is left out (all scores None). An answer
is right where the stored verdict has a yes in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxr_reason.rewards.ratios import DIGITS, unjudged


def judge_as_stored(record: Mapping[str, Any], *, silence: str = "normal") -> dict[str, Any]:
    """The published judgements of a record that was an evaluation item; `silence` decides nothing here."""
    correct = record.get("correct")
    result: dict[str, Any] = {"chosen": None, "answer_read": correct is not None, "correct": correct is True}
    nothing: dict[str, Any] = {"claims": [], "reference": [], "topics": [], "steps": [], "supports_answer": None}
    shares = _shares(record)
    if shares is None:
        return result | unjudged() | nothing
    zero = [name for name, share in shares.items() if share is None]
    scores = {name: round(share or 0.0, DIGITS) for name, share in shares.items()}
    scores["radrscore"] = round(sum(share or 0.0 for share in shares.values()) / 3, DIGITS)
    return result | unjudged() | scores | {"coverage": scores["completeness"], "zero_denominators": zero} | nothing


def _shares(record: Mapping[str, Any]) -> dict[str, float | None] | None:
    """The share of each part, None where it is of nothing; None for all where one of the answers can't be used."""
    try:
        steps = record["efficiency"]["effective_count"] + record["efficiency"]["ineffective_count"]
        return {
            "factuality": _share(record["precision_res"]["correct_count"], len(record["pred_key_finding"][_FOUND])),
            "completeness": _share(record["recall_res"]["recalled_count"], len(record["gt_key_finding"][_FOUND])),
            "effectiveness": _share(record["efficiency"]["effective_count"], steps),
        }
    except (KeyError, TypeError):
        return None


_FOUND = "key_conclusion"


def _share(count: Any, of: Any) -> float | None:
    return float(count / of) if of else None
