"""CheXpert Plus: one large CSV, an image a row, each with the whole report, and labels as JSON lines.

    df_chexpert_plus_240401.csv    path_to_image, frontal_lateral, ap_pa, deid_patient_id, report, section_…, split, …
    impression_fixed.json          path_to_image and 14 labels (1.0, 0.0, -1.0, null), an image a line; also
                                   report_fixed.json and findings_fixed.json, in any folder below

Published by Stanford AIMI (Chambon et al., arXiv 2405.19538; github.com/Stanford-AIMI/chexpert-plus). A study is a
patient and a folder of `path_to_image`: study1 alone comes in each patient. There are no dates: the order of a
patient's reports is `patient_report_date_order`.

Each image has a report of its own, anonymised by itself: within a study they differ in made-up dates and names
(Stanford-AIMI/chexpert-plus, issue 13), and so do their labels. The first one is taken for the study, with its labels.

Labels are of one section each. Those of the impression are taken where they are here, then those of the report, then
those of the findings: the report's tell also what the history asks for, and those of empty findings are "No Finding".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, ClassVar

from cxr_reason import columns
from cxr_reason.layouts.archive import Archive, columns_of, image, reading
from cxr_reason.records import LABELS, VIEW_NAMES
from cxr_reason.shelves import Shelf, key_text, require_columns, together
from cxr_reason.streams import Input, Row

TABLE = "df_chexpert_plus_*.csv"
LABEL_FILES = tuple(
    f"{folder}{name}_fixed.json" for name in ("impression", "report", "findings") for folder in ("", "*/")
)
NEEDED = ("path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order", "report")

# Parts of the report, which is there as a whole: not carried along a second time.
_PARTS = {f"section_{part}" for part in ("narrative", "clinical_history", "procedure_comments", "summary")}
_PARTS.add("section_end_of_impression")

_STUDY = re.compile(r"(patient[0-9]+)/(study[0-9]+)/")


class ChexpertPlus(Archive):
    known: ClassVar = {
        **{"study_id": "study_id", "patient_id": "deid_patient_id", "report": "report", "images": "images"},
        **{"study_order": "patient_report_date_order"},
    }
    told: ClassVar = {
        "other report": "reports that differ from the first one of their study, left aside",
        "no labels": "images without a line in the file of labels",
        "no image": "lines of labels about images that the table doesn't have",
    }

    def header(self) -> list[str]:
        kept = [column for column in columns_of(self._table(), NEEDED) if column not in _PARTS]
        return ["study_id", "images", *kept, *(LABELS if self._labels_file() else ())]

    def _table(self) -> Input:
        path = self._main_file(TABLE, "Give the folder that holds CheXpert Plus's table, or the table itself.")
        return Input(path, formats=("csv",), encoding=self.encoding)

    def _labels_file(self) -> Path | None:
        return self._one_file(*LABEL_FILES)

    def _read(self) -> Iterator[Row]:
        with ExitStack() as stack:
            table = stack.enter_context(closing(self._table()))
            require_columns(table, NEEDED)
            labels = None
            if path := self._labels_file():
                reading(path)
                lines = Input(path, formats=("jsonl",), encoding=self.encoding)
                labels = stack.enter_context(closing(Shelf(lines, "path_to_image")))
            reading(table.path)
            study, report = "", ""
            for row in together(_checked(table.rows()), lambda data: _study(data["path_to_image"])):
                if row.data is not None:
                    data, found = self._completed(row.data, labels)
                    if data["study_id"] != study:
                        study, report = data["study_id"], ""
                    if report and data["report"]:
                        self.counts["other report"] += data["report"] != report
                        data["report"] = ""
                    if not report:
                        report = data["report"]
                        data |= found
                    row.data = data
                yield row
            if labels is not None:
                self.counts["no image"] = labels.keys - labels.found

    def _completed(self, data: dict[str, Any], labels: Shelf | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The row with its study and image, and the labels of its report."""
        path = data["path_to_image"]
        data = {"study_id": "/".join(_study(path)), **data}
        data["images"] = [image(path, _view(data))]
        if labels is None:
            return data, {}
        lines = labels.find(key_text(path))
        self.counts["no labels"] += not lines
        # Only the labels, whatever else a line may hold.
        return data, {label: line[name] for line in lines for label, name in columns.label_columns(line).items()}


def _checked(rows: Iterator[Row]) -> Iterator[Row]:
    """Rows without the parts of the report. Those whose path names no study are unreadable: whose images are they?"""
    for row in rows:
        if row.data is not None and not _STUDY.search(row.data["path_to_image"]):
            row = Row(row.file, row.line, None, "path_to_image names no patient and study (patient00001/study1/…)")
        if row.data is not None:
            row.data = {name: row.data[name] for name in row.data if name not in _PARTS}
        yield row


def _study(path: str) -> tuple[str, str]:
    found = _STUDY.search(path)
    assert found is not None
    return found[1], found[2]


def _view(data: Mapping[str, str]) -> str | None:
    if data["frontal_lateral"].strip().lower() == "lateral":
        return "LAT"
    return VIEW_NAMES.get(data["ap_pa"].strip().upper())
