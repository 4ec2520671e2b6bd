"""Which column is what, in the headers that archives really have."""

from __future__ import annotations

import re

import pytest

from cxr_reason.columns import (
    FIELDS,
    MappingError,
    cell,
    compose_report,
    guess_columns,
    image_list,
    input_labels,
    label_columns,
    require_report,
    told,
)
from cxr_reason.errors import InputError
from cxr_reason.records import LABELS

NAN = float("nan")


@pytest.mark.parametrize(
    ("header", "mapping"),
    [
        (
            "uid,MeSH,Problems,image,indication,comparison,findings,impression",
            {
                "study_id": "uid",
                "indication": "indication",
                "comparison": "comparison",
                "findings": "findings",
                "impression": "impression",
            },
        ),
        ("subject_id,study_id,text", {"patient_id": "subject_id", "study_id": "study_id", "report": "text"}),
        (
            "StudyInstanceUID,PatientID,Report Text,StudyDate,PatientSex,PatientAge",
            {
                "study_id": "StudyInstanceUID",
                "patient_id": "PatientID",
                "report": "Report Text",
                "study_time": "StudyDate",
                "sex": "PatientSex",
                "age": "PatientAge",
            },
        ),
        (
            "path_to_image,section_findings,section_impression,section_clinical_history,deid_patient_id,split",
            {
                "images": "path_to_image",
                "findings": "section_findings",
                "impression": "section_impression",
                "history": "section_clinical_history",
                "patient_id": "deid_patient_id",
                "split": "split",
            },
        ),
        (
            "PatID,AccNr,Untersuchungsdatum,Geschlecht,Alter,Befundtext,Beurteilung",
            {
                "study_id": "AccNr",
                "patient_id": "PatID",
                "findings": "Befundtext",
                "impression": "Beurteilung",
                "study_time": "Untersuchungsdatum",
                "sex": "Geschlecht",
                "age": "Alter",
            },
        ),
        (
            "pat-nr,AUFTRAGSNUMMER,exam date,report",
            {"study_id": "AUFTRAGSNUMMER", "patient_id": "pat-nr", "report": "report", "study_time": "exam date"},
        ),
        (
            "Patientennummer,Befund,Datum",
            {"patient_id": "Patientennummer", "findings": "Befund", "study_time": "Datum"},
        ),
        (
            "NHC,Fecha exploración,Informe",
            {"patient_id": "NHC", "report": "Informe", "study_time": "Fecha exploración"},
        ),
        ("MRN Number,Compte-rendu", {"patient_id": "MRN Number", "report": "Compte-rendu"}),
        ("id,uid,report", {"study_id": "uid", "report": "report"}),
        ("a,b", {}),
    ],
)
def test_headers_of_known_archives(header, mapping):
    assert guess_columns(header.split(",")) == mapping


def test_an_image_column_is_believed_only_if_it_holds_files():
    assert "images" not in guess_columns(["image"], {"image": "Chest, 2 views, frontal and lateral"})
    assert "images" not in guess_columns(["image"], {"image": ""})
    for value in ("a/b.png", "a.PNG; b.dcm", "a.jpg|b.jpeg", ["a.png"], [{"path": "a.nii.gz"}]):
        assert guess_columns(["image"], {"image": value}) == {"images": "image"}
    assert guess_columns(["image_path"], {"image_path": "p10/s1"}) == {"images": "image_path"}
    # The second alias is tried where the first doesn't convince.
    assert guess_columns(["image", "dicom"], {"image": "frontal", "dicom": "x.dcm"}) == {"images": "dicom"}


def test_overrides_come_first_and_take_their_column():
    assert guess_columns(["uid", "study_id", "report"], overrides={"study_id": "uid"})["study_id"] == "uid"
    assert guess_columns(["findings", "x"], overrides={"report": "findings"}) == {"report": "findings"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"study": "uid"}, "Did you mean study_id"),
        ({"study_id": "udi"}, "Did you mean uid"),
        ({"age": "#"}, "There are:"),
    ],
)
def test_overrides_that_name_nothing_are_usage_errors(overrides, message):
    with pytest.raises(MappingError, match=message) as caught:
        guess_columns(["uid", "report"], overrides=overrides)
    assert caught.value.exit_code == 2


def test_no_report_column_lists_the_columns_but_no_text():
    with pytest.raises(InputError, match=r"in\.csv: no column looks like a report\. Columns: a, b\n.*--map report="):
        require_report({}, ["a", "b"], source="in.csv")
    with pytest.raises(InputError) as caught:
        require_report({}, ["FINDINGS: The heart is enlarged with a left effusion."], source="x")
    assert "effusion" not in str(caught.value)
    require_report({"impression": "a"}, ["a"], source="x")


def test_sections_become_one_report():
    row = {"i": " Cough. ", "f": "Clear lungs.\nNormal heart.", "p": "Impression: Normal.", "c": "nan"}
    mapping = {"indication": "i", "findings": "f", "impression": "p", "comparison": "c"}
    assert compose_report(row, mapping) == (
        "INDICATION: Cough.\nFINDINGS: Clear lungs.\nNormal heart.\nImpression: Normal."
    )
    assert compose_report({"f": "Findings are stable."}, {"findings": "f"}) == "FINDINGS: Findings are stable."


def test_a_report_column_is_taken_as_it_stands_and_else_the_sections():
    mapping = {"report": "r", "findings": "f"}
    assert compose_report({"r": "Whole.", "f": "Part."}, mapping) == "Whole."
    assert compose_report({"r": " ", "f": "Part."}, mapping) == "FINDINGS: Part."


def test_indication_alone_is_no_report():
    assert compose_report({"i": "Cough.", "f": "", "p": None}, {"indication": "i", "findings": "f"}) == ""
    assert compose_report({"r": NAN}, {"report": "r"}) == ""


def test_cells_of_any_kind():
    assert cell({"a": 12}, {"study_id": "a"}, "study_id") == "12"
    for blank in (None, "", "  ", "NaN", "NA", "null", NAN):
        assert cell({"a": blank}, {"study_id": "a"}, "study_id") == ""
    assert cell({}, {"study_id": "a"}, "study_id") == ""
    assert cell({"a": 1}, {}, "study_id") == ""


def test_label_columns_by_name_in_any_spelling():
    assert label_columns(["no finding", "pleural_effusion", "Lung Opacity", "report"]) == {
        "Lung Opacity": "Lung Opacity",
        "Pleural Effusion": "pleural_effusion",
        "No Finding": "no finding",
    }
    assert list(label_columns(LABELS)) == list(LABELS)


def test_blank_labels_are_unmentioned():
    columns = {"Edema": "e", "Fracture": "f", "Pneumonia": "p", "Atelectasis": "a"}
    assert input_labels({"e": "1.0", "f": "-1", "p": "", "a": "0"}, columns) == {
        "Edema": 1,
        "Fracture": -1,
        "Atelectasis": 0,
    }
    assert input_labels({"e": 1.0, "f": -1, "p": NAN, "a": None}, columns) == {"Edema": 1, "Fracture": -1}
    with pytest.raises(ValueError, match="'e' must hold"):
        input_labels({"e": "yes"}, columns)


def test_image_lists():
    assert image_list("a.png; b.png|c.png;") == ["a.png", "b.png", "c.png"]
    assert image_list(["a.png"]) == ["a.png"]
    assert image_list({"path": "a.png"}) == [{"path": "a.png"}]
    assert image_list(None) == image_list("") == image_list(NAN) == []


def test_names_are_unambiguous_however_they_are_written():
    """No alias of a field is one of another: the order of fields would decide."""
    plain = [(re.sub(r"[^a-z0-9]", "", name.lower()), field) for field, names in FIELDS.items() for name in names]
    assert dict(plain) == dict(reversed(plain))


def test_what_was_taken_and_what_is_missed_is_told_on_one_line():
    taken = guess_columns(["Accession", "ReportText"])
    assert told(taken, pairs=True) == (
        "columns: study_id=Accession, report=ReportText; no patient_id (--map patient_id=COLUMN): no questions about "
        "change, splits and intervals can't be by patient"
    )
    assert told(guess_columns(["study_id", "patient_id", "report"]), pairs=True) == (
        "columns: study_id, patient_id, report; no study_time (--map study_time=COLUMN): no questions about change"
    )
    assert (
        told(guess_columns(["study_id", "patient_id", "report"]), pairs=False)
        == "columns: study_id, patient_id, report"
    )
    assert "no study_id" in told({"report": "x" * 99}, pairs=False)
    assert "x" * 33 not in told({"report": "x" * 99}, pairs=False)
