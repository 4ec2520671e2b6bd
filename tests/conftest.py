"""What several test files share: the checkout, and `cxr` as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_reason import console

ROOT = Path(__file__).resolve().parents[1]

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**changes: str) -> dict[str, str]:
    """The environment of a person without settings: none of cxr's own variables, no colours, no terminal."""
    kept = {name: value for name, value in os.environ.items() if "CXR" not in name and name != "FORCE_COLOR"}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


@pytest.fixture(autouse=True)
def fresh_console() -> None:
    """A command that a test before ran in this process may have been told to be quiet."""
    console.reset()


@pytest.fixture(scope="session")
def cxr() -> Run:
    """Run `cxr ARGUMENTS` to its end: ``cxr("mine", "-", stdin="…", env={…})``."""

    def run(
        *arguments: str,
        stdin: str = "",
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cxr_reason", *arguments],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            env=environment(**(env or {})),
            cwd=cwd,
            timeout=timeout,
        )

    return run
