"""Which column of a table is what: guessed from its header, overridden by ``--map field=column``.

Archives name their columns as they like. `FIELDS` lists the names seen in the wild for each field that we use, also
those of German, Spanish and French exports, whose reports may be English all the same; a name is compared without case,
accents, spaces and punctuation, and the first alias that the header has wins.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cxr_reason.errors import EXIT_USAGE, InputError
from cxr_reason.records import LABELS

FIELDS: dict[str, tuple[str, ...]] = {
    "study_id": (
        *("study_id", "study", "study_uid", "StudyInstanceUID", "exam_id", "exam", "accession", "accession_number"),
        *("acc_num", "report_id", "uid", "rad_id", "case_id", "id"),
        *("acc_nr", "acc_no", "accession_nr", "accession_no", "accession_num", "study_number", "study_nr", "study_no"),
        *("exam_number", "exam_no", "examination_id", "order_id", "order_number", "requisition_id"),
        # Not the number of a stay, or of a kind of procedure: studies share them.
        *("report_nr", "report_no", "report_number", "Auftragsnummer", "Auftrags_ID", "Auftragsnr"),
        *("Untersuchungsnummer", "Untersuchungs_ID", "Untersuchungsnr", "Studien_ID", "Anforderungsnummer"),
        *("Befundnummer", "Befund_ID", "Befundnr"),
        *("numero_de_estudio", "id_estudio", "num_estudio", "numero_acceso", "numero_de_acceso"),
        *("id_examen", "num_examen", "numero_examen", "numero_d_examen", "numero_d_accession", "id_etude"),
    ),
    "patient_id": (
        *("patient_id", "subject_id", "patient", "subject", "mrn", "pid", "person_id", "deid_patient_id"),
        *("pat_id", "pat_nr", "pat_no", "pat_num", "patient_nr", "patient_no", "patient_num", "patient_number"),
        *("patient_identifier", "patient_key", "patient_mrn", "mrn_id", "mrn_nr", "mrn_no", "mrn_number", "empi"),
        *("medical_record_number", "medical_record_no", "med_rec_no", "anon_mrn", "deid_mrn", "hospital_number"),
        *("anon_patient_id", "pseudo_id", "pseudonym", "anon_id", "nhs_number", "person", "person_key", "subject_key"),
        *("Patientennummer", "Patientennr", "Patienten_ID", "Patientenkennung", "Pat_Nummer", "PIZ"),
        *("id_paciente", "paciente", "paciente_id", "numero_paciente", "nhc", "historia_clinica", "num_historia"),
        *("numero_historia_clinica", "num_patient", "numero_patient", "numero_de_patient", "ipp", "id_du_patient"),
    ),
    "prior_study_id": ("prior_study_id", "previous_study_id", "prior_accession", "prior_accession_number"),
    "report": (
        *("report", "report_text", "text", "full_report", "radiology_report", "report_body", "note", "note_text"),
        *("narrative", "original_report"),
        *("rad_report", "xr_report", "cxr_report", "exam_report", "final_report", "report_content", "report_txt"),
        *("report_full", "result_text", "exam_text", "document_text", "radiology_text", "report_narrative"),
        *("Bericht", "Berichttext", "Befundbericht", "Arztbericht", "Radiologiebericht"),
        *("informe", "texto_informe", "texto_del_informe", "informe_radiologico", "texto"),
        *("compte_rendu", "texte_compte_rendu", "CR_texte", "texte_CR", "rapport", "texte"),
    ),
    "indication": (
        *("indication", "indications", "reason_for_exam", "clinical_indication", "section_indication"),
        *("exam_indication", "reason_for_study", "Indikation", "Fragestellung", "rechtfertigende_Indikation"),
        *("indicacion", "motivo", "motivo_de_consulta", "indication_clinique", "motif"),
    ),
    "history": (
        *("history", "clinical_history", "clinical_information", "section_history", "section_clinical_history"),
        *("clinical_info", "Anamnese", "klinische_Angaben", "antecedentes", "datos_clinicos"),
        *("antecedents", "renseignements_cliniques"),
    ),
    "technique": ("technique", "section_technique", "examination_technique", "Technik", "tecnica"),
    "comparison": (
        *("comparison", "comparisons", "section_comparison", "Vergleich", "Voruntersuchung", "Voraufnahmen"),
        *("comparacion", "comparaison"),
    ),
    "findings": (
        *("findings", "section_findings", "findings_text", "report_findings"),
        # Not whole reports: an assessment may stand in a column of its own.
        *("Befund", "Befundtext", "Befunde", "hallazgos", "resultat", "resultats", "constatations"),
    ),
    "impression": (
        *("impression", "impressions", "conclusion", "conclusions", "section_impression", "impression_text"),
        *("report_impression", "Beurteilung", "Zusammenfassung", "Beurteilungstext", "impresion", "conclusiones"),
        *("impresion_diagnostica", "synthese"),
    ),
    "addendum": ("addendum", "addenda", "section_addendum", "Nachtrag", "Zusatzbefund", "adenda"),
    "images": (
        *("images", "image_paths", "image_path", "path_to_image", "path", "file_path", "filepath", "dicom_path"),
        *("image_file", "image_files", "image_filename", "filename", "file_name", "image", "file", "img", "dicom"),
        *("dicom_file", "dicom_files", "img_path", "png_path", "Bilddatei", "Bildpfad", "Dateipfad", "Dateiname"),
        *("ruta_imagen", "imagen", "chemin_image", "fichier"),
    ),
    "view": (
        *("view", "view_position", "ap_pa", "projection", "view_code", "frontal_lateral"),
        *("Projektion", "Strahlengang", "Aufnahmerichtung", "proyeccion", "incidence"),
    ),
    "split": ("split", "fold", "partition", "subset", "data_split", "dataset_split"),
    "study_time": (
        # Where there is a column of days and one of hours, the days: hours alone are no order.
        *("study_datetime", "study_date", "exam_date", "study_time", "exam_time", "chart_time", "charttime", "date"),
        *("datetime", "report_date", "timestamp"),
        *("exam_datetime", "exam_date_time", "study_date_time", "examination_date", "acquisition_datetime"),
        *("acquisition_date", "performed_date", "performed_datetime", "procedure_date", "service_date", "event_date"),
        *("completed_date", "study_dttm", "exam_dttm", "exam_dt", "study_dt", "date_of_exam", "date_of_study"),
        *("Untersuchungsdatum", "Untersuchungszeitpunkt", "Aufnahmedatum", "Studiendatum", "Befunddatum", "Datum"),
        *("Untersuchungszeit", "Datum_Uhrzeit", "Leistungsdatum"),
        *("fecha_estudio", "fecha_del_estudio", "fecha_exploracion", "fecha_examen", "fecha"),
        *("date_examen", "date_d_examen", "date_de_l_examen", "date_etude", "date_acquisition"),
    ),
    "study_order": ("patient_report_date_order", "study_order", "report_order", "exam_order"),
    "sex": ("sex", "gender", "patient_sex", "patient_gender", "pat_sex", "Geschlecht", "sexo", "sexe", "genero"),
    "age": (
        *("age", "patient_age", "age_at_study", "age_years", "age_at_exam", "pat_age"),
        *("Alter", "Patientenalter", "Alter_Jahre", "edad", "edad_paciente", "age_patient"),
    ),
}

# The order in which separate columns become one report, each under its heading.
SECTIONS = ("indication", "history", "technique", "comparison", "findings", "impression", "addendum")

_BLANK = {"", "nan", "na", "n/a", "none", "null", "<na>"}
_LABEL_VALUES = {"1": 1, "0": 0, "-1": -1}
_IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g|dcm|dicom|tiff?|bmp|webp|nii|gif)(\.gz)?$", re.IGNORECASE)
_IMAGE_SEPARATOR = re.compile(r"[;|]")


class MappingError(InputError):
    """A ``--map`` that names a field or a column that doesn't exist."""

    exit_code = EXIT_USAGE


def guess_columns(
    header: Sequence[str], sample: Mapping[str, Any] | None = None, *, overrides: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The column of each field that `header` has: {field: column}; `overrides` (from ``--map``) come first.

    `sample` is a row: a column called ``image`` is often a description of the views, so columns are taken for image
    files only if their name says path or file, or the sample's value looks like one. Raises MappingError for an
    override that names no field of `FIELDS` or no column of `header`.
    """
    overrides = overrides or {}
    for field, column in overrides.items():
        if field not in FIELDS:
            raise MappingError(f"--map {field}={column}: there is no field {field!r}.", hint=_near(field, FIELDS))
        if column not in header:
            raise MappingError(f"--map {field}={column}: there is no column {column!r}.", hint=_near(column, header))
    mapping = dict(overrides)
    taken = set(mapping.values())
    columns = {_plain(column): column for column in reversed(header)}
    for field, aliases in FIELDS.items():
        if field in mapping:
            continue
        for alias in aliases:
            found = columns.get(_plain(alias))
            if found is None or found in taken:
                continue
            if field == "images" and not _holds_files(found, (sample or {}).get(found)):
                continue
            mapping[field] = found
            taken.add(found)
            break
    return mapping


def told(mapping: Mapping[str, str], *, pairs: bool) -> str:
    """What was taken for what, and what is missed, on one line; with `pairs` two films could be compared."""
    taken = [field if field == column else f"{field}={_cut(column)}" for field, column in mapping.items()]
    missed = []
    if "study_id" not in mapping:
        missed.append("no study_id (--map study_id=COLUMN): each row is a study")
    change = ["no questions about change"] if pairs else []
    if "patient_id" not in mapping:
        without = ", ".join([*change, "splits and intervals can't be by patient"])
        missed.append(f"no patient_id (--map patient_id=COLUMN): {without}")
    elif change and not mapping.keys() & {"study_time", "study_order", "prior_study_id"}:
        missed.append(f"no study_time (--map study_time=COLUMN): {change[0]}")
    return "; ".join([f"columns: {', '.join(taken)}", *missed])


def require_report(mapping: Mapping[str, str], header: Iterable[str], *, source: str) -> None:
    """Raise InputError unless some column holds report text; the error lists the columns and what to type."""
    if not any(field in mapping for field in ("report", "findings", "impression")):
        raise InputError(
            f"no column looks like a report. Columns: {listed(header)}",
            where=source,
            hint="Say which one it is: --map report=COLUMN (or --map findings=COLUMN --map impression=COLUMN).",
        )


def require_labels(columns: Mapping[str, str], header: Iterable[str], *, source: str) -> None:
    """Raise InputError unless there are columns of CheXpert's labels (`label_columns`)."""
    if not columns:
        raise InputError(
            f"no column has the name of one of CheXpert's labels. Columns: {listed(header)}",
            where=source,
            hint=f"They are called {', '.join(LABELS)}; --join FILE:KEY adds them from another table.",
        )


def compose_report(row: Mapping[str, Any], mapping: Mapping[str, str]) -> str:
    """The report of `row` as one text, "" when it has none; offsets of findings refer to this text.

    One report column is taken as it stands. Otherwise the section columns that have text follow each other, one a line,
    as ``FINDINGS: …``; a section that already starts with its heading doesn't get a second one.
    """
    whole = cell(row, mapping, "report")
    if whole:
        return whole
    lines = []
    for section in SECTIONS:
        text = cell(row, mapping, section)
        if text:
            headed = re.match(rf"{section}\s*:", text, re.IGNORECASE)
            lines.append(text if headed else f"{section.upper()}: {text}")
    # Indication or technique alone say nothing about the film: that is a row without a report.
    told = any(cell(row, mapping, section) for section in ("findings", "impression", "addendum"))
    return "\n".join(lines) if told else ""


def cell(row: Mapping[str, Any], mapping: Mapping[str, str], field: str) -> str:
    """The text of `field` in `row`, stripped; "" where there is no such column, or the cell is blank or NaN."""
    column = mapping.get(field)
    value = row.get(column) if column is not None else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # pandas makes floats of a column of numbers as soon as one of them is missing.
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    return "" if text.lower() in _BLANK else text


def label_columns(header: Iterable[str]) -> dict[str, str]:
    """The columns that carry CheXpert's labels: {label: column}, matched without case and punctuation."""
    columns = {_plain(column): column for column in header}
    return {label: columns[_plain(label)] for label in LABELS if _plain(label) in columns}


def input_labels(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, int]:
    """The labels of `row`: {label: 1 present, 0 absent, -1 uncertain}; a blank or NaN is unmentioned and has no key.

    Raises ValueError naming the column for anything else.
    """
    labels = {}
    for label, column in columns.items():
        value = row.get(column)
        text = "" if value is None else str(value).strip().removesuffix(".0")
        if text.lower() in _BLANK:
            continue
        if text not in _LABEL_VALUES:
            raise ValueError(f"column {column!r} must hold 1, 0, -1 or nothing")
        labels[label] = _LABEL_VALUES[text]
    return labels


def image_list(value: Any) -> list[Any]:
    """Image paths of one cell: a list stays as it is, a text may hold several, separated by ``;`` or ``|``."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return [value]
    text = "" if value is None or value != value else str(value).strip()
    return [part.strip() for part in _IMAGE_SEPARATOR.split(text) if part.strip()]


def _holds_files(column: str, value: Any) -> bool:
    name = column.lower()
    if "path" in name or "file" in name:
        return True
    paths = [entry.get("path") if isinstance(entry, dict) else entry for entry in image_list(value)]
    return bool(paths) and all(isinstance(path, str) and _IMAGE_SUFFIX.search(path) for path in paths)


def _plain(name: str) -> str:
    # Accents become characters of their own, which are no letters.
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", name)).casefold()


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else f"There are: {listed(names)}"


def listed(names: Iterable[str]) -> str:
    """Names of columns for a message."""
    return ", ".join(map(_cut, names))


def _cut(name: str) -> str:
    # A text without a header has its first line taken for one: names are cut, so that no report ends up in a log.
    return name if len(name) <= 32 else f"{name[:20]}…"
