"""A sample of claims for a colleague's eye: what the chains claim, without what we make of it.

Every claim of every chain is eligible, as its author wrote it: those of chains that are kept, those of steps that are
dropped and those of chains that are rejected. Claims are sampled from strata (by finding, verdict and basis, as asked
for), as evenly as they go: each stratum in turn gives the claim with the smallest hash that is left. So the sample is a
function of the seed and the claims alone, whatever their order and the number of processes.

Memory is that of the sample. With N claims wanted and S strata, about N + S are held: what comes so late in its stratum
that the others together already fill the sample is dropped for good.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any

from cxr_reason import runner
from cxr_reason.errors import TooManyFailures
from cxr_reason.radiology import Finding
from cxr_reason.refining.chain import Chain, Problem
from cxr_reason.sinks import opened
from cxr_reason.streams import Input, stable_hash

Note = dict[str, Any]
"""One claim with all that a reader or the key needs. JSON: a run that is continued takes it from its journal."""

STRATA: dict[str, Callable[[Note], str]] = {
    "finding": lambda note: str(note["finding"]),
    "status": lambda note: str(note["status"]),
    "verdict": lambda note: str(note["verdict"]),
    "basis": lambda note: str(note["basis"]),
    "task": lambda note: str(note["task"]),
    "kind": lambda note: str(note["kind"]),
    "chain": lambda note: str(note["chain"]),
}
"""What claims can be sampled by."""

_rank = itemgetter("rank")


# ------------------------------------------------------------------------------------------------------ what is noted


def claims_of(chain: Chain, identity: str) -> list[Note]:
    """The claims of `chain`, before any check has mended it. `judged` adds what became of them."""
    report_id = f"r{stable_hash(chain.judge.report):016x}"
    shared = {
        "study": str(chain.record.get("study_id") or ""),
        "record": identity,
        "report_id": report_id,
        "report": chain.judge.report,
        "task": chain.task,
        "question": chain.question,
        "options": list(chain.options),
    }
    notes = []
    for step in chain.steps:
        if step.kind == "plan":
            continue
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
                        "step_text": step.passage.text,
                        "sentence": sentence.text,
                        "claim": number,
                        "statement": in_words(claim),
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


# --------------------------------------------------------------------------------------------------------- the sample


class Sample:
    """`count` claims spread over strata `by` some of `STRATA`; the `runner.Aside` of a run that notes claims."""

    def __init__(self, count: int, *, by: Sequence[str], seed: int = 0) -> None:
        self.count = count
        self.by = tuple(by)
        self.seed = seed
        self.restore(None)

    def restore(self, state: Any) -> None:
        """Go on from a `state`; None is the start."""
        state = state or {"deep": self.count, "sizes": {}, "held": {}}
        self._deep: int = state["deep"]
        """How many of a stratum may still be wanted."""
        self._sizes = Counter[str](state["sizes"])
        self._held: dict[str, list[Note]] = state["held"]
        """By stratum, those with the smallest ranks, in order."""

    def state(self) -> Any:
        return {"deep": self._deep, "sizes": self._sizes, "held": self._held}

    def add(self, notes: Sequence[Note]) -> None:
        for note in notes:
            stratum = " / ".join([STRATA[name](note) for name in self.by])
            self._sizes[stratum] += 1
            held = self._held.setdefault(stratum, [])
            if len(held) >= self._deep and note["rank"] >= held[-1]["rank"]:
                continue
            place = bisect_left(held, note["rank"], key=_rank)
            if held[place : place + 1] and held[place]["rank"] == note["rank"]:
                continue  # the same claim of the same record, met twice
            held.insert(place, note)
            self._cut()

    def _cut(self) -> None:
        while self._deep > 1 and sum(min(len(held), self._deep - 1) for held in self._held.values()) >= self.count:
            self._deep -= 1
        for held in self._held.values():
            del held[self._deep :]

    @property
    def strata(self) -> int:
        return len(self._sizes)

    def chosen(self) -> list[Note]:
        """The sample, the claims of a report together; each with its `id`, `row`, `stratum` and that one's size."""
        drawn = sorted(
            (place, stable_hash(self.seed, stratum), stratum, note)
            for stratum, held in self._held.items()
            for place, note in enumerate(held)
        )[: self.count]
        notes = [
            note | {"id": f"c{note['rank']:016x}", "stratum": stratum, "stratum_size": self._sizes[stratum]}
            for _, _, stratum, note in drawn
        ]
        notes.sort(key=lambda n: (stable_hash(self.seed, n["report_id"]), n["record"], n["step"], n["claim"]))
        return [note | {"row": row} for row, note in enumerate(notes, 1)]


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
    """Refine as `runner.run` does, with a `work` that notes claims, and write the sample of them.

    `sheet` is a table for the reader; beside it stands its key, ``NAME.key.csv``, with our verdicts. `html` is a page
    to read by. Without `reports` both do without report text. All appear whole, when the run has come to its end.
    """
    from cxr_reason import sheets
    from cxr_reason.refining import page

    writers: dict[str | Path, Callable[[list[Note]], bytes]] = {}
    if sheet:
        writers[sheet] = lambda notes: sheets.sheet(notes, reports=reports)
        writers[sheets.key_path(sheet)] = sheets.key
    if html:
        writers[html] = lambda notes: page.page(notes, reports=reports)
    drawn = {"sample": sample.count, "stratify": sample.by, "seed": sample.seed}
    with ExitStack() as stack:
        sinks = {} if dry_run else {path: stack.enter_context(opened(path)) for path in writers}

        def write() -> None:
            notes = sample.chosen()
            for path, sink in sinks.items():
                sink.write(writers[path](notes))
                sink.commit()

        try:
            summary = runner.run(source, work, config={**config, **drawn}, aside=sample, dry_run=dry_run, **stream)
        except TooManyFailures:  # raised when everything else is written
            write()
            raise
        write()
        return summary
