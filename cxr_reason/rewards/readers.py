"""The `sheet` judge: a reader's verdicts on the claims of predictions, from a filled sheet; the rest is the rules'.

`notes_of` gives the claims of a details line for a blank sheet (`samples` draws them), `verdicts_of` takes the verdicts
of a filled one. A claim keeps its id whatever else stands in its prediction. The reader decides what is
factual; which claims there are, what the reference holds and which steps are effective is told by the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cxr_reason.radiology.verify import Silence
from cxr_reason.rewards.ratios import ratios, unjudged
from cxr_reason.rewards.rules import judge_by_rules
from cxr_reason.sheets import Answer
from cxr_reason.streams import stable_hash


def judge_by_sheet(
    record: Mapping[str, Any], *, silence: Silence = "normal", verdicts: Mapping[str, str]
) -> dict[str, Any]:
    """The rules' line with a reader's `verdicts` (by claim id). Claims without one are left out of every ratio.

    A line none of whose claims has a verdict, though it makes some, isn't judged.
    """
    line = judge_by_rules(record, silence=silence)
    if line["factuality"] is None:
        return line
    known = [
        {**claim, "verdict": verdict, "basis": "stated" if verdict != "supported" else claim["basis"]}
        for claim in line["claims"]
        if (verdict := verdicts.get(claim["id"]))
    ]
    if line["claims"] and not known:
        return {**line, **unjudged(), "claims": []}
    return {**line, **ratios(known, line["reference"], line["topics"], line["steps"]), "claims": known}


def verdicts_of(answers: Iterable[Answer]) -> dict[str, str]:
    """The verdicts of a filled sheet by claim id; claims that the reader left open are not among them."""
    return {answer.id: answer.verdict for answer in answers if answer.verdict}


def report_id(report: str, before: str = "") -> str:
    """What tells the report, or the two reports, that a claim is read by."""
    return f"r{stable_hash(report, *([before] if before else [])):016x}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def notes_of(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The claims of a details line, with what `sheets.sheet` and `sheets.key` tell of each but its place there."""
    report, before = (_text(line.get(name)) for name in ("report", "prior_report"))
    return [
        {
            "id": claim["id"],
            "study": str(line.get("study_id") or ""),
            "record": str(line.get("id") or ""),
            "report_id": report_id(report, before),
            "report": report,
            "prior_report": before,
            "film": claim.get("film", "current"),
            "task": str(line.get("task") or ""),
            "question": str(line.get("question") or ""),
            "options": list(line.get("options") or ()),
            "step": claim["step"] + 1,
            "step_text": line["steps"][claim["step"]]["text"],
            "sentence": line["steps"][claim["step"]]["text"],
            "claim": number,
            "statement": claim["text"],
            "finding": claim["finding"],
            "status": claim["status"],
            "spans": claim["spans"],
            "verdict": claim["verdict"],
            "basis": claim["basis"],
            "reason": "",
            "kind": "observe",
            "chain": "",
            "checks": [],
            "model": str(line.get("model") or ""),
        }
        for number, claim in enumerate(line["claims"], 1)
    ]
