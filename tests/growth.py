"""What the property tests share: generated reports to build inputs from, and a test of linear time.

The test of time compares the processor time on an input with that on a quarter of it. Linear work takes four times as
long, quadratic work sixteen times; the bound is eight.
"""

from __future__ import annotations

import gc
import importlib.util
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]


def inputs(count: int) -> settings:
    """The same `count` inputs in every run: a red build stays red until it is mended."""
    return settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "benchmarks" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REPORTS: list[str] = [report.text for report in load_generator().reports(200, seed=11)]


QUARTER = 4
BOUND = 8.0
# Below this a measurement is mostly start-up and noise, so shorter times count as this.
SHORTEST_SECONDS = 0.01


def seconds(work: Callable[[str], object], text: str) -> float:
    """CPU time of our work alone: searching for garbage takes the longer, the more other tests have left behind."""
    gc.collect()
    gc.disable()
    try:
        started = time.process_time()
        work(text)
        return max(time.process_time() - started, SHORTEST_SECONDS)
    finally:
        gc.enable()


def assert_linear(work: Callable[[str], object], make: Callable[[int], str], size: int) -> None:
    """`work` on `make(size)` takes at most `BOUND` times as long as on `make(size // QUARTER)`.

    A sixteenth is held against the quarter first, so that quadratic work fails before it takes minutes. A ratio over
    the bound is measured again, on texts of another end, since `read` remembers some.
    """
    for n in (size // QUARTER, size):
        ratios = []
        for end in ("", ".", " ."):
            small, large = (seconds(work, make(part) + end) for part in (n // QUARTER, n))
            ratios.append(large / small)
            if ratios[-1] <= BOUND:
                break
        else:
            pytest.fail(f"{n:,} took {min(ratios):.1f} times as long as {n // QUARTER:,}")


def long_line(characters: int) -> str:
    """Sentences of generated reports on one line, without an end."""
    whole = itertools.cycle(report.replace("\n", " ") for report in REPORTS)
    pieces: list[str] = []
    length = 0
    while length < characters:
        pieces.append(next(whole))
        length += len(pieces[-1]) + 1
    return " ".join(pieces)[:characters]
