"""What a phantom costs, and how far our reading of its report agrees with what the writer meant.

    python benchmarks/phantoms.py                # a minute
    python benchmarks/phantoms.py --sheet FILE   # also a contact sheet, as in docs/phantoms.md

CPU time in one process, after a warm-up; the median of five rounds and the range.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable

from PIL import Image

from cxr_reason import phantoms
from cxr_reason.phantoms.readback import compare

ROUNDS, FILMS = 5, 100
SHEET_SEED, SHEET_SIZE, COLUMNS, ROWS = 3, 152, 6, 4


def spent(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def timed(label: str, work: Callable[[], object]) -> None:
    work()
    rounds = [spent(work) / FILMS * 1000 for _ in range(ROUNDS)]
    print(f"{label:34} {statistics.median(rounds):6.2f} ms  ({min(rounds):.2f} to {max(rounds):.2f})")


def agreement(seed: int, count: int) -> None:
    statements, whole, missed = 0, 0, Counter[str]()
    for case in phantoms.cases(seed, count):
        number, misses = compare(case.report, case.told)
        statements += number
        whole += not misses
        missed.update(miss.name for miss in misses)
    agreed = 1 - missed.total() / statements
    print(f"seed {seed}: {agreed:.2%} of {statements:,} statements, {whole / count:.1%} of {count:,} reports wholly")
    print(f"  read otherwise: {', '.join(f'{name} {number}' for name, number in missed.most_common())}")


def sheet(path: str) -> None:
    """The first films of a world side by side, with something to see on most."""
    picture = Image.new("L", (COLUMNS * SHEET_SIZE, ROWS * SHEET_SIZE))
    for place in range(COLUMNS * ROWS):
        film = Image.fromarray(phantoms.case(SHEET_SEED, place).film(SHEET_SIZE))
        picture.paste(film, (place % COLUMNS * SHEET_SIZE, place // COLUMNS * SHEET_SIZE))
    picture.quantize(40).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", metavar="FILE", help="write a contact sheet (PNG)")
    options = parser.parse_args()
    if options.sheet:
        sheet(options.sheet)
    cases = list(phantoms.cases(1, FILMS))
    timed("a case without its film", lambda: list(phantoms.cases(1, FILMS)))
    for size in (112, 224, 448):
        timed(f"a film of {size} pixels", lambda size=size: [case.film(size) for case in cases])
    for seed, count in ((0, 500), (1, 2000)):
        agreement(seed, count)


if __name__ == "__main__":
    main()
