"""``--layout``: published archives, from the folder to findings and chains.

The folders in tests/layouts have the published names, columns and quirks; their texts and numbers are our own.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Run, environment
from growth import REPORTS
from processes import wait_for

from cxr_reason.columns import input_labels, label_columns
from cxr_reason.errors import InputError
from cxr_reason.layouts import LAYOUTS, open_layout
from cxr_reason.layouts.archive import dicom_time
from cxr_reason.layouts.openi import Refused, parse
from cxr_reason.layouts.padchest import chexpert_labels, label_names
from cxr_reason.radiology import read
from cxr_reason.records import check
from cxr_reason.runner import CHECKPOINT_SECONDS
from cxr_reason.streams import Row, group_consecutive

FOLDERS = Path(__file__).with_name("layouts")
METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"


def rows(name: str, folder: Path, **options: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The readable rows of an archive by study, the first of each, and its notes."""
    archive = open_layout(name, str(folder), **options)
    found: dict[str, dict[str, Any]] = {}
    for row in archive.rows():
        if row.data is not None:
            found.setdefault(row.data[archive.known["study_id"]], row.data)
    return found, archive.notes()


def records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def copied(tmp_path: Path):
    """A copy of an archive that a test may spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(FOLDERS / name, tmp_path / name))

    return copy


# -------------------------------------------------------------------------------------------- from folder to chains

FINDINGS = {
    "mimic": {
        "50000231": {"pleural effusion": "present", "cardiomegaly": "present", "pneumothorax": "absent"},
        "51118402": {"pleural effusion": "present", "endotracheal tube": "present", "pneumothorax": "absent"},
        "53300018": {"pleural effusion": "absent", "pneumothorax": "absent"},
        "50770001": {"central venous catheter": "present", "pulmonary edema": "present", "atelectasis": "present"},
        "58200377": {"rib fracture": "present", "pneumothorax": "absent"},
    },
    "chexpert-plus": {
        "patient04200/study2": {"pleural effusion": "present", "pneumothorax": "absent"},
        "patient04200/study1": {"pleural effusion": "present", "cardiomegaly": "present"},
        "patient00031/study1": {"cardiomegaly": "absent", "pleural effusion": "absent"},
        "patient64601/study1": {"picc": "present", "atelectasis": "present", "pneumothorax": "absent"},
    },
    "openi": {
        "CXR9001": {"cardiomegaly": "present", "pleural effusion": "present", "pneumothorax": "absent"},
        "CXR9002": {"pleural effusion": "absent", "cardiomegaly": "absent"},
        "CXR9010": {"consolidation": "present", "pneumothorax": "absent"},
    },
    "openi-csv": {
        "9001": {"cardiomegaly": "present", "pleural effusion": "present", "pneumothorax": "absent"},
        "9002": {"pleural effusion": "absent", "cardiomegaly": "absent"},
        "9010": {"consolidation": "present", "pneumothorax": "absent"},
    },
}


@pytest.mark.parametrize("folder", FINDINGS)
def test_from_the_folder_to_findings(cxr: Run, folder: str) -> None:
    found = records(cxr("mine", "--layout", folder.removesuffix("-csv"), str(FOLDERS / folder), "--findings"))
    assert [record["study_id"] for record in found] == list(FINDINGS[folder])
    for record in found:
        assert check(record) == []
        said = {finding["name"]: finding["status"] for finding in record["findings"]}
        expected = FINDINGS[folder][record["study_id"]]
        assert said.items() >= expected.items(), record["study_id"]


@pytest.mark.parametrize("folder", FINDINGS)
def test_from_the_folder_to_chains(folder: str) -> None:
    cxr = f"{sys.executable} -m cxr_reason"
    layout = folder.removesuffix("-csv")
    script = f"set -o pipefail; {cxr} mine --layout {layout} {FOLDERS / folder} --negatives silent | {cxr} refine"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60)
    chains = records(done)
    assert {chain["study_id"] for chain in chains} <= set(FINDINGS[folder])
    assert len({chain["study_id"] for chain in chains}) >= 2
    assert all(step["verdict"] == "supported" for chain in chains for step in chain["steps"] if step.get("findings"))
    assert not any("___" in step["text"] or "XXXX" in step["text"] for chain in chains for step in chain["steps"])


def test_every_layout_is_known_and_has_a_fixture() -> None:
    assert {path.name.removesuffix("-csv") for path in FOLDERS.iterdir()} == set(LAYOUTS)
    docs = (ROOT / "docs" / "archives.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in LAYOUTS:
        archive = open_layout(name, str(FOLDERS / name))
        assert set(archive.known.values()) <= set(archive.header())
        assert f"--layout {name}" in docs
        assert f"--layout {name}" in readme


# ---------------------------------------------------------------------------------------------------------- MIMIC-CXR


def test_mimic_joins_images_time_split_and_labels_by_study() -> None:
    found, notes = rows("mimic", FOLDERS / "mimic")
    study = found["50000231"]
    assert study["study_time"] == "2179-03-11T09:05:12"
    assert (study["subject_id"], study["split"]) == ("10000117", "train")
    assert [entry["view"] for entry in study["images"]] == ["PA", "LAT"]
    assert all(entry["path"].startswith("files/p10/p10000117/s50000231/") for entry in study["images"])
    assert input_labels(study, label_columns(study)) == {
        **{"Cardiomegaly": 1, "Consolidation": 0, "Pleural Effusion": 1, "Pneumothorax": 0},
    }
    assert found["51118402"]["images"][0]["portable"] is True
    assert found["51118402"]["study_time"] == "2179-03-14T00:08:39"
    assert "view" not in found["53300018"]["images"][2]  # its ViewPosition is empty
    assert "images" not in found["58200377"]  # mined all the same
    assert notes == [
        "reports without a row in the metadata, mined without images and time: 1",
        "studies of the metadata without a report: 1",
        "reports without a row in the table of labels: 1",
        "reports without a row in the table of splits: 1",
    ]


def test_mimic_counts_are_told_at_the_end_and_a_split_is_chosen_by_name(cxr: Run) -> None:
    done = cxr("mine", "--layout", "mimic", str(FOLDERS / "mimic"), "--findings", "--split", "validate")
    assert [record["study_id"] for record in records(done)] == ["53300018"]
    assert "studies of the metadata without a report: 1\n" in done.stderr
    assert "4 studies left out: other split" in done.stderr


def test_mimic_takes_any_version_and_tree_and_the_images_that_are_there(copied) -> None:
    folder = copied("mimic")
    expected, _ = rows("mimic", folder)
    plain = gzip.decompress((folder / METADATA).read_bytes())
    (folder / METADATA).unlink()
    (folder / "mimic-cxr-2.1.0-metadata.csv").write_bytes(plain)
    (folder / "mimic-cxr-2.0.0-chexpert.csv").rename(folder / "mimic-cxr-2.0.0-negbio.csv")
    (folder / "mimic-cxr-reports" / "files").rename(folder / "files")
    image = folder / expected["50000231"]["images"][1]["path"].replace(".jpg", ".dcm")
    image.parent.mkdir(parents=True)
    image.touch()
    found, _ = rows("mimic", folder)
    assert json.dumps(found) == json.dumps(expected).replace(".jpg", ".dcm")
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    found, _ = rows("mimic", folder, image_root=str(elsewhere))
    assert found == expected  # nothing is there: as in MIMIC-CXR-JPG


def test_mimic_sets_aside_a_report_that_cannot_be_read(cxr: Run, copied) -> None:
    folder = copied("mimic")
    tree = folder / "mimic-cxr-reports" / "files"
    report = tree / "p10" / "p10000117" / "s50000231.txt"
    report.write_bytes(" FINAL REPORT\n FINDINGS: caf\xe9.\n".encode("latin-1"))
    (tree / "p10" / "p10000117" / "s50000231 (copy).txt").write_text("No effusion.")
    (tree / "p10" / "p10000117" / "._s50000231.txt").write_bytes(b"\0\1\2")
    command = ("mine", "--layout", "mimic", str(folder), "--findings", "--rejects", str(folder / "rejects"))
    done = cxr(*command, "--max-failed", "20%")
    assert len(records(done)) == 4
    assert f"{report}:2: not utf-8 text (byte 0xe9)" in done.stderr
    assert "--encoding" in done.stderr
    assert "caf" not in done.stderr
    assert "text files not named like a report (s50414267.txt), passed over: 1\n" in done.stderr
    assert json.loads((folder / "rejects").read_text())["file"] == str(report)
    assert cxr(*command).returncode == 3
    done = cxr(*command, "--encoding", "cp1252")
    assert [record["study_id"] for record in records(done)][:1] == ["51118402"]  # and the other isn't understood
    assert "1 study rejected: not-understood" in done.stderr


def test_mimic_gives_no_split_where_the_images_of_a_study_disagree(copied) -> None:
    folder = copied("mimic")
    path = folder / "mimic-cxr-2.0.0-split.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[1] = lines[1].replace("train", "test")
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    found, notes = rows("mimic", folder)
    assert "split" not in found["50000231"]
    assert "studies with images in two splits, given none: 1" in notes


def spoil_key(folder: Path) -> None:
    text = gzip.decompress((folder / METADATA).read_bytes()).replace(b"study_id", b"study", 1)
    (folder / METADATA).write_bytes(gzip.compress(text))


def spoil_encoding(folder: Path) -> None:
    text = gzip.decompress((folder / METADATA).read_bytes()).replace(b"Recumbent", b"Reclin\xe9")
    (folder / METADATA).write_bytes(gzip.compress(text))


def double_study(folder: Path) -> None:
    path = folder / "mimic-cxr-2.0.0-chexpert.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[2]]))


SPOILT = {
    "no metadata": (lambda folder: (folder / METADATA).unlink(), "mimic", "no mimic-cxr-*-metadata.csv(.gz)"),
    "two versions": (
        lambda folder: shutil.copy(folder / METADATA, folder / METADATA.replace("2.0.0", "2.1.0")),
        "mimic",
        "mimic-cxr-2.0.0-metadata.csv.gz and mimic-cxr-2.1.0-metadata.csv.gz are both here",
    ),
    "no reports": (lambda folder: shutil.rmtree(folder / "mimic-cxr-reports"), "mimic", "there is no tree of reports"),
    "no key": (spoil_key, f"{METADATA}:1", "there is no column 'study_id'. Columns: dicom_id, subject_id, study,"),
    "encoding": (spoil_encoding, f"{METADATA}:4", "not utf-8 text (byte 0xe9 in column"),
    "a study twice": (double_study, "mimic-cxr-2.0.0-chexpert.csv:6", "stands in line 3 already"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_wrong_with_a_mimic_folder_is_said_with_its_place(copied, what: str) -> None:
    spoil, where, problem = SPOILT[what]
    folder = copied("mimic")
    spoil(folder)
    with pytest.raises(InputError) as caught:
        rows("mimic", folder)
    assert str(caught.value.where).endswith(where)
    assert problem in caught.value.what
    assert caught.value.hint


def test_a_wrong_folder_is_an_error_with_the_remedy(cxr: Run, tmp_path: Path) -> None:
    for name in LAYOUTS:
        done = cxr("mine", "--layout", name, str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 2, done.stderr
        with pytest.raises(InputError, match="no such folder"):
            open_layout(name, str(tmp_path / "none"))
    done = cxr("mine", "--layout", "mimic", "-")
    assert (done.returncode, "name it" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("date", "clock", "expected"),
    [
        ("21800506", "213014.531", "2180-05-06T21:30:14"),
        ("21800506", "213014.53100000002", "2180-05-06T21:30:14"),
        ("21800506", "90512", "2180-05-06T09:05:12"),
        ("21800506", "839.0", "2180-05-06T00:08:39"),
        ("21800506", "0.0", "2180-05-06T00:00:00"),
        ("21800506.0", "", "2180-05-06"),
        ("21800506", "250000", "2180-05-06"),
        ("21800506", "1234567", "2180-05-06"),
        ("21800631", "90512", None),
        ("2180", "90512", None),
        ("٢١٨٠٠٥٠٦", "", None),
        ("", "", None),
    ],
)
def test_times_that_went_through_a_table_as_numbers(date: str, clock: str, expected: str | None) -> None:
    assert dicom_time(date, clock) == expected


# ------------------------------------------------------------------------------------------------------ CheXpert Plus


def test_chexpert_plus_groups_images_to_studies_and_takes_one_report_each() -> None:
    archive = open_layout("chexpert-plus", str(FOLDERS / "chexpert-plus"))
    found = list(archive.rows())
    studies = [
        (group.key, len(group.rows)) for group in group_consecutive(iter(found), lambda row: row.data["study_id"])
    ]
    # In the order in which patients, and their studies, come first; the rows of the table are in no order.
    assert studies == [
        *(("patient04200/study2", 1), ("patient04200/study1", 2)),
        *(("patient00031/study1", 2), ("patient64601/study1", 1)),
    ]
    assert [row.line for row in found[1:3]] == sorted(row.line for row in found[1:3])
    assert found[2].data["report"] == ""
    assert [row.data["images"][0].get("view") for row in found] == ["AP", "PA", "LAT", "PA", "LAT", "AP"]
    assert found[1].data["Cardiomegaly"] == 1.0
    assert "Cardiomegaly" not in found[0].data
    assert archive.notes() == [
        "reports that differ from the first one of their study, left aside: 1",
        "images without a line in the file of labels: 1",
        "lines of labels about images that the table doesn't have: 1",
    ]


def test_chexpert_plus_records_have_the_study_and_its_order(cxr: Run) -> None:
    found = records(cxr("mine", "--layout", "chexpert-plus", str(FOLDERS / "chexpert-plus"), "--findings"))
    first, second = found[0], found[1]
    assert second["input_labels"] == {"Cardiomegaly": 1, "Pleural Effusion": 1}
    assert {record["split"] for record in found} == {"train", "validate"}
    assert second["report"].count("NARRATIVE") == 1
    assert [image["view"] for image in second["images"]] == ["PA", "LAT"]
    assert "section_narrative" not in first


def test_chexpert_plus_knows_which_study_came_before(cxr: Run) -> None:
    folder = str(FOLDERS / "chexpert-plus")
    (asked,) = records(cxr("mine", "--layout", "chexpert-plus", folder, "--tasks", "temporal", "--negatives", "silent"))
    assert (asked["study_id"], asked["prior_study_id"]) == ("patient04200/study2", "patient04200/study1")
    assert asked["options"][ord(asked["answer"]) - ord("A")] == "Worse"


def test_chexpert_plus_takes_the_labels_of_the_report_that_it_takes(copied) -> None:
    folder = copied("chexpert-plus")
    lines = folder / "chexbert_labels" / "impression_fixed.json"
    text = lines.read_text().splitlines()
    at = next(n for n, line in enumerate(text) if "patient04200/study1/view2" in line)
    text[at] = text[at].replace('"Cardiomegaly": 1.0', '"Cardiomegaly": -1.0')
    lines.write_text("\n".join(text))
    archive = open_layout("chexpert-plus", str(folder))
    cells = [row.data.get("Cardiomegaly") for row in archive.rows() if "patient04200/study1" in row.data["study_id"]]
    assert cells == [1.0, None]


def test_chexpert_plus_sets_aside_a_path_that_names_no_study_and_does_without_labels(copied) -> None:
    folder = copied("chexpert-plus")
    shutil.rmtree(folder / "chexbert_labels")
    table = next(folder.glob("*.csv"))
    table.write_text(table.read_text().replace("valid/patient64601/study1/", "valid/64601/"))
    archive = open_layout("chexpert-plus", str(table))  # the table itself will do, too
    found = list(archive.rows())
    assert len(found) == 6
    assert "path_to_image names no patient" in found[0].error
    assert "Cardiomegaly" not in archive.header()
    assert not any(row.data and "Pleural Effusion" in row.data for row in found)


# ----------------------------------------------------------------------------------------------------------- PadChest


def test_padchest_is_rejected_for_its_language_and_keeps_its_list(cxr: Run, tmp_path: Path) -> None:
    command = ("mine", "--layout", "padchest", str(FOLDERS / "padchest"), "--rejects", str(tmp_path / "rejects"))
    done = cxr(*command)
    assert records(done) == []
    assert "5 studies rejected: language\n" in done.stderr
    rejects = [json.loads(line) for line in (tmp_path / "rejects").read_text().splitlines()]
    studies = {reject["id"]: reject["record"] for reject in rejects}
    first = studies["20536686640136348236148679891455886468"]
    assert first["Labels"] == ["pleural effusion", "laminar atelectasis"]
    assert first["study_time"] == "2014-09-15"
    assert [image["view"] for image in first["images"]] == ["PA", "LAT"]
    assert first["images"][0]["path"] == "0/20536686640136348236148679891455886468_k6ga29.png"
    # The patient's other study stands beside it, though another patient's row is between them in the table.
    assert [reject["line"] for reject in rejects] == [2, 5, 3, 6, 7]
    excluded = studies["216840111366964013274713836132009084103929310"]
    assert excluded["Labels"] == ["exclude", "pneumonia"]


def test_padchest_labels_can_decide() -> None:
    found, notes = rows("padchest", FOLDERS / "padchest")
    labels = [input_labels(data, label_columns(data)) for data in found.values()]
    assert labels == [{"Atelectasis": 1, "Pleural Effusion": 1}, {"Support Devices": 1}, {"No Finding": 1}, {}, {}]
    assert len(notes) == 2
    cxr = f"{sys.executable} -m cxr_reason"
    script = f"set -o pipefail; {cxr} mine --layout padchest {FOLDERS / 'padchest'} --labels input | {cxr} refine"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60)
    chains = records(done)
    assert {chain["study_id"] for chain in chains} == set(list(found)[:2])
    assert {chain["report_source"] for chain in chains} == {"labels"}


def test_padchest_text_that_looks_like_english_is_not_read(cxr: Run, copied) -> None:
    folder = copied("padchest")
    table = next(folder.glob("*.csv"))
    table.write_text(table.read_text().replace("estudi de abdom", "cardiomegali torax normal"))
    assert read("cardiomegali torax normal").rejection is None  # else there were nothing to guard against
    done = cxr("mine", "--layout", "padchest", str(folder), "--findings")
    assert records(done) == []
    assert "5 studies rejected: language\n" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['pleural effusion', ' normal', '']", ["pleural effusion", "normal"]),
        ("['NSG tube', 'NSG tube']", ["NSG tube"]),
        ("[]", []),
        ("nan", []),
        ("", []),
    ],
)
def test_padchest_lists(text: str, expected: list[str]) -> None:
    assert label_names(text) == expected


@pytest.mark.parametrize("text", ["pneumonia", "['a'", "{'a': 1}", "['a', 1]", "__import__('os')", "[" * 5000])
def test_what_is_no_list_is_unreadable_not_a_label(text: str, copied) -> None:
    with pytest.raises(ValueError, match="no list"):
        label_names(text)
    folder = copied("padchest")
    table = next(folder.glob("*.csv"))
    with table.open(newline="") as stream:
        lines = list(csv.reader(stream))
    lines[1][lines[0].index("Labels")] = text
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows(lines)
    bad = [row for row in open_layout("padchest", str(folder)).rows() if row.error]
    assert [(row.line, row.error) for row in bad] == [(2, "Labels is no list, as in ['normal']")]


def test_padchest_names_among_the_fourteen() -> None:
    assert chexpert_labels(["normal"]) == {"No Finding": "1"}
    assert chexpert_labels(["normal", "unchanged"]) == {"No Finding": "1"}
    assert chexpert_labels(["normal", "scoliosis"]) == {}
    assert chexpert_labels(["pneumonia", "NSG tube"]) == {"Pneumonia": "1", "Support Devices": "1"}
    assert chexpert_labels(["pneumonia", "suboptimal study"]) == {}


def test_the_engine_agrees_with_the_table_of_padchest_names() -> None:
    from cxr_reason.layouts import padchest

    known = Counter()
    for name, label in padchest._LABEL_OF.items():
        reading = read(f"There is a {name}.")
        if name == "normal" or reading.rejection or not (reading.labels.keys() - {"No Finding"}):
            continue
        assert reading.labels.get(label) == 1, name
        known[label] += 1
    assert len(known) == 13


# ------------------------------------------------------------------------------------------------------------- Open-i


def test_openi_reads_sections_terms_and_images() -> None:
    found, notes = rows("openi", FOLDERS / "openi")
    first = found["CXR9001"]
    assert first["indication"] == "Dyspnea & cough."
    assert first["MeSH"] == "Cardiomegaly/mild;Pleural Effusion/left/small"
    assert first["MeSH_automatic"] == "Cardiomegaly;Pleural Effusion"
    assert first["images"] == [{"path": "CXR9001_IM-0101-1001.png"}, {"path": "CXR9001_IM-0101-2001.png"}]
    assert "findings" not in found["CXR9010"]
    assert list(found) == ["CXR9001", "CXR9002", "CXR9010"]
    assert notes == ["reports without an image: 1"]


def test_openi_as_csv_has_views_and_counts_both_sides() -> None:
    found, notes = rows("openi", FOLDERS / "openi-csv")
    assert found["9001"]["images"] == [
        {"path": "images/images_normalized/9001_IM-0101-1001.dcm.png"},
        {"path": "images/images_normalized/9001_IM-0101-2001.dcm.png", "view": "LAT"},
    ]
    assert notes == ["reports without an image: 1", "studies of the table of images without a report: 1"]


def test_openi_files_come_in_the_order_of_their_numbers_and_images_where_they_lie(copied) -> None:
    folder = copied("openi") / "ecgen-radiology"
    for name in ("2", "10", "100"):
        text = (folder / "9001.xml").read_text()
        (folder / f"{name}.xml").write_text(text.replace("CXR9001", f"CXR{name}"))
    (folder / "NLMCXR_png").mkdir()
    (folder / "NLMCXR_png" / "CXR10_IM-0101-1001.png").touch()
    found, _ = rows("openi", folder)
    assert list(found) == ["CXR2", "CXR10", "CXR100", "CXR9001", "CXR9002", "CXR9010"]
    assert found["CXR2"]["images"][0]["path"] == "NLMCXR_png/CXR2_IM-0101-1001.png"


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 20}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMB = f"{LAUGHS}]><eCitation><uId id='CXR1'/>&i;</eCitation>"
FOREIGN = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]><eCitation><uId id="1"/>&f;</eCitation>'


@pytest.mark.parametrize("text", [BOMB, FOREIGN], ids=["billion laughs", "another file"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_a_document_type_is_refused_unread(text: str, encoding: str) -> None:
    data = f"<?xml version='1.0' encoding='{encoding}'?>{text}".encode(encoding)
    started = time.process_time()
    with pytest.raises(Refused, match="DOCTYPE"):
        parse(data)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<eCitation><uId id='CXR1'/>", "not valid XML"),
        (b"", "not valid XML"),
        (b"<html/>", "no report of Open-i"),
        (BOMB.encode(), "DOCTYPE"),
        (b"<?xml version='1.0' encoding='utf-7'?><eCitation/>", "names an encoding"),
        (b"<?xml version='1.0' encoding='none'?><eCitation/>", "names an encoding"),
    ],
)
def test_a_file_that_is_no_report_is_set_aside(copied, content: bytes, problem: str) -> None:
    folder = copied("openi")
    (folder / "ecgen-radiology" / "1.xml").write_bytes(content)
    archive = open_layout("openi", str(folder))
    first, *rest = archive.rows()
    assert problem in first.error
    assert first.file.endswith("1.xml")
    assert all(row.data for row in rest)
    assert len(rest) == 3


# --------------------------------------------------------------------- kills, shards and processes, on a larger archive

STUDIES = 400


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """A folder like MIMIC-CXR's, with tables in no order."""
    folder = tmp_path_factory.mktemp("archive") / "mimic"
    chance = random.Random(5)
    header = "dicom_id,subject_id,study_id,ViewPosition,StudyDate,StudyTime"
    images = []
    for number in range(STUDIES):
        patient, study = f"1{number % 3}{number // 4:06}", f"5{number:07}"
        path = folder / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f" FINAL REPORT\n {REPORTS[number % len(REPORTS)]}\n", encoding="utf-8")
        images += [f"{number}-{i},{patient},{study},AP,21{number % 90 + 10}0101,{number}.5" for i in range(number % 3)]
    chance.shuffle(images)
    (folder / METADATA).write_bytes(gzip.compress("\n".join([header, *images, ""]).encode()))
    return folder


@pytest.fixture(scope="module")
def whole(archive: Path, tmp_path_factory) -> bytes:
    output = tmp_path_factory.mktemp("whole") / "questions"
    subprocess.run(mining(archive, "-o", output), check=True, capture_output=True, env=environment(), timeout=60)
    return output.read_bytes()


def mining(archive: Path, *options: object) -> list[str]:
    return [*(sys.executable, "-m", "cxr_reason", "mine", "--layout", "mimic", str(archive)), *map(str, options)]


def mined(archive: Path, *options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(mining(archive, *options), capture_output=True, env=environment(), timeout=60)


@pytest.mark.xdist_group("layouts")
def test_two_processes_and_two_shards_give_the_same(archive: Path, whole: bytes) -> None:
    assert mined(archive, "--jobs", 2).stdout == whole
    halves = [mined(archive, "--shard", f"{i}/2").stdout.splitlines() for i in (0, 1)]
    assert all(halves)
    assert Counter(halves[0] + halves[1]) == Counter(whole.splitlines())
    studies = [{json.loads(line)["study_id"] for line in half} for half in halves]
    assert not studies[0] & studies[1]


@pytest.mark.xdist_group("layouts")
def test_a_killed_run_goes_on_to_the_same_bytes(archive: Path, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(mining(archive, "-o", output), stderr=subprocess.DEVNULL, env=environment())
    wait_for(lambda: output.with_name("out.partial").exists() and output.with_name("out.partial").stat().st_size)
    # Stopped for as long as there is between two savings, it saves at its next record, however fast it is.
    process.send_signal(signal.SIGSTOP)
    time.sleep(CHECKPOINT_SECONDS)
    process.send_signal(signal.SIGCONT)
    wait_for(Path(f"{output}.partial.json").exists)
    process.kill()
    process.wait()
    assert not output.exists()
    done = mined(archive, "-o", output)
    assert b"continuing an earlier run" in done.stderr
    assert output.read_bytes() == whole


@pytest.mark.xdist_group("layouts")
def test_an_archive_that_changed_since_is_read_anew(archive: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(archive, tmp_path / "mimic"))
    first = open_layout("mimic", str(folder))
    list(first.rows())
    text = gzip.decompress((folder / METADATA).read_bytes())
    (folder / METADATA).write_bytes(gzip.compress(text.replace(b",AP,", b",PA,", 1)))
    second = open_layout("mimic", str(folder))
    list(second.rows())
    assert first.digest().hexdigest() != second.digest().hexdigest()
    second.rewind()
    assert second.sample()
    again = list(second.rows())
    assert len(again) == STUDIES
    assert isinstance(again[0], Row)
    assert 0 < second.fraction() <= 1
