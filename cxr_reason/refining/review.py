"""A sample of claims for a colleague's eye: what the chains claim, without what we make of it.

Every claim of every chain is eligible, as its author wrote it: those of chains that are kept, those of steps that are
dropped and those of chains that are rejected. How the sample is drawn: `samples.draw`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_reason import runner
from cxr_reason.errors import TooManyFailures
from cxr_reason.radiology import Finding
from cxr_reason.refining.chain import Chain, Problem
from cxr_reason.rewards.readers import report_id
from cxr_reason.samples.draw import Note, Sample, files
from cxr_reason.streams import Input, stable_hash

STRATA = ("finding", "status", "verdict", "basis", "task", "kind", "chain")
"""What claims can be sampled by."""


# ------------------------------------------------------------------------------------------------------ what is noted


def claims_of(chain: Chain, identity: str) -> list[Note]:
    """The claims of `chain`, before any check has mended it. `judged` adds what became of them."""
    before = chain.record.get("prior_report")
    before = before if isinstance(before, str) else ""
    shared = {
        "study": str(chain.record.get("study_id") or ""),
        "record": identity,
        "report_id": report_id(chain.judge.report, before),
        "report": chain.judge.report,
        "prior_report": before,
        "task": chain.task,
        "question": chain.question,
        "options": list(chain.options),
    }
    notes = []
    for step in chain.steps:
        if step.kind == "plan":
            continue
        prior = step.prior and chain.before is not None
        verdicts = iter(chain.verdicts(step))
        number = 0
        for sentence in step.passage.sentences:
            for claim, verdict in zip(sentence.claims, verdicts, strict=False):
                number += 1
                notes.append(
                    shared
                    | {
                        "step": step.number,
                        "kind": step.kind,
                        "film": "prior" if prior else "current",
                        "step_text": step.passage.text,
                        "sentence": sentence.text,
                        "claim": number,
                        "statement": in_words(claim) + (" (on the film before)" if prior else ""),
                        "finding": claim.name,
                        "status": claim.status,
                        "verdict": verdict.verdict,
                        "basis": verdict.basis,
                        "reason": verdict.reason,
                        "spans": verdict.spans,
                    }
                )
    return notes


def judged(notes: list[Note], problems: Sequence[Problem], *, kept: bool, seed: int) -> list[Note]:
    """`notes` with what the checks found, whether the chain was kept, and their places in the draw."""
    for note in notes:
        note["chain"] = "kept" if kept else "rejected"
        note["checks"] = sorted({problem.check for problem in problems if problem.step == note["step"]})
        place = (note["record"], note["step"], note["claim"], note["sentence"])
        note["rank"] = stable_hash("review", seed, *place)
        note["id"] = f"c{note['rank']:016x}"
    return notes


def in_words(claim: Finding) -> str:
    """A claim for a reader: "mild left pleural effusion: present", "large effusion: absent", "pneumonia: possible"."""
    what = [claim.bound, claim.change, claim.acuity, claim.severity, claim.size, claim.side, claim.name]
    told = " ".join(filter(None, what))
    if claim.site and claim.site not in told:
        told += f" ({claim.site})"
    if tip := (claim.device or {}).get("tip"):
        told += f", tip {tip}"
    if claim.time == "resolved":
        told += ", resolved"
    if claim.status != "uncertain":
        return f"{told}: {claim.status}"
    return f"{told}: {_GRADES.get(claim.certainty, claim.certainty)}"


_GRADES = {"definite": "uncertain", "differential": "one of several possibilities"}


# ------------------------------------------------------------------------------------------------------------ the run


def run(
    source: Input,
    work: Callable[[Any], runner.Result],
    sample: Sample,
    *,
    sheet: str | Path | None = None,
    html: str | Path | None = None,
    reports: bool = True,
    config: Mapping[str, Any],
    dry_run: bool = False,
    **stream: Any,
) -> runner.Summary:
    """Refine as `runner.run` does, with a `work` that notes claims, and write the sample of them (`draw.files`)."""
    drawn = {"sample": sample.count, "stratify": sample.by, "seed": sample.seed}
    places = {} if dry_run else {"sheet": sheet, "html": html}
    with files(sample, **places, reports=reports) as write:
        try:
            summary = runner.run(source, work, config={**config, **drawn}, aside=sample, dry_run=dry_run, **stream)
        except TooManyFailures:  # raised when everything else is written
            write()
            raise
        write()
        return summary
