"""How fast records are written and read as JSON lines, Arrow and Parquet, in which memory, and how large files are.

    python benchmarks/formats.py                        # 40,000 and 160,000 records, some minutes
    python benchmarks/formats.py --write                # also puts the table into docs/formats.md
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
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import (
    MEGABYTE,
    ROOT,
    conditions,
    cxr_command,
    generate,
    megabytes,
    note,
    parser_of,
    pin,
    publish,
    table,
)

FORMATS = ("jsonl", "arrow", "parquet")
REPORTS = 500


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
    print(json.dumps({"seconds": seconds, "peak": megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)}))


def measured(what: str, format_name: str, block: Path, path: Path, count: int) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of a process that does nothing else."""
    words = [sys.executable, __file__, "--child", what, format_name, block, path, count]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    told = json.loads(done.stdout)
    return told["seconds"], told["peak"]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("-n", type=int, default=40_000, help="records")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    pin()
    with tempfile.TemporaryDirectory(prefix="cxr-formats-") as folder:
        told = compare(Path(folder), options.n, options.repeats)
    publish("formats.py", told, write=options.write, page=ROOT / "docs" / "formats.md")


def compare(folder: Path, count: int, repeats: int) -> str:
    reports, block = folder / "reports.csv", folder / "block.jsonl"
    generate(REPORTS, 0, reports)
    subprocess.run([*cxr_command(), "mine", "-q", str(reports), "-o", str(block)], check=True, cwd=ROOT)
    seconds: dict[tuple[str, str], list[float]] = {}
    peaks: dict[tuple[str, str, int], float] = {}
    sizes: dict[str, float] = {}
    for size in (4 * count, *[count] * repeats):
        for name in FORMATS:
            path = folder / f"records.{name}"
            for what in ("write", "read"):
                spent, peaks[what, name, size] = measured(what, name, block, path, size)
                if size == count:
                    seconds.setdefault((what, name), []).append(spent)
            sizes[name] = path.stat().st_size / MEGABYTE
        note(f"{size:,} records")
    rows = []
    for what in ("write", "read"):
        for name in FORMATS:
            spent = statistics.median(seconds[what, name])
            ratio = statistics.median(
                plain / own for plain, own in zip(seconds[what, "jsonl"], seconds[what, name], strict=True)
            )
            cells = [f"{count / spent:,.0f}", f"{sizes['jsonl'] / spent:.0f}", f"{ratio:.2f}", f"{sizes[name]:.1f}"]
            rows.append([f"{what} {name}", *cells, *(f"{peaks[what, name, size]:.0f}" for size in (count, 4 * count))])
    head = ["", "records/s", "MB/s", "ratio", "file, MB", "peak memory, MB", "at four times the records"]
    return (
        f"{conditions('one core')}. {count:,} records, {sizes['jsonl']:.0f} MB of JSON lines; {repeats} runs in turns, "
        f"medians; ratios are to JSON lines of the same run.\n\n{table(head, rows)}"
    )


if __name__ == "__main__":
    main()
