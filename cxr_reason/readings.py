"""The engine's reading of a report, as a record carries it from `cxr mine` to `cxr refine`.

Reading a report is most of the work of either, and it is a pure function of the text. So mine seals what it read, and
refine takes the reading from the record where the seal fits: the report, the findings and the engine are then those
that mine had. Where anything differs, a word of the report or a rule of the engine, the report is read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from cxr_reason import records
from cxr_reason.radiology import Finding, Reading

_NOTHING = vars(Finding("", None, ""))


def seal(report: str, findings: Sequence[Mapping[str, Any]], normal: bool) -> str:
    """16 hex digits that stand for a report, what this engine reads in it, and the engine."""
    told = records.dumps_plain({"report": report, "findings": findings, "normal": normal})
    return hashlib.blake2b(told, key=_engine(), digest_size=8).hexdigest()


def sealed(record: Mapping[str, Any], report: str) -> Reading | None:
    """The reading of `report` that `record` carries, None where it carries none, or one that its seal doesn't fit.

    It lacks what only mine asks for, the limits of the film.
    """
    provenance, findings, normal = record.get("provenance"), record.get("findings"), record.get("normal")
    first = provenance[0] if isinstance(provenance, list) and provenance else None
    given = first.get("reading") if isinstance(first, dict) else None
    if not isinstance(given, str) or not isinstance(findings, list) or not isinstance(normal, bool):
        return None
    try:
        if given != seal(report, findings, normal):
            return None
    except ValueError:  # an infinite size, which is none of ours
        return None
    return Reading(report, [_finding(entry) for entry in findings], [], 1.0, None, unread=not normal)


def _finding(entry: Mapping[str, Any]) -> Finding:
    finding = Finding.__new__(Finding)  # several times as fast as __init__
    finding.__dict__ = {**_NOTHING, "alternatives": [], **entry}
    return finding


@cache
def _engine() -> bytes:
    """What stands for the engine: a hash of its code and its lexicon."""
    parts = sorted(
        (part for part in files("cxr_reason.radiology").iterdir() if part.is_file()), key=lambda part: part.name
    )
    told = hashlib.blake2b(digest_size=32)
    for part in parts:
        told.update(part.name.encode() + b"\0" + part.read_bytes())
    return told.digest()
