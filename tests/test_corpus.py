"""Everything that the fuzzer ever found (benchmarks/fuzz.py, tests/corpus), through the same promises again."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT
from promises import PROMISES


@pytest.mark.parametrize("target", PROMISES)
def test_what_the_fuzzer_found_keeps_every_promise(target: str) -> None:
    lines = (ROOT / "tests" / "corpus" / f"{target}.jsonl").read_text().splitlines()
    assert len(lines) > 20
    for line in lines:
        PROMISES[target](json.loads(line).encode("latin-1"))
