"""How fast `cxr mine` and `cxr refine` are: whole processes on one core, beside a floor and beside medspaCy.

    python benchmarks/mine.py                           # 20,000 and 200,000 generated reports, a few minutes
    python benchmarks/mine.py --peer medspacy --write   # also the peer; puts the tables into BENCHMARKS.md
    python benchmarks/mine.py --large 0 --repeats 1     # a quick look

What is timed is what a user waits for: from the start of the process to its end, reading CSV and writing JSON lines to
a file, everything pinned to one core (both sides of a pipe on the same one). The runs are interleaved, so that a slow
minute of the machine hits all of them alike; the tables give the median and the range. On a machine that others use,
read the CPU column: user and system time of the processes, which waiting for the core doesn't touch.

The peer runs in an environment of its own (`--peer-venv`, made on first use with pip) on the first reports of the same
file, in the same interleaved runs; its time for the whole file is its start plus its rate times the reports.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import (
    HERE,
    Measurement,
    conditions,
    cxr_command,
    generate,
    measure,
    note,
    parser_of,
    peer_python,
    pin,
    publish,
    spread,
    table,
)

PEER_PACKAGE = "medspacy==1.3.1"
LEAST_READ = 0.98  # of the reports: a program that turns more of them away hasn't done the job that is timed

FINDINGS, PIPE, FLOOR, PEER = "`cxr mine --findings`", "`cxr mine | cxr refine`", "floor: CSV to JSON", "medspaCy"

Runs = list[Measurement]


def pipelines(reports: Path) -> dict[str, list[list[str]]]:
    """Name -> the commands of the pipe, on one file of reports."""
    cxr = cxr_command()
    return {
        FLOOR: [[sys.executable, str(HERE / "peers" / "floor.py"), str(reports)]],
        FINDINGS: [[*cxr, "mine", str(reports), "--findings", "-q"]],
        PIPE: [[*cxr, "mine", str(reports), "-q"], [*cxr, "refine", "-q"]],
    }


class Timed(NamedTuple):
    """What the repeats of one pipeline came to, for the whole file of reports."""

    walls: list[float]  # seconds
    cpus: list[float]  # seconds
    peaks: list[float]  # MB, one a process: the highest of the repeats
    lines: float

    def rates(self, n: int) -> list[float]:
        return [n / wall for wall in self.walls]


def collect(pipes: dict[str, list[list[str]]], expected: dict[str, int], repeats: int, folder: Path) -> dict[str, Runs]:
    """Runs all pipelines in turn, `repeats` times. `expected` gives the reports that a pipeline must answer."""
    runs: dict[str, Runs] = {name: [] for name in pipes}
    for repeat in range(1, repeats + 1):
        for name, pipeline in pipes.items():
            measured = measure(pipeline, folder)
            if measured.lines < LEAST_READ * expected.get(name, 0):
                raise SystemExit(f"{name} wrote {measured.lines:,} lines for {expected[name]:,} reports")
            runs[name].append(measured)
            note(f"{repeat}/{repeats} {name}: {measured.wall:.2f} s, CPU {measured.cpu:.2f} s")
    return runs


def summarise(runs: Runs) -> Timed:
    return Timed(
        walls=[run.wall for run in runs],
        cpus=[run.cpu for run in runs],
        peaks=[max(values) for values in zip(*(run.peaks for run in runs), strict=True)],
        lines=statistics.median(run.lines for run in runs),
    )


def carry_on(runs: Runs, scale: float) -> tuple[Timed, str]:
    """The peer's runs on a part of the file, carried on to `scale` times as many reports, and a sentence about them."""
    facts = [json.loads(run.stderr.splitlines()[-1]) for run in runs]
    working = [fact["reports_s"] for fact in facts]
    starts = [run.wall - seconds for run, seconds in zip(runs, working, strict=True)]
    walls = [start + seconds * scale for start, seconds in zip(starts, working, strict=True)]
    cpus = [run.cpu * wall / run.wall for run, wall in zip(runs, walls, strict=True)]
    done = runs[0].lines
    sentence = (
        f"medspaCy {facts[0]['medspacy']} with {facts[0]['rules']} phrases ran on the first {done:,} reports: "
        f"{spread([done / seconds for seconds in working], 1)} reports/s after a start of {spread(starts, 1)} s. "
        "Its row is that, carried on to the whole file."
    )
    return summarise(runs)._replace(walls=walls, cpus=cpus), sentence


def run(arguments: argparse.Namespace, folder: Path) -> str:
    """All measurements; returns the Markdown."""
    n = arguments.reports
    small = folder / "reports.csv"
    generated = generate(n, arguments.seed, small)
    note(f"{n:,} reports: {generated}")
    pipes = pipelines(small)
    expected = {FLOOR: n, FINDINGS: n}
    if arguments.peer == "medspacy":
        expected[PEER] = min(arguments.peer_reports, n)
        python = peer_python(arguments.peer_venv, (PEER_PACKAGE,))
        pipes[PEER] = [[python, str(HERE / "peers" / "medspacy_findings.py"), str(small), str(expected[PEER])]]

    runs = collect(pipes, expected, arguments.repeats, folder)
    timed = {name: summarise(measured) for name, measured in runs.items()}
    peer_sentence = ""
    if PEER in runs:
        timed[PEER], peer_sentence = carry_on(runs[PEER], n / expected[PEER])
    helps = [measure([[*cxr_command(), "--help"]], folder).wall for _ in range(10)]
    repeated = generated["repeated_share"]
    checks = [["sentences that repeat an earlier one", "≤ 20 %", f"{repeated:.1%}", verdict(repeated <= 0.2)]]
    checks += speed_checks({name: statistics.median(row.rates(n)) for name, row in timed.items()}, helps)
    if arguments.large:
        checks += memory_checks(arguments, folder, timed)

    rows = [
        [
            name,
            spread(row.rates(n)),
            f"{statistics.median(row.cpus) / n * 1e6:,.0f}",
            " + ".join(map("{:.0f}".format, row.peaks)),
        ]
        for name, row in timed.items()
    ]
    paragraphs = [
        f"{conditions('one core')}. {arguments.repeats} interleaved runs on {n:,} generated reports "
        f"(seed {arguments.seed}; {generated['words_mean']:.0f} words and {generated['sentences_mean']:.1f} sentences "
        f"in the mean, {generated['normal_share']:.0%} of them normal). The pipe kept {timed[PIPE].lines:,.0f} chains.",
        table(["whole process, one core", "reports/s, median (range)", "CPU µs a report", "peak MB"], rows),
        table(["what", "asked", "measured", ""], checks),
        peer_sentence,
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def speed_checks(rates: dict[str, float], helps: Sequence[float]) -> list[list[str]]:
    """The bars on speed: what, asked, measured, met or missed. `rates` are medians in reports/s."""
    checks = [
        [f"{FINDINGS}, reports/s", "≥ 3,000", f"{rates[FINDINGS]:,.0f}", verdict(rates[FINDINGS] >= 3000)],
        [f"{PIPE}, reports/s", "≥ 700", f"{rates[PIPE]:,.0f}", verdict(rates[PIPE] >= 700)],
        ["`cxr --help`, s, 10 runs", "≤ 0.2", spread(helps, 3), verdict(statistics.median(helps) <= 0.2)],
    ]
    if PEER in rates:
        ratio = rates[FINDINGS] / rates[PEER]
        checks.append([f"{FINDINGS} ÷ medspaCy", "≥ 40", f"{ratio:.0f}", verdict(ratio >= 40)])
    checks.append([f"{FINDINGS} ÷ floor", "", f"{rates[FINDINGS] / rates[FLOOR]:.3f}", ""])
    return checks


def verdict(met: bool) -> str:
    return "met" if met else "missed"


def memory_checks(arguments: argparse.Namespace, folder: Path, timed: dict[str, Timed]) -> list[list[str]]:
    """The bars on memory: the peak of each process on the large file beside that on the small one."""
    large = folder / "large.csv"
    generate(arguments.large, arguments.seed, large)
    checks = []
    for name, pipeline in pipelines(large).items():
        if name == FLOOR:
            continue
        measured = measure(pipeline, folder)
        note(f"{name} on {arguments.large:,}: {measured.wall:.1f} s")
        for before, after, command in zip(timed[name].peaks, measured.peaks, pipeline, strict=True):
            process = "mine" if "mine" in command else "refine"
            checks.append(
                [
                    f"peak of {process} in {name}, {arguments.reports:,} → {arguments.large:,} reports",
                    "≤ 120 MB, ≤ +10 %",
                    f"{before:.0f} → {after:.0f} MB ({after / before - 1:+.1%})",
                    verdict(after <= 120 and after <= 1.1 * before),
                ]
            )
    return checks


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--reports", type=int, default=20_000, help="reports in the timed runs (default 20000)")
    parser.add_argument("--large", type=int, default=200_000, help="reports in the memory run; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated reports (default 0)")
    parser.add_argument("--peer", choices=["medspacy"], help="run this peer beside, in an environment of its own")
    parser.add_argument("--peer-reports", type=int, default=300, help="reports for the peer (default 300)")
    parser.add_argument(
        "--peer-venv",
        type=Path,
        default=Path(tempfile.gettempdir()) / f"cxr-benchmark-{PEER_PACKAGE}",
        help="the peer's environment, made if missing (default: in the temporary folder)",
    )
    parser.add_argument("--core", type=int, help="the core to use (default: the last one allowed)")
    arguments = parser.parse_args()
    pin(arguments.core)
    with tempfile.TemporaryDirectory(prefix="cxr-benchmark-") as folder:
        publish("mine.py", run(arguments, Path(folder)), write=arguments.write)


if __name__ == "__main__":
    main()
