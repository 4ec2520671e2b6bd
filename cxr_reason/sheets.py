"""Sheets for readers: written blank, read back filled, and compared.

A sheet has a row a claim and no verdict of ours: readers are blind. Rows are told by `id` alone, so that it doesn't
matter what a spreadsheet makes of other cells (a study 00123 becomes 123). The key that stands beside a sheet has our
verdicts under the same ids and is read like a filled sheet.

A spreadsheet runs a cell that begins like a formula. Such cells get an apostrophe in front (OWASP, "CSV Injection"),
and every cell is quoted.
"""

from __future__ import annotations

import csv
import io
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from cxr_reason.agreement import kappa
from cxr_reason.errors import InputError
from cxr_reason.radiology import read
from cxr_reason.records import VERDICTS, letter
from cxr_reason.streams import Input, Row

# What begins a formula in Excel, LibreOffice or Google Sheets, in their full-width forms too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
READERS_COLUMNS = ("reader", "verdict", "side_correct", "severity_correct", "comment")
"""Blank in a new sheet; all but the verdict may stay so."""
NO_EVIDENCE = "(none: read the whole report)"

_SHEET: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "row": lambda note: note["row"],
    "id": lambda note: note["id"],
    "study": lambda note: note["study"],
    "record": lambda note: note["record"],
    "step": lambda note: note["step"],
    "claim": lambda note: note["claim"],
    "question": lambda note: asked(note),
    "step_text": lambda note: note["step_text"],
    "statement": lambda note: note["statement"],
    "finding": lambda note: note["finding"],
    "status": lambda note: note["status"],
    "evidence": lambda note: " … ".join(evidence(note)) or NO_EVIDENCE,
    "report": lambda note: note["report_id"],
    **{column: lambda note: "" for column in READERS_COLUMNS},
}
_KEY: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    **{name: _SHEET[name] for name in ("row", "id", "study", "record", "step", "claim", "finding", "status")},
    "verdict": lambda note: note["verdict"],
    "basis": lambda note: note["basis"],
    "reason": lambda note: note["reason"],
    "kind": lambda note: note["kind"],
    "task": lambda note: note["task"],
    "chain": lambda note: note["chain"],
    "checks": lambda note: " ".join(note["checks"]),
    "stratum": lambda note: note["stratum"],
    "stratum_size": lambda note: note["stratum_size"],
}


# ------------------------------------------------------------------------------------------------------------ written


def sheet(notes: Iterable[Mapping[str, Any]], *, reports: bool = True) -> bytes:
    """The blank sheet for `samples.draw.Sample.chosen`, as CSV. Without `reports` its evidence is left out."""
    return _table(notes, _SHEET if reports else {**_SHEET, "evidence": lambda note: ""})


def key(notes: Iterable[Mapping[str, Any]]) -> bytes:
    """What the sheet doesn't tell: our verdicts, what they rest on, and what became of the chains."""
    return _table(notes, _KEY)


def key_path(path: str | Path) -> Path:
    """Where the key of the sheet `path` stands: review.csv has review.key.csv."""
    path = Path(path)
    return path.with_name(f"{path.name.removesuffix('.csv')}.key.csv")


def _table(notes: Iterable[Mapping[str, Any]], columns: Mapping[str, Callable[[Mapping[str, Any]], Any]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([safe(tell(note)) for tell in columns.values()] for note in notes)
    # Excel takes a file without the mark for one in the machine's own encoding. Half an emoji can't be encoded.
    return file.getvalue().encode("utf-8-sig", "backslashreplace")


def safe(value: Any) -> str:
    """`value` as a cell that no spreadsheet takes for a formula."""
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def asked(note: Mapping[str, Any]) -> str:
    """The question with its options, on one line."""
    options = [f"{letter(number)}: {option}" for number, option in enumerate(note["options"])]
    return f"{note['question']} ({', '.join(options)})" if options else str(note["question"])


def evidence(note: Mapping[str, Any]) -> list[str]:
    """The sentences of the report in which the evidence stands, each on one line."""
    report = report_of(note)
    return [" ".join(report[start:end].split()) for start, end in evidence_spans(note)]


def report_of(note: Mapping[str, Any]) -> str:
    """The report that has to bear the claim out: the one of the film that it is about."""
    report: str = note["prior_report" if note.get("film") == "prior" else "report"]
    return report


def evidence_spans(note: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Where in the report the sentences stand on which the claim's verdict rests."""
    return [
        (sentence.start, sentence.end)
        for sentence in read(report_of(note)).sentences
        if any(start < sentence.end and end > sentence.start for start, end in note["spans"])
    ]


# --------------------------------------------------------------------------------------------------------------- read


@dataclass(frozen=True, slots=True)
class Answer:
    """What one reader says of one claim; None where nothing is said."""

    id: str
    line: int
    study: str
    finding: str
    status: str
    verdict: str | None
    side: bool | None = None
    severity: bool | None = None
    reader: str = ""


_YES_NO = {"y": True, "yes": True, "true": True, "1": True, "n": False, "no": False, "false": False, "0": False}
_NOTHING = frozenset({"", "-", "na", "n/a", "none", "?"})


def read_sheet(path: str | Path) -> list[Answer]:
    """The answers of a filled sheet, or the verdicts of a key.

    Takes what spreadsheets make of a sheet: semicolons or tabs, other encodings, capitals, blanks, columns moved or
    added, empty rows. A verdict may be cut short: "s", "contra".

    Raises InputError, naming line and column, for a cell that can't be understood, a claim twice, a missing column.
    """
    rows = _rows(path)
    columns = {_plain(name): name for name in (rows[0].data or {})}
    if missing := [name for name in ("id", "verdict") if name not in columns]:
        raise InputError(
            f"there is no column {missing[0]!r}",
            where=f"{path}:1",
            hint="A sheet is filled and saved as CSV; its columns keep their names.",
        )
    answers: dict[str, Answer] = {}
    for row in rows:
        cells = {name: str((row.data or {}).get(column, "")).strip() for name, column in columns.items()}
        if not any(cells.values()):
            continue
        answer = _answer(cells, f"{path}:{row.line}", row.line)
        if answer.id in answers:
            what = f"the claim {answer.id} stands in line {answers[answer.id].line} too"
            raise InputError(what, where=f"{path}:{row.line}:id", hint="Delete one of the two rows.")
        answers[answer.id] = answer
    return list(answers.values())


def _rows(path: str | Path) -> list[Row]:
    rows = list(Input(path, formats=("csv",)).rows())
    if any(row.error and row.error.startswith("not utf-8") for row in rows):
        rows = list(Input(path, formats=("csv",), encoding="cp1252").rows())  # as older versions of Excel save it
    if broken := next((row for row in rows if row.error), None):
        raise InputError(str(broken.error), where=f"{path}:{broken.line}", hint="Save the sheet as CSV again.")
    return rows


def _plain(name: str) -> str:
    return "_".join(name.casefold().replace("_", " ").split())


def _answer(cells: Mapping[str, str], where: str, line: int) -> Answer:
    if not cells["id"]:
        raise InputError("a row without its id", where=f"{where}:id", hint="Restore the id from the blank sheet.")
    return Answer(
        id=cells["id"],
        line=line,
        study=cells.get("study", ""),
        finding=cells.get("finding", ""),
        status=cells.get("status", "").casefold(),
        verdict=_verdict(cells["verdict"], f"{where}:verdict"),
        side=_yes_no(cells.get("side_correct", ""), f"{where}:side_correct"),
        severity=_yes_no(cells.get("severity_correct", ""), f"{where}:severity_correct"),
        reader=cells.get("reader", ""),
    )


def _verdict(cell: str, where: str) -> str | None:
    word = cell.casefold().strip(" .'\"")
    if word in _NOTHING:
        return None
    verdict = next((verdict for verdict in VERDICTS if verdict.startswith(word)), None)
    if verdict is None:
        raise InputError(
            f"this is no verdict: a cell says {', '.join(VERDICTS)} (or their first letters), or is empty",
            where=where,
            hint="Mend the cell; remarks have a column of their own, `comment`.",
        )
    return verdict


def _yes_no(cell: str, where: str) -> bool | None:
    word = cell.casefold().strip(" .'\"")
    if word in _NOTHING:
        return None
    if word not in _YES_NO:
        raise InputError("this is neither yes nor no", where=where, hint="Say y or n, or leave it empty.")
    return _YES_NO[word]


# ---------------------------------------------------------------------------------------------------------- agreement


@dataclass(frozen=True, slots=True)
class Kappa:
    """How far two readers agree over `n` claims. All in [-1, 1]; kappa is None where it isn't defined."""

    n: int
    agreement: float
    """Share of the claims with the same verdict."""
    kappa: float | None
    """Cohen's: (agreement - chance) / (1 - chance), chance from each reader's own shares of verdicts."""
    low: float | None
    high: float | None
    """95 % bootstrap interval of kappa."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of `n` claims one reader says yes of."""

    n: int
    share: float | None
    """In [0, 1]; None where n is 0."""
    low: float | None
    high: float | None
    """95 % bootstrap interval; where all or none are, Clopper and Pearson's for as many studies."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What two readers say of one question, each by itself and where both do."""

    first: Share
    second: Share
    both: Kappa | None
    """None where no claim has both their answers."""


@dataclass(frozen=True, slots=True)
class Agreement:
    overall: Kappa
    findings: dict[str, Kappa]
    """By finding, the most frequent first."""
    statuses: dict[str, Kappa]
    """By kind of claim: present, absent, uncertain."""
    supported: Marks
    """Of the claims with a verdict, those that are supported. Where the second is our key of chains that `cxr refine`
    kept, all of that one's are, kappa isn't defined, and this share of the reader's is the precision of our checks."""
    sides: Marks
    """Of the claims with a side that a reader looked at, those whose side is right."""
    severities: Marks
    """The same of severities."""
    unanswered: int
    """Claims of both on which one of the two gives no verdict."""
    unmatched: int
    """Claims that only one of them has."""


@dataclass(frozen=True, slots=True)
class _Pair:
    first: str
    second: str
    study: str


def agreement(first: Sequence[Answer], second: Sequence[Answer], *, draws: int = 1000, seed: int = 0) -> Agreement:
    """How far two filled sheets agree, or a sheet and its key: overall, by finding and by kind of claim.

    Claims of a study aren't independent of each other, so the bootstrap draws studies: `draws` times as many as there
    are, with replacement, by `seed`; with no `draws` there are no intervals. Raises InputError where no claim has a
    verdict in both.
    """
    others = {answer.id: answer for answer in second}
    both = [(answer, others[answer.id]) for answer in first if answer.id in others]
    answered = [(a, b) for a, b in both if a.verdict and b.verdict]
    if not answered:
        raise InputError(
            "the two sheets have no claim on which both give a verdict",
            hint=f"They share {len(both):,} claims: fill their column `verdict`."
            if both
            else "Compare sheets of the same sample: their ids must be the same.",
        )

    def marks(tell: Callable[[Answer], bool | None]) -> Marks:
        ours, theirs = (
            _share([(told, a.study or a.id) for a in answers if (told := tell(a)) is not None], draws, seed)
            for answers in (first, second)
        )
        pairs = [_Pair(str(tell(a)), str(tell(b)), _study(a, b)) for a, b in both if None not in (tell(a), tell(b))]
        return Marks(ours, theirs, _kappa(pairs, draws, seed) if pairs else None)

    def kappas(tell: Callable[[Answer], str]) -> dict[str, Kappa]:
        groups: dict[str, list[_Pair]] = {}
        for a, b in answered:
            groups.setdefault(tell(a) or tell(b), []).append(_pair(a, b))
        told = {name: pairs for name, pairs in groups.items() if name}
        return {name: _kappa(told[name], draws, seed) for name in sorted(told, key=lambda n: (-len(told[n]), n))}

    return Agreement(
        overall=_kappa([_pair(a, b) for a, b in answered], draws, seed),
        findings=kappas(lambda answer: answer.finding),
        statuses=kappas(lambda answer: answer.status),
        supported=marks(lambda answer: answer.verdict == "supported" if answer.verdict else None),
        sides=marks(lambda answer: answer.side),
        severities=marks(lambda answer: answer.severity),
        unanswered=len(both) - len(answered),
        unmatched=len(first) + len(second) - 2 * len(both),
    )


def _pair(first: Answer, second: Answer) -> _Pair:
    assert first.verdict
    assert second.verdict
    return _Pair(first.verdict, second.verdict, _study(first, second))


def _study(first: Answer, second: Answer) -> str:
    return first.study or second.study or first.id


def _share(told: Sequence[tuple[bool, str]], draws: int, seed: int) -> Share:
    """The share of yeses among answers, each with its study."""
    yes, n = sum(said for said, _ in told), len(told)
    if not n:
        return Share(0, None, None, None)
    studies = Counter(study for _, study in told)
    agreed = Counter(study for said, study in told if said)
    low = high = None
    if draws and yes in (0, n):
        # Kish: as many studies of equal size as these are worth.
        margin = 1 - 0.025 ** (sum(size**2 for size in studies.values()) / n**2)
        low, high = (0.0, margin) if not yes else (1 - margin, 1.0)
    elif draws > 1 and len(studies) > 1:
        source, names = random.Random(seed), sorted(studies)
        drawn = []
        for _ in range(draws):
            chosen = source.choices(names, k=len(names))
            drawn.append(sum(agreed[name] for name in chosen) / sum(studies[name] for name in chosen))
        low, *_, high = statistics.quantiles(drawn, n=40, method="inclusive")
    return Share(n, yes / n, low, high)


def _kappa(pairs: Sequence[_Pair], draws: int, seed: int) -> Kappa:
    counts = Counter((pair.first, pair.second) for pair in pairs)
    ordered = sorted(pairs, key=lambda pair: pair.study)
    kinds: dict[tuple[tuple[str, str], ...], int] = {}  # most studies are alike: each draw counts kinds of them
    studies = [
        kinds.setdefault(tuple(sorted((pair.first, pair.second) for pair in own)), len(kinds))
        for _, own in groupby(ordered, key=lambda pair: pair.study)
    ]
    told = list(kinds)
    source = random.Random(seed)
    drawn = []
    for _ in range(draws):
        total: Counter[tuple[str, str]] = Counter()
        for kind, times in Counter(source.choices(studies, k=len(studies))).items():
            for pair in told[kind]:
                total[pair] += times
        drawn.append(kappa(total))
    defined = [value for value in drawn if value is not None]
    low = high = None
    if len(studies) > 1 and len(defined) > 1 and 2 * len(defined) > draws:
        low, *_, high = statistics.quantiles(defined, n=40, method="inclusive")
    agreed = sum(count for (one, other), count in counts.items() if one == other)
    return Kappa(len(pairs), agreed / len(pairs), kappa(counts), low, high)
