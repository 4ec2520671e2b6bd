"""How far two judges agree: two details files of the same predictions, or two sheets that readers have filled.

Claims are paired where both judges see the same one: the same item, step, finding, side and denial or not. Scores and
answers are paired by item. Both files are held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from cxr_reason import __version__, console
from cxr_reason.agreement import icc, kappa, pearson
from cxr_reason.errors import InputError
from cxr_reason.refining import sheets
from cxr_reason.scoring.tally import MEASURES, cluster_of
from cxr_reason.streams import Input

_DIGITS = 6


def agreement(first: str | Path, second: str | Path, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """How far two judges agree, as one JSON object; see docs/scoring.md.

    Raises InputError where the files aren't of one kind, or have nothing in common.
    """
    is_sheet = [str(path).endswith(".csv") for path in (first, second)]
    if is_sheet[0] != is_sheet[1]:
        raise InputError(
            "a sheet and a details file have no claims in common",
            where=str(second),
            hint="Compare two sheets (.csv), or two details files of the same predictions.",
        )
    told: dict[str, Any] = {"schema": 1, "version": __version__, "first": str(first), "second": str(second)}
    if is_sheet[0]:
        claims = sheets.agreement(*map(sheets.read_sheet, (first, second)), draws=draws, seed=seed)
        return told | {"claims": _claims(claims), "measures": {}}
    ours, theirs = (_details(path) for path in (first, second))
    if not ours.keys() & theirs.keys():
        raise InputError(
            "the two files have no item in common",
            where=str(second),
            hint="Give details of the same predictions by two judges: items are paired by id.",
        )
    told |= {"items": len(ours.keys() & theirs.keys()), "unmatched": len(ours.keys() ^ theirs.keys())}
    answers = [list(_answers(lines)) for lines in (ours, theirs)]
    shared = {answer.id for answer in answers[0]} & {answer.id for answer in answers[1]}
    claims_told = _claims(sheets.agreement(*answers, draws=draws, seed=seed)) if shared else None
    return told | {
        "claims": claims_told,
        "measures": {name: _measure(ours, theirs, field) for name, field in MEASURES.items()},
    }


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
    """Each claim as what a reader would say of it, once."""
    seen = set()
    for identity, line in lines.items():
        for number, claim in enumerate(line.get("claims") or ()):
            if claim.get("verdict") is None:
                continue
            what = (claim.get("step"), claim.get("finding"), claim.get("side"), claim.get("status") == "absent")
            key = " | ".join(map(str, (identity, *what)))
            if key not in seen:
                seen.add(key)
                yield sheets.Answer(
                    id=key,
                    line=number,
                    study=cluster_of(line)[0],
                    finding=str(claim.get("finding") or ""),
                    status=str(claim.get("status") or ""),
                    verdict=str(claim["verdict"]),
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
        for name, one in told["measures"].items()
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
