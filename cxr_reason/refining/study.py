"""Refining as the runner sees it: the records of one study in, those that hold out, the others with their reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxr_reason import __version__, radrbench
from cxr_reason.radiology.verify import Silence
from cxr_reason.records import check, stamp
from cxr_reason.refining import review
from cxr_reason.refining.chain import Chain, Judge, NotAChain, Problem
from cxr_reason.refining.checks import judge
from cxr_reason.runner import Reject, Result, Unit
from cxr_reason.streams import Group, Row, group_consecutive, record_id

STAGE = "refine"


def by_study(rows: Iterator[Row]) -> Iterator[Group | Row]:
    """Adjacent records of one study as a unit, so that repetitions are seen; a record without a study is one alone.

    Items of RadRBench-CXR become records here.
    """
    return group_consecutive(radrbench.records_of(rows), lambda row: _text((row.data or {}).get("study_id")))


def refine(
    unit: Unit,
    *,
    checks: Sequence[str],
    silence: Silence,
    max_steps: int,
    max_chars: int,
    config: str,
    review_seed: int | None = None,
) -> Result:
    """Judge the records of `unit` with `checks` (names of `CHECKS`). Pure and picklable: it goes to worker processes.

    `silence` is `verify`'s: whether "normal" or "unknown" is made of what a report doesn't mention. `config` is the
    hash of the options that is noted as provenance. With a `review_seed` the claims are noted, for
    `samples.draw.Sample`.
    """
    result, counts = Result(), Counter[str]()
    judges: dict[str, Judge] = {}
    seen: set[Any] = set()
    for row in unit.rows if isinstance(unit, Group) else (unit,):
        record = row.data
        assert record is not None
        try:
            chain = Chain.of(record, judges, silence=silence, max_steps=max_steps, max_chars=max_chars, seen=seen)
        except NotAChain as error:
            problems = [Problem("record", str(error), fatal=True)]
        else:
            notes = [] if review_seed is None else review.claims_of(chain, record_id(record))
            problems = judge(chain, checks=checks)
            if review_seed is not None:
                result.notes += review.judged(notes, problems, kept=not _refused(problems), seed=review_seed)
        if not _refused(problems):
            written = _written(record, chain, silence=silence, config=config)
            if not _is_ours(record):
                problems.extend(Problem("record", f"{fault}.", fatal=True) for fault in check(written))
        if _refused(problems):
            counts[f"rejected/{problems[-1].check}"] += 1
            reasons = [problem.as_reason() for problem in problems]
            result.rejects.append(Reject(_text(record.get("id")), STAGE, reasons, record, row.line))
            continue
        seen.update(chain.keys().values())
        if problems:
            counts["mended"] += 1
            counts.update(f"mended/{name}" for name in {problem.check for problem in problems})
        result.records.append(written)
    result.counts = counts
    return result


def _is_ours(record: Mapping[str, Any]) -> bool:
    """Whether this version made `record`. Its fields are then as they should be; looking at each takes a tenth of all
    the time. What it claims is verified all the same."""
    provenance = record.get("provenance")
    first = provenance[0] if isinstance(provenance, list) and provenance else None
    return isinstance(first, dict) and first.get("stage") == "mine" and first.get("version") == __version__


def _refused(problems: Sequence[Problem]) -> bool:
    return bool(problems) and problems[-1].fatal


def _written(record: Mapping[str, Any], chain: Chain, *, silence: Silence, config: str) -> dict[str, Any]:
    """`record` with its steps as they are now."""
    return stamp(
        {**record, "id": record_id(record), "steps": chain.as_steps()},
        stage=STAGE,
        config=config,
        silence=silence,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
