"""Whatever comes in: hundreds of texts through the engine, and hostile ones of growing length."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import promises
import pytest
from growth import REPORTS, assert_linear, inputs, long_line
from hypothesis import given
from hypothesis import strategies as st

from cxr_reason.radiology import read, verify

# What reports are made of, apart from sentences: cues, headings, numbers, masks, and marks where cutting goes wrong.
SCRAPS = [
    "no", "without", "cannot exclude", "likely", "may represent", "versus", "and/or", "but", "unchanged", "due to",
    "has resolved", "status post", "not", "neither", "nor", "rule out", "either", "both", "left", "right", "bilateral",
    "small", "mild to moderate", "effusion", "pneumothorax", "pneumonia", "cardiomegaly", "the heart", "lungs", "clear",
    "opacity", "endotracheal tube", "removed", "3.5 cm above the carina", "XXXX", "___", "[**2101-3-4**]", "1.", "2)",
    "FINDINGS:", "IMPRESSION:", "ADDENDUM:", "PRELIMINARY READ:", "INDICATION:", "HISTORY:", "COMPARISON:", "Dr.",
    "T8-T9", ".", ",", ";", ":", "?", "(", ")", "/", "-", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", "é", "İ", "ß",
    "\U0001d529\U0001d532ngs", "\x00",
]  # fmt: skip

soup = st.lists(st.sampled_from(SCRAPS), max_size=60).map(" ".join)
anything = st.text(max_size=400)


@st.composite
def spliced_reports(draw: st.DrawFn) -> str:
    """Two generated reports cut anywhere, put together with something strange in between, sometimes in capitals."""
    first, second = draw(st.sampled_from(REPORTS)), draw(st.sampled_from(REPORTS))
    head = first[: draw(st.integers(0, len(first)))]
    tail = second[draw(st.integers(0, len(second))) :]
    text = head + draw(st.one_of(st.just(""), st.sampled_from(SCRAPS), st.text(max_size=5))) + tail
    return text.upper() if draw(st.booleans()) and draw(st.booleans()) else text


texts = st.one_of(spliced_reports(), soup, anything)


@inputs(450)
@given(text=texts)
def test_engine_reads_anything_and_stays_in_its_bounds(text: str) -> None:
    promises.reads(text)


@inputs(200)
@given(claim=texts, report=texts)
def test_verify_answers_anything_within_its_words(claim: str, report: str) -> None:
    promises.verifies(claim, report)


@inputs(150)
@given(report=texts)
def test_what_is_mined_from_anything_is_valid_and_refined_once_for_all(report: str) -> None:
    promises.mines(report)


def nested(n: int) -> str:
    return "FINDINGS: IMPRESSION: ADDENDUM: " * n + "No effusion."


SHAPES: dict[str, tuple[Callable[[int], str], int]] = {
    "5 MB line": (long_line, 5_000_000),
    "one word of 1 MB": (lambda n: "a" * n, 1_000_000),
    "commas": (lambda n: "no effusion" + "," * n + " or pneumothorax", 100_000),
    "no": (lambda n: "no " * n + "effusion", 100_000),
    "list without an end": (lambda n: "no " + "effusion, " * n + "or pneumothorax.", 50_000),
    "hedges": (lambda n: "likely possibly versus " * n + "pneumonia", 30_000),
    "newlines": (lambda n: "Lungs clear." + "\n" * n + "No effusion.", 200_000),
    "blanks": (lambda n: "Lungs clear" + " " * n + "no effusion", 200_000),
    "numbers": (lambda n: "1. " * n + "No effusion.", 50_000),
    "measurements": (lambda n: "nodule of " + "3.5 x " * n + "2 cm", 50_000),
    "masks": (lambda n: "XXXX" * n + " represent pneumonia", 100_000),
    "underscores": (lambda n: "_" * n + " represent pneumonia", 200_000),
    "brackets": (lambda n: "[**" * n + "pneumonia", 50_000),
    "headings": (nested, 20_000),
    "heading colons": (lambda n: "FINDINGS" + ":" * n + " effusion", 100_000),
    "full stops": (lambda n: "effusion" + "." * n + " no pneumothorax", 100_000),
    "hyphens": (lambda n: "left" + "-sided" * n + " effusion", 50_000),
    "deep Unicode": (lambda n: "effu\u0301" + "\u0301" * n + "sion \U0001f9d1\u200d" * 10, 200_000),
    "letters of other scripts": (lambda n: "\u0130\u1e9e\u4e2d\u0627\U0001d529" * n, 40_000),
    "same finding": (lambda n: "Left effusion. Right effusion has resolved. No effusion. " * n, 3_000),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_time_is_linear(shape: str) -> None:
    make, size = SHAPES[shape]
    assert_linear(read, make, size)


@pytest.mark.parametrize("shape", ["commas", "no", "list without an end", "hedges", "numbers", "same finding"])
def test_verifying_time_is_linear_in_the_claim(shape: str) -> None:
    make, size = SHAPES[shape]
    assert_linear(lambda claim: verify(claim, REPORTS[0]), make, size // 4)


READ_FROM = """
import json, sys
from cxr_reason.radiology import read
start, texts = json.load(sys.stdin)
found = {}
for text in texts[start:] + texts[:start]:
    found[text] = [finding.as_dict() for finding in read(text).findings]
print(json.dumps([found[text] for text in texts]))
"""


def test_what_was_read_before_changes_nothing() -> None:
    """The engine remembers phrases, sentences and clauses; a run that begins elsewhere must read the same."""

    def reading_from(start: int) -> str:
        told = json.dumps([start, REPORTS])
        done = subprocess.run([sys.executable, "-c", READ_FROM], input=told, capture_output=True, text=True, check=True)
        return done.stdout

    first = reading_from(0)
    assert len(first) > 10_000
    assert all(reading_from(start) == first for start in (7, 38, 101))
