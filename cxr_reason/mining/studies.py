"""What the rows of a study say of it: its ids, images, report and labels, as fields of a record."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from cxr_reason import columns, records
from cxr_reason.apart import split_of
from cxr_reason.mining import labels
from cxr_reason.mining.settings import Settings
from cxr_reason.streams import Group, Row, stable_id

_SEXES = dict.fromkeys(("f", "female", "w", "weiblich", "frau", "femenino", "mujer", "féminin", "femme"), "F")
_SEXES |= dict.fromkeys(("m", "male", "männlich", "maennlich", "mann", "masculino", "hombre", "masculin", "homme"), "M")
"""One way of writing, so that `cxr score --by sex` counts each once. What isn't here stays as the input has it."""


def tables_of(unit: Group | Row) -> list[dict[str, Any]]:
    rows = [unit] if isinstance(unit, Row) else unit.rows
    return [row.data for row in rows if row.data is not None]


def labels_of(tables: list[dict[str, Any]], settings: Settings) -> tuple[dict[str, int], str]:
    """The input's labels of a study, and why there are none where they can't be read."""
    try:
        return labels.given(tables, settings.label_columns), ""
    except ValueError as error:
        return {}, f"{error}."


def study_of(tables: list[dict[str, Any]], settings: Settings, *, with_labels: bool = False) -> dict[str, Any]:
    """The study's own fields. Rows of one study are its images; reports that differ stand one after the other.

    `with_labels` keeps the columns of labels as they are.
    """
    mapping, first = settings.mapping, tables[0]
    reports = dict.fromkeys(text for table in tables if (text := columns.compose_report(table, mapping)))
    report = "\n".join(reports)
    images: list[Any] = []
    for image in (image for table in tables for image in _images(table, settings)):
        if image not in images:  # a row may stand there twice
            images.append(image)
    identity = columns.cell(first, mapping, "study_id") or stable_id(report or images)
    study: dict[str, Any] = {"study_id": identity}
    for name in ("patient_id", "sex", "age", "study_time", "prior_study_id"):
        if name in mapping and (text := columns.cell(first, mapping, name)):
            study[name] = _SEXES.get(text.casefold(), text) if name == "sex" else text
    if split := split_of(first, mapping):
        study["split"] = split
    if images:
        study["images"] = images
    if isinstance(prior := first.get("prior_report"), str) and prior.strip():
        study["prior_report"] = prior.strip()
    study["report"] = report
    ours = _own_columns((*mapping.values(), *(() if with_labels else settings.label_columns.values())))
    study |= {name: value for name, value in first.items() if name not in ours and value not in (None, "")}
    return study


@lru_cache(maxsize=64)
def _own_columns(mapped: tuple[str, ...]) -> frozenset[str]:
    """Columns that don't pass through untouched: those that were used, and those that would be taken for ours."""
    return frozenset(mapped) | frozenset(records.FIELDS)


def _images(table: Mapping[str, Any], settings: Settings) -> Iterator[Any]:
    column = settings.mapping.get("images")
    view = records.VIEW_NAMES.get(columns.cell(table, settings.mapping, "view").upper())
    for image in columns.image_list(table.get(column)) if column else ():
        entry = dict(image) if isinstance(image, dict) else {"path": image}
        if settings.image_root and isinstance(entry.get("path"), str):
            entry["path"] = _below(settings.image_root, entry["path"])
        if view:
            entry.setdefault("view", view)
        yield entry if len(entry) > 1 else entry.get("path")


def _below(root: str, path: str) -> str:
    """`path` with `root` before it, unless it begins so already: records that were mined are mined again."""
    return path if os.path.normpath(path).startswith(os.path.normpath(root) + os.sep) else os.path.join(root, path)


# --------------------------------------------------------------------------------------------------------- two films


def split_by_role(study: dict[str, Any]) -> list[Any]:
    """Take the images that the input calls those of a prior out of `study`, and the roles off the others."""
    images = study.get("images", [])
    prior = [image for image in images if isinstance(image, dict) and image.get("role") == "prior"]
    if any(isinstance(image, dict) and "role" in image for image in images):
        study["images"] = [_without_role(image) for image in images if image not in prior]
    return [_without_role(image) for image in prior]


def _without_role(image: Any) -> Any:
    if not isinstance(image, dict):
        return image
    left = {name: value for name, value in image.items() if name != "role"}
    return left if len(left) > 1 else left.get("path")


def of_two_films(
    study: Mapping[str, Any], *, prior_id: str | None, prior_report: str | None, prior_images: Iterable[Any]
) -> dict[str, Any]:
    """The study's fields with those of the one before: its images follow the current ones."""
    both = dict(study)
    if prior_id:
        both["prior_study_id"] = prior_id
    if prior_report is not None:
        both["prior_report"] = prior_report
    pairs = (("current", study.get("images", ())), ("prior", prior_images))
    images = [
        {**(image if isinstance(image, dict) else {"path": image}), "role": role}
        for role, some in pairs
        for image in some
    ]
    if images:
        both["images"] = images
    return both
