"""MIMIC-CXR beside MIMIC-CXR-JPG: a tree of reports, one text a study, and tables about images, splits and labels.

    files/p10/p10000032/s50414267.txt                  the report (or under mimic-cxr-reports/, as its zip unpacks)
    files/p10/p10000032/s50414267/<dicom_id>.jpg       its images (.dcm in MIMIC-CXR)
    mimic-cxr-2.0.0-metadata.csv.gz                    an image a row: study, view, date and time
    mimic-cxr-2.0.0-split.csv.gz                       an image a row: train, validate or test
    mimic-cxr-2.0.0-chexpert.csv.gz, -negbio.csv.gz    a study a row: 14 labels

Published at physionet.org/content/mimic-cxr and /mimic-cxr-jpg, which describe these files. One row a report. The
tables' other columns about single images (`Rows`, `PatientOrientation…`) are left out: a row is a study.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, ClassVar

from cxr_reason import columns
from cxr_reason.errors import InputError
from cxr_reason.layouts.archive import Archive, dicom_time, first_existing, image, names_in, reading
from cxr_reason.records import LABELS, VIEW_NAMES
from cxr_reason.shelves import Shelf, require_columns
from cxr_reason.streams import Input, Row

TREES = ("mimic-cxr-reports/files", "mimic-cxr-reports", "files")
SUFFIXES = ("jpg", "dcm", "png")
PROBED = 200

_GROUP = re.compile(r"p[0-9]{2}")
_PATIENT = re.compile(r"p[0-9]{8}")
_REPORT = re.compile(r"s[0-9]{8}\.txt")
_ANY_TEXT = re.compile(r"[^.].*\.txt")

# What the study is called there, the same for all its images.
_OF_STUDY = ("PerformedProcedureStepDescription", "ProcedureCodeSequence_CodeMeaning", "StudyDate", "StudyTime")


class Mimic(Archive):
    known: ClassVar = {
        **{"study_id": "study_id", "patient_id": "subject_id", "report": "report", "images": "images"},
        **{"split": "split", "study_time": "study_time"},
    }
    told: ClassVar = {
        "no metadata": "reports without a row in the metadata, mined without images and time",
        "no report": "studies of the metadata without a report",
        "no study": "rows of the metadata that name no study",
        "no labels": "reports without a row in the table of labels",
        "no split": "reports without a row in the table of splits",
        "two splits": "studies with images in two splits, given none",
        "no time": "studies whose date is none",
        "other texts": "text files not named like a report (s50414267.txt), passed over",
    }
    empty = "Unpack mimic-cxr-reports.zip here: it holds files/p10/p10000032/s50414267.txt and so on."

    def header(self) -> list[str]:
        labels = LABELS if self._labels_file() else ()
        return ["study_id", "subject_id", "report", "images", "study_time", "split", *_OF_STUDY, *labels]

    def _labels_file(self) -> Path | None:
        return self._one_file("mimic-cxr-*-chexpert.csv", "mimic-cxr-*-negbio.csv")

    def _size(self) -> int | None:
        return self.counts["studies"] or None

    def _read(self) -> Iterator[Row]:
        with ExitStack() as stack:
            yield from self._reports(self._tables(stack))

    def _tables(self, stack: ExitStack) -> dict[str, Shelf]:
        """The tables that are here, on disk; all but the metadata may be missing. `stack` lets go of them."""
        paths = {
            "metadata": self._one_file(
                "mimic-cxr-*-metadata.csv",
                needed="It tells the images of each study and comes with MIMIC-CXR-JPG: put it beside files/.",
            ),
            "split": self._one_file("mimic-cxr-*-split.csv"),
            "labels": self._labels_file(),
        }
        wanted = {"metadata": ["dicom_id", "subject_id"], "split": ["split"], "labels": []}
        tables = {}
        for name, path in paths.items():
            if path is None:
                continue
            table = stack.enter_context(closing(Input(path, formats=("csv",), encoding=self.encoding)))
            require_columns(table, wanted[name])
            reading(path)
            tables[name] = stack.enter_context(closing(Shelf(table, "study_id", many=name != "labels")))
        self.counts["studies"] = tables["metadata"].keys
        return tables

    def _reports(self, tables: dict[str, Shelf]) -> Iterator[Row]:
        tree = self._tree()
        suffix = self._suffix(tables["metadata"])
        for group in names_in(tree, _GROUP):
            for patient in names_in(tree / group, _PATIENT):
                folder = tree / group / patient
                for report in names_in(folder, _ANY_TEXT):
                    if not _REPORT.fullmatch(report):
                        self.counts["other texts"] += 1
                        continue
                    text = self._one_text(folder / report)
                    study = report[1:-4]
                    found = self._study(study, patient[1:], tables, suffix)
                    if isinstance(text, Row):
                        yield text
                    else:
                        yield Row(str(folder / report), 1, {"study_id": study, **found, "report": text})
        metadata = tables["metadata"]
        self.counts["no report"], self.counts["no study"] = metadata.keys - metadata.found, metadata.keyless

    def _tree(self) -> Path:
        for name in TREES:
            if names_in(self.folder / name, _GROUP):
                return self.folder / name
        raise InputError("there is no tree of reports", where=self.name, hint=self.empty)

    def _suffix(self, metadata: Shelf) -> str:
        """How the images' names end: as those that are here do, else as in MIMIC-CXR-JPG."""
        samples = (
            {suffix: _path(row["subject_id"], study, row["dicom_id"], suffix) for suffix in SUFFIXES}
            for study, row in metadata.first(PROBED)
        )
        return first_existing(self.image_root, samples) or SUFFIXES[0]

    def _study(self, study: str, patient: str, tables: dict[str, Shelf], suffix: str) -> dict[str, Any]:
        """What the tables say of a study, as columns; counts what they don't."""
        found: dict[str, Any] = {"subject_id": patient}
        rows = tables["metadata"].find(study)
        if rows:
            found["images"] = [_image(row, study, suffix) for row in rows]
            found |= {column: rows[0][column] for column in _OF_STUDY if column in rows[0]}
            if time := dicom_time(rows[0].get("StudyDate", ""), rows[0].get("StudyTime", "")):
                found["study_time"] = time
        self.counts["no metadata"] += not rows
        self.counts["no time"] += bool(rows) and "study_time" not in found
        if "split" in tables:
            splits = {row["split"] for row in tables["split"].find(study)}
            self.counts["no split"] += not splits
            self.counts["two splits"] += len(splits) > 1
            if len(splits) == 1:
                found["split"] = splits.pop()
        if "labels" in tables:
            labels = tables["labels"].find(study)
            self.counts["no labels"] += not labels
            for row in labels:
                found |= {label: row[column] for label, column in columns.label_columns(row).items()}
        return found


def _image(row: dict[str, str], study: str, suffix: str) -> dict[str, Any]:
    procedure = f"{row.get('PerformedProcedureStepDescription')} {row.get('ProcedureCodeSequence_CodeMeaning')}"
    position = row.get("ViewPosition", "").strip().upper()
    return image(
        _path(row["subject_id"], study, row["dicom_id"], suffix),
        VIEW_NAMES.get(position, "other") if position else None,
        portable="PORTABLE" in procedure.upper(),
    )


def _path(patient: str, study: str, dicom: str, suffix: str) -> str:
    return f"files/p{patient[:2]}/p{patient}/s{study}/{dicom}.{suffix}"
