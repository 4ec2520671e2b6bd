"""The judges by name: who says of a prediction what is true in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cxr_reason.radiology.verify import Silence
from cxr_reason.rewards.llm import judge_as_told
from cxr_reason.rewards.readers import judge_by_sheet
from cxr_reason.rewards.rules import judge_by_rules
from cxr_reason.rewards.stored import judge_as_stored

Judge = Callable[..., dict[str, Any]]

JUDGES: dict[str, Judge] = {
    "rules": judge_by_rules, "stored": judge_as_stored, "sheet": judge_by_sheet, "llm": judge_as_told,
}  # fmt: skip
"""Each takes a record, `silence` and options of its own, and gives the fields of a details line that aren't the
record's. Raises for nothing that a record may hold."""


def judge(
    record: Mapping[str, Any], *, judge: str = "rules", silence: Silence = "normal", **options: Any
) -> dict[str, Any]:
    """The details line of `record`: what it holds, and what the judge of that name says of its prediction.

    `options` are the judge's own: `sheet` needs `verdicts`, a reader's by claim, `llm` what the model has
    `told` in the conversation `rewards.llm.judging`. Pure, and never raises for anything
    that a record may hold; raises ValueError for an unknown `judge` or `silence`. The line's fields are listed in
    docs/judging.md.
    """
    if judge not in JUDGES:
        raise ValueError(f"there is no judge {judge!r}; there are {', '.join(JUDGES)}")
    if silence not in ("normal", "unknown"):
        raise ValueError(f"silence must be 'normal' or 'unknown', not {silence!r}")
    return {**record, "judge": judge, **JUDGES[judge](record, silence=silence, **options)}
