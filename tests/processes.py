"""What the tests of real processes share: who runs, and waiting for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have gone meanwhile
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found.append(int(status.parent.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return once `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
