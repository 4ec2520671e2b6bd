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
from cxr_reason.scoring.tables import FEW, FEW_MARK, SHOWN_FINDINGS
from cxr_reason.scoring.tally import MEASURES, cluster_of
from cxr_reason.streams import Input

_DIGITS = 6


def agreement(first: str | Path, second: str | Path, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """How far two judges agree, as one JSON object; see docs/scoring.md.

    Scores are compared where both files are details. Raises InputError where the two have nothing in common.
    """
    told: dict[str, Any] = {"schema": 1, "version": __version__, "first": str(first), "second": str(second)}
    ours, theirs = (None if _is_sheet(path) else _details(path) for path in (first, second))
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
        _filled(path) if lines is None else list(_answers(lines)) for path, lines in ((first, ours), (second, theirs))
    ]
    if "measures" in told and not {one.id for one in answers[0]} & {one.id for one in answers[1]}:
        return told | {"claims": None}  # a judge that tells no claims, such as `stored`
    return told | {"claims": _claims(sheets.agreement(*answers, draws=draws, seed=seed))}


def _is_sheet(path: str | Path) -> bool:
    return Path(path).suffix.casefold() in (".csv", ".tsv")


def _filled(path: str | Path) -> list[sheets.Answer]:
    answers = sheets.read_sheet(path)
    if answers and not any(answer.verdict for answer in answers):
        raise InputError(
            "this sheet is not filled: its column `verdict` is empty everywhere",
            where=str(path),
            hint="The reader writes supported, contradicted or unverifiable into it (or s, c, u) and saves it as CSV.",
        )
    return answers


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
        "supported": _marks(told.supported),
        "side_correct": _marks(told.sides),
        "severity_correct": _marks(told.severities),
        "unanswered": told.unanswered,
        "unmatched": told.unmatched,
    }


def _marks(told: sheets.Marks) -> dict[str, Any]:
    def share(one: sheets.Share) -> dict[str, Any]:
        return {"n": one.n} | {name: _rounded(getattr(one, name)) for name in ("share", "low", "high")}

    both = told.both and _kappa(told.both)
    return {"first": share(told.first), "second": share(told.second), "both": both}


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
    apart = f"{claims['unmatched']:,} claims are in one only, {claims['unanswered']:,} without a verdict in one"
    title = f"Verdicts on claims: {apart}"
    _show_kappas(title, "claims", {"all": claims["overall"]}, file)
    _show_kappas("By what the claim says", "status", claims["statuses"], file)
    _show_kappas("By finding", "finding", claims["findings"], file)
    _show_marks(told, file)
    file.write(_NOTES)


_NOTES = f"""
{FEW_MARK} over fewer than {FEW} claims: chance may have made it.
Kappa is undefined (-) or 0 where one of the two gives the same verdict everywhere, as our key does of chains that
`cxr refine` kept: there the share of claims that the reader supports is the figure to look at.
"""


def _show_kappas(title: str, first: str, groups: Mapping[str, Any], file: TextIO) -> None:
    shown = list(groups.items())[:SHOWN_FINDINGS]
    if more := len(groups) - len(shown):
        title += f" (the {len(shown)} most frequent; {more:,} more in --json)"
    rows = [
        (name, one["n"], _marked(one["agreement"], one["n"]), _marked(one["kappa"], one["n"]), _range(one))
        for name, one in shown
    ]
    console.table(title, [first, "n", "agreement", "kappa", "95 %"], rows, file=file)
    file.write("\n")


_QUESTIONS = {
    "supported": "claim supported",
    "side_correct": "side correct",
    "severity_correct": "severity correct",
}


def _show_marks(told: Mapping[str, Any], file: TextIO) -> None:
    """What each of the two says yes to, and how often both say the same."""
    rows = []
    for question, name in _QUESTIONS.items():
        marks = told["claims"][question]
        for who in ("first", "second"):
            if one := marks[who]["n"]:
                rows.append((name, told[who], one, _marked(marks[who]["share"], one), _range(marks[who])))
        if question != "supported" and (both := marks["both"]):
            rows.append((name, "same in both", both["n"], _marked(both["agreement"], both["n"]), "-"))
    console.table("Share of yes", ["question", "told by", "n", "share", "95 %"], rows, file=file)


def _marked(value: float | None, n: int) -> str:
    return "-" if value is None else f"{value:.3f}{FEW_MARK if n < FEW else ''}"


def _range(told: Mapping[str, Any]) -> str:
    low, high = told["low"], told["high"]
    return "-" if low is None or not low < high else f"{low:.3f} to {high:.3f}"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
