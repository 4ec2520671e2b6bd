"""Phantoms as a small archive on disk: a folder of films and one file of reports, as `cxr mine` takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from cxr_reason import console, sinks
from cxr_reason.errors import CxrError
from cxr_reason.phantoms.studies import SIZE, Case, cases
from cxr_reason.records import dumps_plain

FILMS, REPORTS = "films", "reports.jsonl"


def write(folder: str | Path, *, count: int, seed: int = 0, size: int = SIZE) -> Path:
    """Write the first `count` studies of the world `seed` into `folder`, and return the path of the reports.

    Every film appears whole or not at all, the reports last: where they stand, all is there. Everything is drawn anew,
    to the same bytes, whatever an earlier run has left. Raises CxrError where nothing can be written, or where films
    lie there that aren't among these.
    """
    films = Path(folder) / FILMS
    try:
        films.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CxrError(error.strerror or "can't be made", where=str(films)) from None
    others = {entry.name for entry in films.iterdir()} - {film_name(index) for index in range(count)}
    if left := sorted(name for name in others if not name.endswith(".partial")):
        raise CxrError(
            f"{len(left):,} files lie here that are none of these {count:,} films, {left[0]} among them",
            where=str(films),
            hint="Name another folder with --out, or remove this one.",
        )
    reports = Path(folder) / REPORTS
    with sinks.opened(reports) as sink, console.progress("demo", count, unit="films") as bar:
        for case in cases(seed, count):
            _save(case, films / film_name(case.index), size)
            sink.write(dumps_plain(row(case)) + b"\n")
            bar.advance()
        sink.commit()
    return reports


def film_name(index: int) -> str:
    return f"S{index:06d}.png"


def row(case: Case) -> dict[str, Any]:
    """What stands in the file of reports for one study."""
    film: dict[str, Any] = {"path": f"{FILMS}/{film_name(case.index)}", "view": case.view}
    if case.portable:
        film["portable"] = True
    return {
        "study_id": case.study_id,
        "patient_id": case.patient_id,
        "study_time": case.study_time,
        "split": case.split,
        "sex": case.sex,
        "age": case.age,
        "view": case.view,
        "images": [film],
        "report": case.report,
        "truth": case.truth,
    }


def _save(case: Case, path: Path, size: int) -> None:
    try:
        with sinks.whole(path) as file:
            Image.fromarray(case.film(size)).save(file, format="PNG")
    except OSError as error:
        raise CxrError(error.strerror or "can't be written", where=str(path)) from None
