"""PadChest: one CSV, an image a row, with a Spanish report and a list of labels.

    PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv(.gz)

Published by BIMCV (bimcv.cipf.es/bimcv-projects/padchest; Bustos et al., arXiv 1901.07441). Its reports are stems of
Spanish words without punctuation. Some of these look like English ("cardiomegali", "torax normal"), so none of them is
read, whatever the engine thinks of it: they are rejected for their language. The list of labels is read all the same:
it stands in the rows as `Labels`, cleaned of stray spaces, and as columns of CheXpert's names (`padchest.toml`), which
``--labels input`` and other programs can use.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib import resources
from itertools import chain, islice
from typing import Any, ClassVar

from cxr_reason.layouts.archive import Archive, columns_of, dicom_time, first_existing, image, reading
from cxr_reason.records import LABELS, VIEW_NAMES
from cxr_reason.shelves import require_columns, together
from cxr_reason.streams import Input, Row

TABLE = "PADCHEST_chest_x_ray_images_labels_*.csv"
NEEDED = ("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "Projection", "Report", "Labels")
INDEX = "(index)"
PROBED = 200

# Projections as published; EXCLUDE and UNK say nothing of the view.
_VIEWS = {**VIEW_NAMES, "AP_HORIZONTAL": "AP", "L": "LAT", "COSTAL": "other"}
_WAYS = ("{ImageDir}/{ImageID}", "{ImageID}")


class PadChest(Archive):
    language = "es"
    known: ClassVar = {
        **{"study_id": "StudyID", "patient_id": "PatientID", "report": "Report", "images": "images"},
        **{"study_time": "study_time"},
    }
    told: ClassVar = {
        "unusable": "images labelled 'exclude' or 'suboptimal study', whose other labels are not taken over",
        "no labels": "images without labels",
        "no time": "images whose date is none",
    }

    def header(self) -> list[str]:
        kept = [column for column in columns_of(self._table(), NEEDED) if column != INDEX]
        return [*kept, "images", "study_time", *LABELS]

    def _table(self) -> Input:
        path = self._main_file(TABLE, "Give the folder that holds PadChest's table, or the table itself.")
        return Input(path, formats=("csv",), encoding=self.encoding, unnamed=INDEX)

    def _read(self) -> Iterator[Row]:
        with closing(self._table()) as table:
            require_columns(table, NEEDED)
            reading(table.path)
            rows = together(table.rows(), lambda data: (data["PatientID"], data["StudyID"]))
            first = list(islice(rows, PROBED))
            way = self._way(row.data for row in first if row.data)
            for row in chain(first, rows):
                yield row if row.data is None else self._completed(row, row.data, way)

    def _way(self, rows: Iterable[dict[str, str]]) -> str:
        """Whether the images lie in folders named by `ImageDir`, as their zips do, or all in one."""
        samples = ({way: way.format_map(data) for way in _WAYS} for data in rows)
        return first_existing(self.image_root, samples) or _WAYS[0]

    def _completed(self, row: Row, data: dict[str, Any], way: str) -> Row:
        data.pop(INDEX, None)
        text = data["Labels"].strip()
        try:
            names = label_names(text)
        except ValueError:
            return Row(row.file, row.line, None, "Labels is no list, as in ['normal']")
        self.counts["no labels"] += not names
        self.counts["unusable"] += not UNUSABLE.isdisjoint(names)
        data["Labels"] = names
        data["images"] = [image(way.format_map(data), _VIEWS.get(data["Projection"].strip().upper()))]
        data |= chexpert_labels(names)
        if time := dicom_time(data["StudyDate_DICOM"]):
            data["study_time"] = time
        else:
            self.counts["no time"] += 1
        return Row(row.file, row.line, data)


def label_names(text: str) -> list[str]:
    """The names in a list as PadChest writes it, ``['pleural effusion', ' normal', '']``: stripped, each once.

    Raises ValueError where it is no list of texts; nothing and ``nan`` are an empty list.
    """
    if text.lower() in ("", "nan"):
        return []
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("no list of texts")
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


def chexpert_labels(names: Iterable[str]) -> dict[str, str]:
    """CheXpert's labels of a PadChest list: {label: "1"}. Never "0", because PadChest tells only what is present."""
    listed = {name.lower() for name in names} - SILENT
    if not UNUSABLE.isdisjoint(listed):
        return {}
    found = {_LABEL_OF[name] for name in listed if name in _LABEL_OF}
    if len(listed) > 1:
        found.discard("No Finding")
    return {label: "1" for label in LABELS if label in found}


_DATA = tomllib.loads((resources.files(__package__) / "padchest.toml").read_text(encoding="utf-8"))
_LABEL_OF = {name.lower(): label for label, names in _DATA["labels"].items() for name in names}
UNUSABLE = frozenset(_DATA["unusable"]["names"])
SILENT = frozenset(_DATA["silent"]["names"])
assert set(_DATA["labels"]) <= set(LABELS)
