"""How fast records are written and read as JSON lines, Arrow and Parquet, in which memory, and how large files are.

    python benchmarks/formats.py                        # 40,000 and 160,000 records, some minutes
    python benchmarks/formats.py -n 4000 --repeats 1    # a quick look

What is timed is the code of `cxr` itself: the writers, with the file that they give, and `Input`, a dict a record. The
records are those of mined reports (generate.py), the same over and over under other ids. Each measurement is a process
of its own, pinned to one core. CPU time counts, so that others on the machine matter less; formats take turns, figures
are medians, and every ratio is to the JSON lines of the same run. MB are those of the JSON lines, whatever the format,
so that MB/s compare. Peak memory is what the kernel reports, libraries included, for the records named and for four
times as many.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FORMATS = ("jsonl", "arrow", "parquet")
REPORTS = 500
MEGABYTE = 1e6


def studies(block: Path, count: int) -> Iterator[list[dict[str, Any]]]:
    """`count` records, a study at a time, each with an id of its own."""
    from cxr_reason.streams import Input

    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in Input(block).rows():
        assert row.data is not None
        grouped.setdefault(row.data["study_id"], []).append(row.data)
    made = 0
    while True:
        for study in grouped.values():
            yield [{**record, "id": f"r{made + number}"} for number, record in enumerate(study[: count - made])]
            made += len(study)
            if made >= count:
                return


def write(format_name: str, block: Path, output: Path, count: int) -> float:
    """CPU seconds that writing takes, making the records not counted."""
    from cxr_reason.writers import WRITERS

    writer = WRITERS[format_name]
    sink = writer.sink(output)
    sink.open()
    sink.go_on_from(0)
    units: list[list[dict[str, Any]]] = []
    seconds = 0.0

    def flush() -> None:
        nonlocal seconds
        started = time.process_time()
        if units:
            sink.write(writer.batch([writer.encode(unit) for unit in units]))
            units.clear()
        seconds += time.process_time() - started

    sink.write(writer.head())
    for study in studies(block, count):
        units.append(study)
        if len(units) == writer.units:
            flush()
    flush()
    started = time.process_time()
    sink.write(writer.tail())
    sink.seal()
    sink.commit()
    return seconds + time.process_time() - started


def read(path: Path, count: int) -> float:
    """CPU seconds that reading takes."""
    from cxr_reason.streams import Input

    started = time.process_time()
    assert sum(1 for _ in Input(path).rows()) == count
    return time.process_time() - started


def child(what: str, format_name: str, block: str, path: str, count: str) -> None:
    """One measurement, told as JSON on stdout."""
    from cxr_reason.runner import COLLECT_AFTER

    gc.set_threshold(COLLECT_AFTER)  # as in every run
    if what == "write":
        seconds = write(format_name, Path(block), Path(path), int(count))
    else:
        seconds = read(Path(path), int(count))
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def measure(what: str, format_name: str, block: Path, path: Path, count: int) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of a process that does nothing else."""
    core = str(max(os.sched_getaffinity(0)))
    words = ["taskset", "-c", core, sys.executable, __file__, "--child", what, format_name, block, path, count]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    told = json.loads(done.stdout)
    return told["seconds"], told["peak"] / MEGABYTE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=40_000, help="records")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options.n, options.repeats)


def compare(folder: Path, count: int, repeats: int) -> None:
    reports, block = folder / "reports.csv", folder / "block.jsonl"
    generate = [sys.executable, HERE / "generate.py", "-n", str(REPORTS), "-o", reports]
    subprocess.run(generate, check=True, capture_output=True)
    mine = [sys.executable, "-m", "cxr_reason", "mine", "-q", reports, "-o", block]
    subprocess.run(mine, check=True, cwd=HERE.parent)
    seconds: dict[tuple[str, str], list[float]] = {}
    peaks: dict[tuple[str, str, int], float] = {}
    sizes: dict[str, int] = {}
    for size in (4 * count, *[count] * repeats):
        for name in FORMATS:
            path = folder / f"records.{name}"
            for what in ("write", "read"):
                spent, peaks[what, name, size] = measure(what, name, block, path, size)
                if size == count:
                    seconds.setdefault((what, name), []).append(spent)
            sizes[name] = path.stat().st_size
    megabytes = sizes["jsonl"] / MEGABYTE
    print(f"{count:,} records, {megabytes:.0f} MB of JSON lines; ratios are to JSON lines of the same run")
    print("|  | records/s | MB/s | ratio | file, MB | peak memory, MB | at four times the records |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for what in ("write", "read"):
        for name in FORMATS:
            spent = statistics.median(seconds[what, name])
            ratio = statistics.median(
                plain / own for plain, own in zip(seconds[what, "jsonl"], seconds[what, name], strict=True)
            )
            cells = [f"{count / spent:,.0f}", f"{megabytes / spent:.0f}", f"{ratio:.2f}"]
            cells += [f"{sizes[name] / MEGABYTE:.1f}"]
            cells += [f"{peaks[what, name, size]:.0f}" for size in (count, 4 * count)]
            print(f"| {what} {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
