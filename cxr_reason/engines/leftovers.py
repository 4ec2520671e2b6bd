"""A small program that ends what its parent leaves behind: ``leftovers.py PID``, started by `vllm` beside itself.

vLLM's processes wait for ever for the next word of a parent that was killed (kill -9, out of memory), and keep the
device's memory; the next run would find it taken. This one watches its parent, and when it has gone, and its children
have had a moment to go by themselves, kills those that are left. It needs Linux's /proc; elsewhere it does nothing.
It imports nothing of ours, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LOOK_SECONDS = 0.5
GRACE_SECONDS = 2.0


def watch_over_us() -> None:
    """Start the program for this process. It ends with it, a little later."""
    subprocess.Popen(
        [sys.executable, "-I", __file__, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is not for it
    )


def main() -> None:
    parent = int(sys.argv[1])  # not whoever has adopted us, where it died before we looked
    known: dict[int, str] = {}
    while os.getppid() == parent:
        known = family([parent])
        time.sleep(LOOK_SECONDS)
    time.sleep(GRACE_SECONDS)
    for pid, since in (known | family(known)).items():
        if started(pid) == since:  # and not another of the same number
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def family(parents: list[int] | dict[int, str]) -> dict[int, str]:
    """All descendants but this process, each with its time of birth."""
    found: dict[int, str] = {}
    ahead = list(parents)
    while ahead:
        for listed in Path(f"/proc/{ahead.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # gone meanwhile
                for pid in map(int, listed.read_text().split()):
                    since = started(pid)
                    if pid != os.getpid() and pid not in found and since:
                        found[pid] = since
                        ahead.append(pid)
    return found


def started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where there is none, or only its shell of a zombie."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if told[0] == "Z" else told[19]


if __name__ == "__main__":
    main()
