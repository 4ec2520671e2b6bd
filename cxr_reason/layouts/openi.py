"""Open-i's Indiana University collection: a folder of XML, a report a file, or the pair of CSVs made of it.

    ecgen-radiology/1.xml …                           as openi.nlm.nih.gov gives it (NLMCXR_reports.tgz)
    indiana_reports.csv, indiana_projections.csv      as on Kaggle (raddar/chest-xrays-indiana-university)

Both give the same columns: uid, MeSH, image, indication, comparison, findings, impression. There is no patient and no
date (`articleDate` is the same for all). Words that were taken out are XXXX. The caption of the XML describes the whole
study, so only the CSVs tell frontal and lateral images apart, and nothing tells PA from AP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

from cxr_reason.layouts.archive import Archive, columns_of, content, first_existing, image, names_in, reading
from cxr_reason.shelves import Shelf, key_text, require_columns
from cxr_reason.streams import Input, Row

REPORTS, PROJECTIONS = "indiana_reports.csv", "indiana_projections.csv"
SECTIONS = ("comparison", "indication", "findings", "impression")
PROBED = 20
FED = 4096
"""Bytes of XML that are parsed between two looks at whether it should have been refused."""

_XML = re.compile(r"[^.].*\.xml", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")
_IMAGE_WAYS = tuple(
    f"{folder}{{}}.{suffix}" for suffix in ("png", "dcm", "jpg") for folder in ("", "NLMCXR_png/", "images/")
)
_FILE_WAYS = ("images/images_normalized/{}", "images_normalized/{}", "{}")


class OpenI(Archive):
    known: ClassVar = {"study_id": "uid", "images": "images"} | {section: section for section in SECTIONS}
    told: ClassVar = {
        "no images": "reports without an image",
        "no report": "studies of the table of images without a report",
    }
    empty = "Unpack NLMCXR_reports.tgz here: it holds ecgen-radiology/1.xml and so on."

    def header(self) -> list[str]:
        if path := self._csv():
            return [*columns_of(Input(path, formats=("csv",), encoding=self.encoding), ("uid", *SECTIONS)), "images"]
        return ["uid", "MeSH", "MeSH_automatic", "image", *SECTIONS, "images"]

    def _csv(self) -> Path | None:
        return self.path if self.path.is_file() else self._one_file(REPORTS)

    def _read(self) -> Iterator[Row]:
        path = self._csv()
        return self._read_xml() if path is None else self._read_csv(path)

    # ------------------------------------------------------------------------------------------------------- the XML

    def _read_xml(self) -> Iterator[Row]:
        folder = self.folder / "ecgen-radiology"
        if not folder.is_dir():
            folder = self.folder
        files = names_in(folder, _XML)
        files.sort(key=lambda name: [int(number) for number in _DIGITS.findall(name)])
        rows = (self._report(folder / name) for name in files)
        first = list(islice(rows, PROBED))
        names = [name for row in first if row.data for name in row.data["names"]]
        samples = ({form: form.format(name) for form in _IMAGE_WAYS} for name in names)
        way = first_existing(self.image_root, samples) or _IMAGE_WAYS[0]
        for row in chain(first, rows):
            if row.data is not None:
                row.data["images"] = [image(way.format(name), None) for name in row.data.pop("names")]
                self.counts["no images"] += not row.data["images"]
            yield row

    def _report(self, path: Path) -> Row:
        """The report in a file of XML; `names` are its images'. A file that isn't such a report is unreadable."""
        data = content(path)
        if isinstance(data, Row):
            return data
        try:
            root = parse(data)
        except ElementTree.ParseError as error:
            return Row(str(path), error.position[0], None, f"not valid XML (column {error.position[1] + 1})")
        except Refused as error:
            return Row(str(path), 1, None, str(error))
        uid = root.find("uId")
        if root.tag != "eCitation" or uid is None or not uid.get("id"):
            return Row(str(path), 1, None, "no report of Open-i: there is no eCitation with a uId")
        found: dict[str, Any] = {"uid": uid.get("id")}
        for section in root.iter("AbstractText"):
            name = section.get("Label", "").lower()
            if name in SECTIONS and (text := _text(section)):
                found[name] = f"{found[name]}\n{text}" if name in found else text
        for column, tag in (("MeSH", "major"), ("MeSH_automatic", "automatic")):
            if terms := [text for term in root.iter(tag) if (text := _text(term))]:
                found[column] = ";".join(terms)
        images = list(root.iter("parentImage"))
        if caption := next((text for entry in images for part in entry.iter("caption") if (text := _text(part))), ""):
            found["image"] = caption
        found["names"] = list(dict.fromkeys(key for entry in images if (key := entry.get("id"))))
        return Row(str(path), 1, found)

    # ------------------------------------------------------------------------------------------------------ the CSVs

    def _read_csv(self, path: Path) -> Iterator[Row]:
        with ExitStack() as stack:
            table = stack.enter_context(closing(Input(path, formats=("csv",), encoding=self.encoding)))
            images = self._projections(path.with_name(PROJECTIONS))
            if images:
                stack.enter_context(closing(images))
            known = images.first(PROBED) if images else iter(())
            samples = ({form: form.format(entry["filename"]) for form in _FILE_WAYS} for _, entry in known)
            way = first_existing(self.image_root, samples) or _FILE_WAYS[0]
            for row in table.rows():
                if row.data is not None:
                    found = images.find(key_text(row.data["uid"])) if images else []
                    self.counts["no images"] += not found
                    row.data["images"] = [
                        image(way.format(entry["filename"]), _view(entry.get("projection", ""))) for entry in found
                    ]
                yield row
            if images:
                self.counts["no report"] = images.keys - images.found

    def _projections(self, path: Path) -> Shelf | None:
        if not path.exists():
            path = path.with_name(path.name + ".gz")
        if not path.exists():
            return None
        with closing(Input(path, formats=("csv",), encoding=self.encoding)) as table:
            require_columns(table, ["filename"])
            reading(path)
            return Shelf(table, "uid", many=True)


def _view(projection: str) -> str | None:
    return "LAT" if projection.strip().lower() == "lateral" else None


def _text(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


class Refused(ValueError):
    """XML that we don't read, whoever wrote it."""


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type: with it come entities, which can name other files or grow without end."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise Refused("has a DOCTYPE, which reports of Open-i don't have: not read")


def parse(data: bytes) -> ElementTree.Element:
    """The root of an XML document without a document type.

    Raises Refused for one that has it, before any entity of its is used, or is in an encoding that the parser doesn't
    know, and ParseError for what isn't XML.
    """
    if b"<!DOCTYPE" in data:
        raise Refused("has a DOCTYPE, which reports of Open-i don't have: not read")
    # A DOCTYPE in an encoding that hides it from the line above gets no further than the next few bytes.
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        for start in range(0, len(data), FED):
            parser.feed(data[start : start + FED])
        root: ElementTree.Element = parser.close()
    except Refused:
        raise
    except (LookupError, ValueError):
        raise Refused("names an encoding that can't be read") from None
    return root
