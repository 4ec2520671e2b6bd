"""`cxr mine --backend llm`: the rules' questions and answers, with chains by a language model (`refining.llm`).

Which questions are asked and what their answers are is told by the rules as ever. The chain that the rules would give
is what a question falls back on with ``--on-failure rules``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cxr_reason.engines.asking import Talk, together
from cxr_reason.mining import miner
from cxr_reason.mining.settings import Settings
from cxr_reason.refining.chain import Judge, Problem
from cxr_reason.refining.checks import CHECKS
from cxr_reason.refining.llm import Writer, Written, write
from cxr_reason.runner import Reject, Result
from cxr_reason.streams import Group, Row


def mined(unit: Group | Row, *, settings: Settings, writer: Writer) -> Talk[Result]:
    """The records of one study, their chains written by the model, or the reasons why a chain was refused."""
    result = miner.mine(unit, settings)
    if settings.findings_only or not result.records:
        return result
    judges: dict[str, Judge] = {}
    told = yield from together([write(record, judges, writer) for record in result.records])
    records: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    counts: Counter[str] = Counter()
    seen: set[Any] = set()
    for record, written in zip(result.records, told, strict=True):
        if written.chain is not None:
            _refuse_repetition(written, seen)
        counts.update(written.counts)
        if written.chain is not None:
            records.append({**record, "steps": written.chain.as_steps()})
        elif writer.on_failure == "rules":
            records.append({**record, "provenance": _by_rules(record)})
        else:
            rejects.append(written.reject(record, "mine"))
    return Result(records, [*result.rejects, *rejects], Counter(result.counts) + counts)


def _refuse_repetition(written: Written, seen: set[Any]) -> None:
    """Refuse a chain that an earlier one of the study has told already."""
    chain = written.chain
    assert chain is not None
    chain.seen = seen
    repeated: list[Problem] = list(CHECKS["duplicate"].look(chain))
    if repeated:
        written.chain, written.problems = None, repeated
    else:
        seen.update(chain.keys().values())


def _by_rules(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The provenance of `record` as it is where the rules' chain was kept."""
    told = [{**entry, "backend": "rules"} for entry in record["provenance"]]
    for entry in told:
        entry.pop("model", None)
    return told
