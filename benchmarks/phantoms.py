"""What a phantom costs, and how far our reading of its report agrees with what the writer meant.

    python benchmarks/phantoms.py                # a minute
    python benchmarks/phantoms.py --write        # also puts the tables into docs/phantoms.md
    python benchmarks/phantoms.py --sheet FILE   # also a contact sheet, as in docs/phantoms.md

CPU time in one process, after a warm-up; the median of five rounds and the range.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from bench import ROOT, conditions, parser_of, pin, publish, spread, table
from PIL import Image

from cxr_reason import phantoms
from cxr_reason.phantoms.readback import compare

ROUNDS, FILMS = 5, 100
SHEET_SEED, SHEET_SIZE, COLUMNS, ROWS = 3, 152, 6, 4


def spent(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def timed(work: Callable[[], object]) -> str:
    work()
    return spread([spent(work) / FILMS * 1000 for _ in range(ROUNDS)], 2)


def agreement(seed: int, count: int) -> list[str]:
    statements, whole, missed = 0, 0, Counter[str]()
    for case in phantoms.cases(seed, count):
        number, misses = compare(case.report, case.told)
        statements += number
        whole += not misses
        missed.update(miss.name for miss in misses)
    agreed = 1 - missed.total() / statements
    most = ", ".join(f"{name} {number}" for name, number in missed.most_common(5))
    return [f"seed {seed}, {count:,} reports", f"{statements:,}", f"{agreed:.1%}", f"{whole / count:.1%}", most]


def sheet(path: str) -> None:
    """The first films of a world side by side, with something to see on most."""
    picture = Image.new("L", (COLUMNS * SHEET_SIZE, ROWS * SHEET_SIZE))
    for place in range(COLUMNS * ROWS):
        film = Image.fromarray(phantoms.case(SHEET_SEED, place).film(SHEET_SIZE))
        picture.paste(film, (place % COLUMNS * SHEET_SIZE, place // COLUMNS * SHEET_SIZE))
    picture.quantize(40).save(path, optimize=True)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sheet", metavar="FILE", help="write a contact sheet (PNG)")
    options = parser.parse_args()
    if options.sheet:
        sheet(options.sheet)
    pin()
    cases = list(phantoms.cases(1, FILMS))
    costs = [["a case without its film", timed(lambda: list(phantoms.cases(1, FILMS)))]]
    for size in (112, 224, 448):
        costs.append([f"a film of {size} pixels", timed(lambda size=size: [case.film(size) for case in cases])])
    rows = [agreement(seed, count) for seed, count in ((0, 500), (1, 2000))]
    agreed = table(["", "statements", "agree", "reports wholly", "read otherwise most"], rows)
    told = f"{conditions('one core')}.\n\n{agreed}\n\n{table(['', 'CPU ms, median (range)'], costs)}"
    publish("phantoms.py", told, write=options.write, page=ROOT / "docs" / "phantoms.md")


if __name__ == "__main__":
    main()
