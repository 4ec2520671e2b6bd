"""How far two judges agree: each told by its details of the same predictions, or by a sheet that a reader has filled.

Claims are paired by their ids, scores and answers by item. Both files are held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from cxr_reason import __version__, console, sheets
from cxr_reason.agreement import icc, kappa, pearson
from cxr_reason.errors import InputError
from cxr_reason.scoring.tally import MEASURES, cluster_of
from cxr_reason.streams import Input

_DIGITS = 6


def agreement(first: str | Path, second: str | Path, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """How far two judges agree, as one JSON object; see docs/scoring.md.

    Scores are compared where both files are details. Raises InputError where the two have nothing in common.
    """
    told: dict[str, Any] = {"schema": 1, "version": __version__, "first": str(first), "second": str(second)}
    ours, theirs = (None if str(path).endswith(".csv") else _details(path) for path in (first, second))
    if ours is not None and theirs is not None:
        if not ours.keys() & theirs.keys():
            raise InputError(
                "the two files have no item in common",
                where=str(second),
                hint="Give details of the same predictions by two judges: items are paired by id.",
            )
        told |= {"items": len(ours.keys() & theirs.keys()), "unmatched": len(ours.keys() ^ theirs.keys())}
        told["measures"] = {name: _measure(ours, theirs, field) for name, field in MEASURES.items()}
    answers = [
        sheets.read_sheet(path) if lines is None else list(_answers(lines))
        for path, lines in ((first, ours), (second, theirs))
    ]
    if "measures" in told and not {one.id for one in answers[0]} & {one.id for one in answers[1]}:
        return told | {"claims": None}  # a judge that tells no claims, such as `stored`
    return told | {"claims": _claims(sheets.agreement(*answers, draws=draws, seed=seed))}


def _details(path: str | Path) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for row in Input(path, formats=("jsonl",)).rows():
        if row.data is None or "judge" not in row.data:
            raise InputError(
                row.error or "this is no details line",
                where=f"{path}:{row.line}",
                hint="`cxr score --details FILE` writes them.",
            )
        found[str(row.data.get("id"))] = row.data
    return found


def _answers(lines: Mapping[str, Mapping[str, Any]]) -> Iterator[sheets.Answer]:
    """Each claim as what a reader would say of it."""
    for line in lines.values():
        for number, claim in enumerate(line.get("claims") or ()):
            yield sheets.Answer(
                id=claim["id"],
                line=number,
                study=cluster_of(line)[0],
                finding=claim["finding"],
                status=claim["status"],
                verdict=claim["verdict"],
            )


def _claims(told: sheets.Agreement) -> dict[str, Any]:
    return {
        "overall": _kappa(told.overall),
        "findings": {name: _kappa(one) for name, one in told.findings.items()},
        "statuses": {name: _kappa(one) for name, one in told.statuses.items()},
        "unanswered": told.unanswered,
        "unmatched": told.unmatched,
    }


def _kappa(told: sheets.Kappa) -> dict[str, Any]:
    values = {name: getattr(told, name) for name in ("agreement", "kappa", "low", "high")}
    return {"n": told.n} | {name: _rounded(value) for name, value in values.items()}


def _measure(ours: Mapping[str, Any], theirs: Mapping[str, Any], field: str) -> dict[str, Any]:
    """How far a score agrees, over the items where both judges give it: as numbers, and answers as right or not."""
    both = [(ours[identity].get(field), theirs[identity].get(field)) for identity in ours if identity in theirs]
    pairs = [(float(a), float(b)) for a, b in both if a is not None and b is not None]
    told = {"n": len(pairs), "icc": _rounded(icc(pairs)), "pearson": _rounded(pearson(pairs))}
    if field == "correct":
        told["kappa"] = _rounded(kappa((a == 1, b == 1) for a, b in pairs))
    return told


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def show(told: Mapping[str, Any], file: TextIO) -> None:
    """The tables for people."""
    measures = [
        (name.replace("_", " "), one["n"], *(_text(one.get(part)) for part in ("icc", "pearson", "kappa")))
        for name, one in told.get("measures", {}).items()
        if one["n"]
    ]
    if measures:
        console.table(
            f"Items: {told['items']:,} in both, {told['unmatched']:,} in one only",
            ["part", "n", "ICC", "Pearson", "kappa"],
            measures,
            file=file,
        )
        file.write("\n")
    claims = told["claims"]
    if claims is None:
        file.write("No claim is judged by both.\n")
        return
    groups = {"all": claims["overall"], **claims["statuses"], **claims["findings"]}
    rows = [
        (name, one["n"], _text(one["agreement"]), _text(one["kappa"]), _text(one["low"]), _text(one["high"]))
        for name, one in groups.items()
    ]
    title = f"Verdicts on claims: {claims['unmatched']:,} claims are in one only"
    console.table(title, ["claims", "n", "agreement", "kappa", "95 % from", "to"], rows, file=file)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
