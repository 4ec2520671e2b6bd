"""How `cxr sft` reads records before it trains: items a second and memory, from sharded Parquet with its films.

    python benchmarks/reading.py                     # 10,000 and 100,000 items, some minutes
    python benchmarks/reading.py --write             # also puts the table into BENCHMARKS.md
    python benchmarks/reading.py --items 2000        # a quick look

The items are those of phantoms, three a film of 1024 x 1024, each with ids and words of its own; only films repeat, 500
of them, and are decoded each time. `--dry-run` stops where a model would be loaded. The time of one core is measured
beside that of all, as films are opened by threads.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import conditions, cxr_command, measure, note, parser_of, publish, table

FILMS = 500
SIZE = 1024
CORES = os.cpu_count() or 1
A_FILM = 3


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cxr-reading-") as name:
        folder = Path(name)
        some = phantoms(folder)
        rows = []
        for count in options.items:
            lines, shards = folder / "chains.jsonl", folder / f"chains-{count}"
            with open(lines, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(item) + "\n" for item in itertools.islice(items(some), count))
            subprocess.run(
                [*cxr_command(), "refine", str(lines), "--checks", "length", "-q", "-o", f"{shards}/"], check=True
            )
            for cores in dict.fromkeys((1, CORES)):
                out = folder / f"out-{count}-{cores}"
                command = [*cxr_command(), "sft", str(shards), "--model", "tiny", "--recipe", "tiny", "-o", str(out)]
                command += ["--image-root", str(folder), "--dry-run", "--eval-share", "0", "-q"]
                run = measure([["taskset", "-c", f"0-{cores - 1}", *command]], folder)
                size = sum(file.stat().st_size for file in (out / "data").iterdir())
                rows.append([
                    f"{count:,}", str(cores), f"{run.wall:,.0f}", f"{count / run.wall:,.0f}", f"{run.peaks[0]:,.0f}",
                    f"{sum(file.stat().st_size for file in shards.iterdir()) / 1e6:,.0f}", f"{size / 1e6:,.0f}",
                ])  # fmt: skip
                note(" ".join(rows[-1]))
        header = ["items", "cores", "wall s", "items/s", "peak MB", "Parquet MB", "items on disk MB"]
        publish("reading.py", f"{conditions(f'{CORES} cores')}.\n\n{table(header, rows)}", write=options.write)


def phantoms(folder: Path) -> list[dict[str, Any]]:
    """Chains about `FILMS` films, which are drawn below `folder`."""
    command = cxr_command()
    subprocess.run(
        [*command, "demo", "-o", str(folder / "demo"), "--studies", str(FILMS), "--size", str(SIZE), "-q"], check=True
    )
    chains = folder / "some.jsonl"
    subprocess.run([*command, "mine", str(folder / "demo" / "reports.jsonl"), "-q", "-o", str(chains)], check=True)
    with open(chains, encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    for record in found:
        record["images"] = [f"demo/{image['path']}" for image in record["images"]]
    return found


def items(some: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number in itertools.count():
        record = some[number // A_FILM % len(some)]
        study = f"{number // A_FILM:07}"
        yield {
            **record,
            "id": f"{study}-{number % A_FILM}",
            "study_id": f"S{study}",
            "patient_id": f"P{number // A_FILM // 4:07}",
            "question": f"{record['question']} (film {number})",
            "split": "train",
        }


if __name__ == "__main__":
    main()
