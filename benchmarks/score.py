"""How fast `cxr score` judges, and in what memory.

    python benchmarks/score.py                    # 10,000 and 100,000 items, some minutes
    python benchmarks/score.py --write            # also puts the table into BENCHMARKS.md
    python benchmarks/score.py --items 1000 --large 0

Items are the predictions of examples/, over and over under other ids and patients, every completion with another
sentence of its own so that none is like the last; most are far below 512 tokens, so the longest (padded to some 380
words) are timed apart. Most of their sentences were met before, as they are in rewards, where a model says much the
same of every film. New prose is timed beside it: some 380 words a completion of sentences that generate.py makes, of
which four in five occur once; of films whose report and reference chain are known, as in a group of rollouts, and of
new ones. Judging alone, and all that `cxr rl` makes of a completion. One core; CPU time counts. Peak memory is what the
kernel reports for the whole process.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import ROOT, conditions, cxr_command, measure, note, parser_of, pin, publish, table
from generate import reports

EXAMPLES = ROOT / "examples"
SOURCES = ("predictions.jsonl", "predictions-hasty.jsonl")
WORDS = 380  # about 512 tokens
SIDES, PLACES = ("left", "right"), ("apex", "base", "upper lobe", "lower lobe", "middle lobe")


def items(count: int, *, long: bool = False, ended: bool = True) -> Iterator[dict[str, Any]]:
    """`count` records with predictions, no two the same; without an end they begin to think and never answer."""
    lines = [line for name in SOURCES for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()]
    records = [json.loads(line) for line in lines]
    for number in range(count):
        record = records[number % len(records)]
        place = f"{SIDES[number % 2]} {PLACES[number % 5]}"
        own = f"A nodule of {number % 29 + 2} mm in the {place} is not seen in zone {number}."
        think, _, answer = record["prediction"].partition("</think>")
        told = f"{think} {own}"
        while long and len(told.split()) < WORDS:
            told += f" There is no sign of disease number {len(told)} in the {SIDES[len(told) % 2]} lung. {own}"
        about = {"id": f"i{number}", "study_id": f"S{number // 3}", "patient_id": f"P{number // 5}"}
        yield {**record, **about, "prediction": f"{told}</think>{answer}" if answer and ended else told}


TURNS = "First", "Next", "Then", "Also", "Finally"


def new_prose(count: int, *, films: bool) -> Iterator[dict[str, Any]]:
    """`count` records whose predictions are sentences not met before; where `films`, so are report and chain."""
    known = next(items(1))
    written = reports(20 * count, seed=4)
    for number in range(count):
        told: list[str] = []
        words = 0
        while words < WORDS:
            for sentence in next(written).sentences:
                told.append(f"{TURNS[len(told) // 4 % len(TURNS)]}, {sentence}" if len(told) % 4 == 0 else sentence)
                words += len(sentence.split())
        record = {**known, "id": f"n{number}", "prediction": f"<think>{' '.join(told)}</think><answer>A</answer>"}
        if films:
            film = next(written)
            chain = [{"text": sentence, "kind": "observe"} for sentence in film.sentences]
            record |= {"report": film.text, "steps": chain}
        yield record


def rewarded(record: dict[str, Any]) -> None:
    """The rewards that `cxr rl` gives where none are named, and what its credit by step is made of."""
    from cxr_reason.rewards import functions, process

    text = record["prediction"]
    columns = {name: [record.get(name)] for name in functions.COLUMNS}
    for reward in (functions.format, functions.accuracy, functions.process):
        reward([text], **columns)
    process.steps(functions.examined([text], **columns)[0], text)


def timed(work: Callable[[dict[str, Any]], object], records: list[dict[str, Any]]) -> tuple[float, float]:
    """Milliseconds that `work` takes on a record after the first 300: the median and the 95th percentile."""
    for record in records[:300]:
        work(record)
    taken = []
    for record in records[300:]:
        started = time.process_time()
        work(record)
        taken.append(1e3 * (time.process_time() - started))
    return statistics.median(taken), statistics.quantiles(taken, n=20)[-1]


def whole(count: int, folder: Path, *flags: str) -> tuple[float, float]:
    """CPU seconds and peak MB of `cxr score` over `count` items."""
    source = folder / f"{count}.jsonl"
    if not source.exists():
        with open(source, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in items(count))
    run = measure([[*cxr_command(), "score", "-q", "--json", str(source), *flags]], folder)
    return run.cpu, run.peaks[0]


def main() -> None:
    from cxr_reason.rewards import judge

    parser = parser_of(__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000, help="0 for none")
    options = parser.parse_args()
    pin()
    wholes, judgements = [], []
    with tempfile.TemporaryDirectory(prefix="cxr-score-") as folder:
        # These come first, as a child's peak memory starts at what its parent has.
        for count in filter(None, (options.items, options.large)):
            for flags in ((), ("--draws", "0")):
                seconds, peak = whole(count, Path(folder), *flags)
                title = f"`cxr score`, {count:,} items" + (", no intervals" if flags else "")
                wholes.append((f"{title}: CPU ms an item", f"{1e3 * seconds / count:.2f}"))
                wholes.append((f"{title}: peak MB", f"{peak:.0f}"))
                note(f"{title}: {seconds:.0f} s, {peak:.0f} MB")
    count = min(options.items, 3000)
    words = f"a completion of {WORDS} words"
    for name, work, records in (
        ("a completion of the examples", judge, items(count)),
        (f"{words}, sentences mostly met before", judge, items(count, long=True)),
        (f"{words}, new prose of a known film", judge, new_prose(count // 3 + 300, films=False)),
        (f"{words}, new prose of a new film", judge, new_prose(count // 3 + 300, films=True)),
        ("rewards of `cxr rl`, a completion of the examples", rewarded, items(count)),
        (f"rewards of `cxr rl`, {words}, sentences mostly met before", rewarded, items(count, long=True)),
        (f"rewards of `cxr rl`, {words}, the same without an end", rewarded, items(count, long=True, ended=False)),
        (
            f"rewards of `cxr rl`, {words}, new prose of a known film",
            rewarded,
            new_prose(count // 3 + 300, films=False),
        ),
    ):
        median, slow = timed(work, list(records))
        judgements.append((f"{name}, ms (95th percentile)", f"{median:.2f} ({slow:.2f})"))
        note(" ".join(judgements[-1]))
    told = table(("what", "measured"), [*judgements, *wholes])
    publish("score.py", f"{conditions('one core')}.\n\n{told}", write=options.write)


if __name__ == "__main__":
    main()
