"""Time and memory of `cxr mine` and `cxr refine` as Slurm arrays, from 10,000 to 1,000,000 reports.

    python benchmarks/arrays.py                          # 1,000,000 reports: 12 GB of disk, half an hour on two cores
    python benchmarks/arrays.py --write                  # also puts the tables into BENCHMARKS.md
    python benchmarks/arrays.py --reports 10000 50000    # a quick look

It submits to the Slurm that `sbatch` finds (`tools/slurm_here.sh start` makes one on this machine): an array of
`--tasks` for `mine` and then one for `refine`, as many at a time as there are processors. A task takes its shard by
itself and writes a part. Each tells its own time and peak memory, which must not grow with the input: a shard reads all
of it, and keeps its part of the studies.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import conditions, cxr_command, generate, measure, note, parser_of, publish, table

FROM, TO = 10_000, 1_000_000


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--reports", type=int, nargs="+", default=[FROM, 100_000, TO])
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="tasks that run beside each other")
    parser.add_argument("--work", type=Path, help="where files go [default: a temporary folder]")
    parser.add_argument("--task", nargs=3, metavar=("COMMAND", "INPUT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        task(*options.task)
        return
    with tempfile.TemporaryDirectory(prefix="cxr-arrays-", dir=options.work) as name:
        rows, slopes = [], []
        for count in options.reports:
            rows += measured(Path(name) / str(count), count, tasks=options.tasks, at_once=options.at_once)
        header = ["reports", "array of", "wall s", "CPU s a task", "peak MB a task", "records", "MB a task writes"]
        told = table(header, [[f"{row['reports']:,}", row["command"], *cells(row)] for row in rows])
        for command in ("mine", "refine"):
            least, most = (next(r for r in rows if (r["reports"], r["command"]) == (count, command))
                           for count in (min(options.reports), max(options.reports)))  # fmt: skip
            more = most["reports"] - least["reports"]
            if more:
                slopes.append([
                    command,
                    f"{1e6 * (most['cpu'] - least['cpu']) / more:,.0f}",
                    f"{1e6 * least['cpu'] / least['reports']:,.0f}",
                    f"{1e5 * (most['peak'] - least['peak']) / more:+.1f}",
                ])  # fmt: skip
        header = ["array of", "CPU µs a report, from the least to the most", "of the least", "peak MB per 100,000 more"]
    slurm = subprocess.run(["sbatch", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    about = f"{conditions(f'{os.cpu_count()} cores')}; {slurm}. {options.tasks} tasks, {options.at_once} at a time."
    publish("arrays.py", f"{about}\n\n{told}\n\n{table(header, slopes)}", write=options.write)


def cells(row: dict[str, Any]) -> list[str]:
    tasks = row["told"]
    cpus, peaks = [told["cpu"] for told in tasks], [told["peak"] for told in tasks]
    return [
        f"{row['wall']:,.0f}",
        f"{min(cpus):,.1f} to {max(cpus):,.1f}",
        f"{min(peaks):,.0f} to {max(peaks):,.0f}",
        f"{sum(told['records'] for told in tasks):,}",
        f"{max(told['bytes'] for told in tasks) / 1e6:,.0f}",
    ]


def measured(folder: Path, count: int, *, tasks: int, at_once: int) -> list[dict[str, Any]]:
    """An array of mine and one of refine on `count` reports; a row each."""
    folder.mkdir(parents=True)
    reports = folder / "reports.csv"
    generate(count, 0, reports)
    rows = []
    for command, source in (("mine", str(reports)), ("refine", str(folder / "mine"))):
        out = folder / command
        out.mkdir()
        words = [sys.executable, os.path.abspath(__file__), "--task", command, source, str(out)]
        began = time.monotonic()
        subprocess.run(
            ["sbatch", "--wait", f"--array=0-{tasks - 1}%{at_once}", "--ntasks=1", f"--output={folder}/%x-%a.log",
             f"--job-name={command}", "--wrap", " ".join(words)],
            check=True, stdout=sys.stderr,
        )  # fmt: skip
        told = [json.loads((out / f"told-{number}.json").read_text()) for number in range(tasks)]
        rows.append(
            {"reports": count, "command": command, "wall": time.monotonic() - began, "told": told,
             "cpu": sum(entry["cpu"] for entry in told), "peak": max(entry["peak"] for entry in told)}
        )  # fmt: skip
        note(f"{count:,} {command}: {rows[-1]['wall']:,.0f} s")
    return rows


def task(command: str, source: str, folder: str) -> None:
    """One task of an array: its part of `source`, and what it took."""
    number = int(os.environ["SLURM_ARRAY_TASK_ID"])
    part = Path(folder) / f"part-{number:05}.jsonl"
    given = [source] if command == "mine" else [str(Path(source) / part.name), "--shard", "0/1"]
    with tempfile.TemporaryDirectory() as scratch:
        run = measure([[*cxr_command(), command, *given, "-q", "-o", str(part)]], Path(scratch))
    with open(part, "rb") as file:
        records = sum(1 for _ in file)
    told = {"cpu": run.cpu, "peak": run.peaks[0], "wall": run.wall, "records": records, "bytes": part.stat().st_size}
    (Path(folder) / f"told-{number}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
