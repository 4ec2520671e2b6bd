"""Every table of figures has a script that writes it; what they measure is in BENCHMARKS.md."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT


def test_make_bench_runs_every_benchmark_and_each_has_its_place_in_a_page() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = re.search(r"^BENCH := (.*?[^\\])$", makefile, flags=re.M | re.S)
    assert lines
    run = {line.split()[0] for line in shlex.split(lines[1].replace("\\\n", ""))} | {"arrays"}
    writing = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if re.search(r"^ +publish\(", path.read_text("utf-8"), re.M)
    }
    assert run == writing
    pages = [ROOT / "BENCHMARKS.md", *(ROOT / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    begins = re.findall(r"^<!-- benchmarks/(.*): begin -->$", text, flags=re.M)
    assert begins == re.findall(r"^<!-- benchmarks/(.*): end -->$", text, flags=re.M)
    assert len(set(begins)) == len(begins)
    assert {begin.split(".py")[0] for begin in begins} == run


def test_a_benchmark_writes_between_its_markers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bench = importlib.import_module("bench")
    page = tmp_path / "page.md"
    (begin, end), (other, _) = bench.markers("a.py"), bench.markers("b.py")
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    bench.publish("a.py", "| new |", write=False, page=page)
    assert "old" in page.read_text()
    bench.publish("a.py", "| new |", write=True, page=page)
    assert page.read_text() == f"before\n{begin}\n| new |\n{end}\nafter\n"
    with pytest.raises(SystemExit, match=other):
        bench.publish("b.py", "| new |", write=True, page=page)
