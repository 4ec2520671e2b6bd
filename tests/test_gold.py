"""The gold sentences: their files are whole, and the scorer counts right on cases that can be counted by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from gold import score
from gold.score import GOLD, Entry

LEFT = Entry("pleural effusion", "present", side="left")
RIGHT = Entry("pleural effusion", "present", side="right")
NO_AIR = Entry("pneumothorax", "absent")
KINDS = [
    "absent", "bounded", "probable", "possible", "differential", "history", "resolved", "removed", "new", "worse",
    "stable", "better", "list_scope", "conflict",
]  # fmt: skip


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


# The files


def test_all_files_hold_the_same_items_in_the_same_order() -> None:
    ids = [row["id"] for row in score.rows(GOLD / "sentences.jsonl")]
    assert len(set(ids)) == len(ids) >= 500
    for name in ("kinds", "labels_a", "labels_b", "labels"):
        assert [row["id"] for row in score.rows(GOLD / f"{name}.jsonl")] == ids, name


@pytest.mark.parametrize("name", ["labels_a", "labels_b", "labels"])
def test_labels_keep_to_the_guidelines(name: str) -> None:
    labels = score.load(GOLD / f"{name}.jsonl")
    assert sum(map(len, labels.values())) > 800


def test_absences_have_no_severity_and_resolved_findings_are_absent() -> None:
    for item, entries in score.load(GOLD / "labels.jsonl").items():
        for entry in entries:
            assert entry.status != "absent" or entry.severity is None, item
            assert (entry.time == "resolved") == (entry.change == "resolved"), item
            assert entry.time != "resolved" or entry.status == "absent", item
            assert (entry.certainty in ("possible", "differential")) <= (entry.status == "uncertain"), item


def test_final_is_two_fifths_and_every_kind_has_forty_items() -> None:
    for row in score.rows(GOLD / "sentences.jsonl"):
        assert row["split"] == ("final" if int(row["id"][1:]) % 5 in (0, 3) else "dev")
    counts = Counter(kind for row in score.rows(GOLD / "kinds.jsonl") for kind in row["kinds"])
    assert all(counts[kind] >= 40 for kind in KINDS), counts


def test_readme_prints_the_kappas_that_the_files_give() -> None:
    printed = score.kappa_table(score.load(GOLD / "labels_a.jsonl"), score.load(GOLD / "labels_b.jsonl"))
    assert printed in (GOLD / "README.md").read_text(encoding="utf-8")


def test_readme_counts_the_items_that_differ_and_settles_each_to_one_side() -> None:
    a, b, gold = (score.load(GOLD / f"{name}.jsonl") for name in ("labels_a", "labels_b", "labels"))
    differing = [item for item in gold if set(a[item]) != set(b[item])]
    first = [item for item in differing if set(gold[item]) == set(a[item])]
    readme = (GOLD / "README.md").read_text(encoding="utf-8")
    assert f"{len(differing)} of {len(gold)} items differed" in readme
    assert f"{len(first)} were settled as A had them, {len(differing) - len(first)} as B had them" in readme
    assert all(set(gold[item]) in (set(a[item]), set(b[item])) for item in gold)


# Loading


@pytest.mark.parametrize(
    ("finding", "reason"),
    [
        ({"name": "effusion", "status": "absent"}, "list of names"),
        ({"name": "pneumothorax", "status": "gone"}, "status 'gone'"),
        ({"name": "pneumothorax", "status": "present", "bound": "large"}, "without an absence"),
        ({"name": "pneumothorax", "status": "present", "certainty": None}, "certainty None"),
        ({"name": "pneumothorax", "status": "present", "size": "2 cm"}, "size"),
    ],
)
def test_load_names_file_line_and_reason(tmp_path: Path, finding: dict[str, str], reason: str) -> None:
    path = write(tmp_path / "bad.jsonl", {"id": "x1", "findings": []}, {"id": "x2", "findings": [finding]})
    with pytest.raises(ValueError, match=rf"bad\.jsonl:2: .*{reason}"):
        score.load(path)


def test_load_refuses_an_item_or_an_entry_twice(tmp_path: Path) -> None:
    entry = {"name": "pneumothorax", "status": "absent"}
    with pytest.raises(ValueError, match="x1 comes twice"):
        score.load(write(tmp_path / "items.jsonl", {"id": "x1", "findings": []}, {"id": "x1", "findings": []}))
    with pytest.raises(ValueError, match="the same entry twice"):
        score.load(write(tmp_path / "entries.jsonl", {"id": "x1", "findings": [entry, entry]}))


# Alignment


def test_one_entry_of_a_name_is_aligned_whatever_its_side() -> None:
    assert score.align([LEFT, NO_AIR], [RIGHT]) == [(LEFT, RIGHT), (NO_AIR, None)]


def test_of_several_entries_of_a_name_only_equal_sides_are_aligned() -> None:
    unsided = Entry("pleural effusion", "present")
    assert score.align([LEFT, RIGHT], [RIGHT]) == [(LEFT, None), (RIGHT, RIGHT)]
    assert score.align([LEFT, RIGHT], [unsided]) == [(LEFT, None), (RIGHT, None), (None, unsided)]


def test_of_several_entries_of_a_name_and_side_the_most_alike_are_aligned() -> None:
    old = Entry("enteric tube", "absent", time="resolved", change="resolved")
    new = Entry("enteric tube", "present", change="new")
    plain = Entry("enteric tube", "present")
    assert score.align([old, new], [plain]) == [(old, None), (new, plain)]
    assert score.align([old, new], [new, old]) == [(old, old), (new, new)]


# Kappa


def test_agreement_counts_listed_pairs_and_fields_of_findings_that_both_list() -> None:
    a = {"x1": [LEFT, NO_AIR], "x2": [Entry("scoliosis", "present")]}
    b = {"x1": [RIGHT, NO_AIR], "x2": []}
    lines = {line.what: line for line in score.agreement(a, b)}
    listed, side, status = lines["listed"], lines["side"], lines["status"]
    assert (listed.rated, listed.used, listed.equal) == (2 * len(score.names()), 3, 2 * len(score.names()) - 1)
    assert (side.rated, side.used, side.equal) == (2, 1, 1)
    assert (status.rated, status.equal, status.kappa) == (2, 2, 1)
    assert lines["severity"].kappa is None


def test_agreement_needs_the_same_items() -> None:
    with pytest.raises(ValueError, match="x2"):
        score.agreement({"x1": []}, {"x1": [], "x2": []})


# The engine's score


def test_score_of_cases_counted_by_hand() -> None:
    gold = {"x1": [LEFT, NO_AIR], "x2": [Entry("pneumonia", "uncertain", "possible")], "x3": []}
    engine = {
        "x1": [RIGHT, NO_AIR, Entry("pleural abnormality", "absent")],  # a wrong side, a region that gold doesn't list
        "x2": [Entry("pneumonia", "present")],  # a wrong status
        "x3": [],
    }
    result = score.score(gold, engine)
    assert (result.items, result.gold) == (3, 3)
    assert result.recall == pytest.approx(2 / 3)
    assert result.precision == pytest.approx(2 / 4)
    assert result.exact == pytest.approx(1 / 3)
    assert result.accuracy["side"] == pytest.approx(2 / 3)
    assert (result.where_set["side"], result.where_set["certainty"], result.where_set["change"]) == (0, 0, None)


def test_a_missed_finding_has_no_field_right() -> None:
    result = score.score({"x1": [LEFT, NO_AIR]}, {"x1": [LEFT]})
    assert set(result.accuracy.values()) == {0.5}
    assert (result.recall, result.precision, result.exact) == (0.5, 1, 0)


def test_order_and_repetition_are_no_errors() -> None:
    mentions = [NO_AIR, LEFT, LEFT]
    engine = score.engine_labels({"x1": "text"}, lambda text: SimpleNamespace(findings=mentions))
    assert engine == {"x1": [NO_AIR, LEFT]}
    assert score.score({"x1": [LEFT, NO_AIR]}, engine).exact == 1


def test_merged_facts_go_before_mentions() -> None:
    reading = SimpleNamespace(findings=[LEFT, RIGHT], facts=lambda: [NO_AIR])
    assert score.engine_labels({"x1": "text"}, lambda text: reading) == {"x1": [NO_AIR]}


def test_errors_show_text_and_differences() -> None:
    shown = score.errors(
        {"x1": [LEFT, NO_AIR], "x2": []}, {"x1": [RIGHT, NO_AIR], "x2": []}, {"x1": "Effusion.", "x2": ""}
    )
    lines = ["x1 'Effusion.'", "  - pleural effusion: present, left", "  + pleural effusion: present, right"]
    assert list(shown) == ["\n".join(lines)]


def test_tables_hold_every_field_and_kind() -> None:
    gold = {"x1": [LEFT, NO_AIR]}
    printed = score.score_tables(gold, gold, {"x1": ["side", "absent"]})
    first = [line.split("|")[1].strip() for line in printed.splitlines() if line]
    assert {*score.FIELDS, "side", "absent"} <= set(first)
    assert "| absent |     1 |  1.000 |     1.000 |       1.000 |" in printed
