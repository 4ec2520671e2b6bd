"""`verify`: every cell of the tables in docs/verify.md, and prose as models write it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from cxr_reason.radiology import Finding, claims, read, verify

PAGE = Path(__file__).resolve().parents[1] / "docs" / "verify.md"
VERDICTS = ["supported", "unverifiable", "contradicted"]  # by what they cost
BASES = ["stated", "region", "silent"]


class Cell(NamedTuple):
    """One cell of a truth table: what the page says of `claim` where the report is `report`."""

    section: str
    row: str
    report: str
    claim: str
    verdict: str
    basis: str


def cells() -> Iterator[Cell]:
    """The cells of all truth tables of the page: those whose head is "report | example | `claim` ..."."""
    section, asked = "", []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        section = line.removeprefix("## ") if line.startswith("## ") else section
        row = [part.strip() for part in line.strip("|").split("|")]
        if not line.startswith("|"):
            asked = []
        elif row[:2] == ["report", "example"]:
            asked = [head.strip("`") for head in row[2:]]
        elif asked and not row[0].startswith("---"):
            for claim, cell in zip(asked, row[2:], strict=True):
                verdict, basis = cell.split(", ")
                yield Cell(section, row[0], row[1].strip("`"), claim, verdict, basis)


CELLS = list(cells())


def status_of(claim: str) -> str:
    return claims(claim)[0].status


# The table


def test_page_has_the_whole_table() -> None:
    states = ["present", "absent", "bounded", "uncertain", "conflict", "resolved"]
    asked = ["present", "absent", "uncertain"]
    told: dict[str, set[tuple[str, str]]] = {}
    for cell in CELLS:
        told.setdefault(cell.section, set()).add((cell.row, status_of(cell.claim)))
    for relation in ("same side", "other side", "both sides", "side unstated"):
        assert told["Side"] >= {(f"{relation}, {state}", a) for state, a in product(states, asked)}
    for relation in ("child", "parent"):
        kin = [state for state in states if state != "conflict"]
        assert told["Parents and children"] >= {(f"{relation}, {state}", a) for state, a in product(kin, asked)}
    for row in ("present", "absent", "bounded", "conflict", "resolved", "unmentioned"):
        assert told["Status"] >= {(row, a) for a in asked}
    for relation in ("same severity", "other severity", "severity unstated"):
        assert told["Severity"] >= {
            (f"{relation}, {state}", a) for state, a in product(["present", "uncertain"], asked)
        }
    assert len(CELLS) == len({(cell.section, cell.report, cell.claim) for cell in CELLS}), "a cell stands twice"


def test_page_uses_the_words_of_verify_only() -> None:
    assert {cell.verdict for cell in CELLS} == set(VERDICTS)
    assert {cell.basis for cell in CELLS} == set(BASES)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.section}: {cell.row}: {cell.claim}")
def test_cell(cell: Cell) -> None:
    verdict = verify(cell.claim, cell.report)
    assert (verdict.verdict, verdict.basis) == (cell.verdict, cell.basis), verdict.reason


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.section}: {cell.row}: {cell.claim}")
def test_cell_where_silence_is_unknown(cell: Cell) -> None:
    verdict = verify(cell.claim, cell.report, silence="unknown")
    expected = "unverifiable" if cell.basis == "silent" else cell.verdict
    assert (verdict.verdict, verdict.basis) == (expected, cell.basis), verdict.reason


@pytest.mark.parametrize("silence", ["normal", "unknown"])
@pytest.mark.parametrize(
    "report",
    [
        "Small left pleural effusion.",
        "Possible left pleural effusion.",
        "Large left pneumothorax. No pleural effusion.",
        "Left lower lobe consolidation. The right lung is clear.",
        "Old left rib fracture. The lungs are clear.",
    ],
)
def test_a_flipped_side_costs_at_least_as_much_as_a_dropped_finding(report: str, silence: str) -> None:
    for finding in read(report).facts():
        if finding.side == "left" and finding.status != "absent":
            flipped = Finding(finding.name, finding.label, finding.status, finding.certainty, side="right")
            dropped = Finding(finding.name, finding.label, "absent")
            costs = [VERDICTS.index(verify(claim, report, silence=silence).verdict) for claim in (flipped, dropped)]
            assert costs[0] >= costs[1]
            assert costs[0] == VERDICTS.index("contradicted")


def test_spans_are_where_the_report_says_so() -> None:
    report = "The heart is not enlarged. Small left pleural effusion. No pneumothorax."
    for claim, words in (
        ("There is a pleural effusion.", "pleural effusion"),
        ("There is a pneumothorax.", "pneumothorax"),
    ):
        spans = verify(claim, report).spans
        assert [report[start:end] for start, end in spans] == [words]
    assert verify("There is a fracture.", report).spans == []


def test_reasons_are_for_people() -> None:
    assert verify("There is a left pleural effusion.", "Right pleural effusion.").reason == "the report says right"
    assert "doesn't mention" in verify("There is a fracture.", "No pneumothorax.").reason


def test_a_reading_and_its_text_get_the_same_verdict() -> None:
    report = "Small left pleural effusion. No pneumothorax."
    for claim in ("There is a left pleural effusion.", "There is a pneumothorax.", "The heart is enlarged."):
        assert verify(claim, read(report)) == verify(claim, report)


def test_a_finding_and_its_words_get_the_same_verdict() -> None:
    for cell in CELLS:
        made = claims(cell.claim)
        if len(made) == 1:
            assert verify(made[0], cell.report) == verify(cell.claim, cell.report)


def test_silence_must_be_normal_or_unknown() -> None:
    with pytest.raises(ValueError, match="'normal' or 'unknown', not 'assumed'"):
        verify("There is a fracture.", "No fracture.", silence="assumed")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "report", ["No acute pulmonary process.", "The lungs are grossly clear.", "The left lung is clear."]
)
def test_beyond_the_limits_of_a_region_may_be_silence(report: str) -> None:
    for claim, verdict in (("There is emphysema.", "contradicted"), ("There is no emphysema.", "supported")):
        assert verify(claim, report).verdict == "unverifiable"
        loose = verify(claim, report, limits="silent")
        assert (loose.verdict, loose.basis) == (verdict, "silent")
        assert verify(claim, report, limits="silent", silence="unknown").verdict == "unverifiable"
    within = verify("There is no acute pneumonia.", "No acute pulmonary process.", limits="silent")
    assert (within.verdict, within.basis) == ("supported", "region")
    own = verify("There is no pleural effusion.", "No large pleural effusion.", limits="silent")
    assert own.verdict == "unverifiable"


def test_limits_must_be_strict_or_silent() -> None:
    with pytest.raises(ValueError, match="limits"):
        verify("No effusion.", "No effusion.", limits="loose")  # type: ignore[arg-type]


def test_of_several_claims_the_worst_counts() -> None:
    report = "Left pleural effusion. Possible pneumonia. The heart is enlarged."
    good, open_, wrong = "The heart is enlarged.", "There is pneumonia.", "There is a right pleural effusion."
    assert verify(f"{good} {open_}", report).verdict == "unverifiable"
    assert verify(f"{good} {wrong} {open_}", report).verdict == "contradicted"
    assert verify(good, report).verdict == "supported"


def test_one_silent_claim_among_stated_ones() -> None:
    claim, report = "There is a left pleural effusion and no pneumothorax.", "Left pleural effusion."
    assert verify(claim, report).verdict == "supported"
    assert verify(claim, report, silence="unknown").verdict == "unverifiable"


@pytest.mark.parametrize(
    "report", ["", "See dictated report.", "El corazón es de tamaño normal. No hay derrame pleural."]
)
def test_a_report_that_could_not_be_read_says_nothing(report: str) -> None:
    verdict = verify("There is a pleural effusion.", report, silence="unknown")
    assert (verdict.verdict, verdict.basis, verdict.spans) == ("unverifiable", "silent", [])


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "No", "?", "\x00", "\u202e effusion", "a" * 5000, "no " * 500, "İ ß left", "[**"]
)
def test_any_text_may_be_a_claim_or_a_report(text: str) -> None:
    for claim, report in ((text, "No pleural effusion."), ("There is a pleural effusion.", text), (text, text)):
        assert verify(claim, report).verdict in VERDICTS


# Prose as models write it


def said(text: str) -> list[str]:
    """The claims of a text in short: name, status, and what else isn't at its default."""
    short = []
    for finding in claims(text):
        certainty = finding.certainty if finding.certainty != "definite" else None
        details = [finding.status, certainty, finding.bound, finding.side, finding.severity, finding.change]
        short.append(" ".join([f"{finding.name}:", *(detail for detail in details if detail)]))
    return short


PROSE = {
    "No signs of fluid are noted in the costophrenic angles.": ["pleural effusion: absent"],
    "The heart appears normal in size.": ["cardiomegaly: absent"],
    "The heart is not enlarged.": ["cardiomegaly: absent"],
    "The cardiac silhouette appears enlarged.": ["cardiomegaly: present"],
    "The cardiothoracic ratio is within normal limits.": ["cardiomegaly: absent"],
    "Cardiac silhouette: normal": ["cardiomegaly: absent"],
    "* Heart: enlarged": ["cardiomegaly: present"],
    "Mediastinum prominence: not present": ["enlarged cardiomediastinum: absent"],
    "Pleural effusion: none": ["pleural effusion: absent"],
    "- Pleural effusion: present on the left": ["pleural effusion: present left"],
    "**Lungs:** clear": ["lung abnormality: absent"],
    "Findings suggestive of pneumonia.": ["pneumonia: uncertain probable"],
    "The opacity is suggestive of pneumonia.": ["lung opacity: present", "pneumonia: uncertain probable"],
    "This is consistent with pneumonia.": ["pneumonia: uncertain probable"],
    "There is no evidence of pneumothorax.": ["pneumothorax: absent"],
    "There's no evidence of pneumothorax": ["pneumothorax: absent"],
    "I do not see a pneumothorax.": ["pneumothorax: absent"],
    "Air in the pleural space is not seen.": ["pneumothorax: absent"],
    "Neither pleural effusion nor pneumothorax is visible.": ["pleural effusion: absent", "pneumothorax: absent"],
    "The lungs do not show any consolidation.": ["consolidation: absent"],
    "The absence of pleural effusion is noted.": ["pleural effusion: absent"],
    "The pleural spaces are free of fluid.": ["pleural effusion: absent"],
    "Fluid is present in the left pleural space.": ["pleural effusion: present left"],
    "I see a nodule in the right upper lobe.": ["lung nodule: present right"],
    "The lungs appear clear without focal consolidation.": ["lung abnormality: absent", "consolidation: absent focal"],
    "- No pleural effusion\n- No pneumothorax\n- Mild cardiomegaly": [
        "pleural effusion: absent", "pneumothorax: absent", "cardiomegaly: present mild",
    ],
    "1. No effusion.\n2. Small right pneumothorax.": ["pleural effusion: absent", "pneumothorax: present right mild"],
    "There is blunting of the left costophrenic angle, suggesting a small effusion.": [
        "blunted costophrenic angle: present left", "pleural effusion: uncertain probable left mild",
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", PROSE)
def test_prose_claims(text: str) -> None:
    assert said(text) == PROSE[text]


@pytest.mark.parametrize(
    "text",
    [
        "We should look for pleural effusion in the costophrenic angles.",
        "First, I would check the heart size for cardiomegaly.",
        "To determine whether there is edema, assess the vessels.",
        "If there is an effusion, the angle is blunted.",
        "Look for a pleural line.",
        "One should assess the heart size.",
        "Recommend CT to exclude a mass.",
        "History of pneumonia.",
        "Let us go through the film step by step.",
    ],
)
def test_plans_and_history_claim_nothing(text: str) -> None:
    assert claims(text) == []
    assert verify(text, "No pleural effusion.") == verify("Hello.", "No pleural effusion.")
    assert verify(text, "No pleural effusion.").reason == "claims nothing about the film"


def test_spans_of_claims_lie_in_the_text() -> None:
    text = "The heart is enlarged. I see a small left pleural effusion."
    assert [re.sub(r"\s+", " ", text[slice(*f.span)]) for f in claims(text)] == [
        "heart is enlarged",
        "pleural effusion",
    ]
