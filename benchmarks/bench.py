"""What the benchmarks share: processes that are measured, tables, and the pages that tell what came out."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE = ROOT / "BENCHMARKS.md"
CODE = ("cxr_reason", "commands", "benchmarks", "constraints.txt")  # what a figure depends on, below `ROOT`
MEGABYTE = 1e6
LOAD = os.getloadavg()[0]  # processes that ran before this one began, over the last minute


class Measurement(NamedTuple):
    """One run of a command or a pipe."""

    wall: float  # seconds from the first start to the last end
    cpu: float  # seconds of user and system time, all processes
    peaks: tuple[float, ...]  # peak resident memory in MB, one a process
    lines: int  # written to stdout by the last process
    stderr: str  # of the last process


def measure(pipeline: Sequence[Sequence[str]], folder: Path) -> Measurement:
    """Runs the commands as one pipe, stdout into a file. Raises `SystemExit` with the stderr of one that failed."""
    output = folder / "stdout"
    errors = [folder / f"stderr-{number}" for number in range(len(pipeline))]
    processes: list[subprocess.Popen[bytes]] = []
    started = time.perf_counter()
    with output.open("wb") as last_stdout:
        upstream = None
        for command, log in zip(pipeline, errors, strict=True):
            last = len(processes) == len(pipeline) - 1
            with log.open("wb") as stderr:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL if upstream is None else upstream,
                    stdout=last_stdout if last else subprocess.PIPE,
                    stderr=stderr,
                )
            if upstream is not None:
                upstream.close()  # or the first process never hears that the second has gone
            upstream = process.stdout
            processes.append(process)
    cpu, peaks = 0.0, []
    for process, command, log in zip(processes, pipeline, errors, strict=True):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu += usage.ru_utime + usage.ru_stime
        peaks.append(megabytes(usage.ru_maxrss))
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    wall = time.perf_counter() - started
    with output.open("rb") as stream:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
    return Measurement(wall, cpu, tuple(peaks), lines, errors[-1].read_text(errors="replace"))


def megabytes(maxrss: int) -> float:
    """`ru_maxrss`, which the kernel counts in units of its own, in MB."""
    return maxrss * (1 if sys.platform == "darwin" else 1024) / MEGABYTE


def pin(core: int | None = None) -> None:
    """Keeps this process and those that it starts to one core, the last one allowed where none is named."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core is None else core})
    else:
        note("this system can't pin processes to a core; the figures are for whatever it gives them")


def cxr_command() -> list[str]:
    """The console script beside this Python, as users start it; else the module from the checkout."""
    script = Path(sys.executable).with_name("cxr")
    return [str(script)] if script.exists() else [sys.executable, "-m", "cxr_reason"]


def peer_python(folder: Path, packages: Sequence[str]) -> str:
    """The Python of the peer's environment; makes the environment with `packages` if it isn't there."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        note(f"making the peer's environment in {folder}: pip install {' '.join(packages)}")
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True, stdout=sys.stderr)
    return str(python)


def generate(n: int, seed: int, path: Path) -> dict[str, float]:
    """Writes `n` reports in a process of its own, so that this one stays small; returns the generator's figures."""
    command = [sys.executable, str(HERE / "generate.py"), "-n", str(n), "--seed", str(seed), "-o", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stderr)
    return figures


# -------------------------------------------------------------------------------------------------------- what is told


def note(message: str) -> None:
    """Progress, on stderr."""
    print(message, file=sys.stderr, flush=True)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median and range, thousands separated: `3,120 (3,050 to 3,200)`."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column left, the others right."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---", *["---:"] * (len(header) - 1)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def conditions(cores: str) -> str:
    """The day, the machine and the code that figures hold for; `cores` in words."""
    now = datetime.date.today()
    machine = f"{cpu_model()}, {cores}, load {LOAD:.1f} before"
    return f"{now.day} {now:%B %Y}; {machine}; Python {platform.python_version()}; {version()}"


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def version() -> str:
    """That of `cxr`, and where git knows it, the last commit of its code."""
    told = subprocess.run([*cxr_command(), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    commit, changed = git("log", "-1", "--format=%h", "--", *CODE), git("status", "--porcelain", "--", *CODE)
    return told + (f" at {commit}" if commit else "") + (" and what isn't committed yet" if changed else "")


def git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def parser_of(doc: str) -> argparse.ArgumentParser:
    """A parser whose help is a module's `doc`, with the option that `publish` is asked by."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put what is measured into the page that tells it")
    return parser


def publish(name: str, text: str, *, write: bool, page: Path = PAGE) -> None:
    """Prints `text`, the Markdown that `name` (a script and its options) came to; with `write`, also puts it between
    the markers of `name` in `page`.

    Raises `SystemExit` where they are not there, once each.
    """
    print(text)
    if not write:
        return
    told = page.read_text(encoding="utf-8")
    begin, end = markers(name)
    if told.count(begin) != 1 or told.count(end) != 1:
        raise SystemExit(f"{page}: needs one line {begin} and one line {end}")
    before, rest = told.split(begin)
    page.write_text(before + begin + "\n" + text + "\n" + end + rest.split(end)[1], encoding="utf-8")


def markers(name: str) -> tuple[str, str]:
    """The lines between which `name` writes."""
    return f"<!-- benchmarks/{name}: begin -->", f"<!-- benchmarks/{name}: end -->"
