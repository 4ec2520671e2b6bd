"""What `cxr score` makes of chains that are wrong in one known way, and of those that say the same in other words.

    python benchmarks/robustness.py            # over the reports of examples/, some seconds
    python benchmarks/robustness.py --write    # also puts the table into docs/scoring.md

Mines the example reports, tells each reference chain in words of its own (perturb.py), changes one thing, and prints
the mean change of each part of the score. A flip should cost; a paraphrase shouldn't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import ROOT, parser_of, publish, table
from perturb import EXAMPLES, FLIPS, HARMLESS, Pair, chains, prediction

from cxr_reason.rewards import judge
from cxr_reason.streams import stable_hash

PARTS = ("factuality", "completeness", "coverage", "effectiveness", "radrscore", "balanced_radrscore")


def sample(records: list[dict[str, Any]], make: Any, limit: int) -> list[tuple[dict[str, Any], Pair]]:
    """Up to `limit` cases, spread over the records by a hash of each."""
    cases = [(record, pair) for record in records for pair in make(record)]
    ranked = sorted(cases, key=lambda case: stable_hash(case[0]["id"], *case[1][0], "|", *case[1][1]))
    return ranked[:limit]


def scores(record: Mapping[str, Any], sentences: list[str]) -> dict[str, Any]:
    return judge({**record, "prediction": prediction(sentences, record["answer"])})


def rows(records: list[dict[str, Any]], limit: int) -> Iterator[tuple[str, int, list[float], float]]:
    """Of each perturbation: its name, cases, the mean change of each part, and the share of cases that lose."""
    for name, make in {**FLIPS, **HARMLESS}.items():
        cases = sample(records, make, limit)
        changes, lost = [], 0
        for record, (before, after) in cases:
            one, other = scores(record, before), scores(record, after)
            changes.append([(other[part] or 0.0) - (one[part] or 0.0) for part in PARTS])
            lost += (other["radrscore"] or 0.0) < (one["radrscore"] or 0.0) - 1e-9
        if cases:
            yield (
                name,
                len(cases),
                [sum(column) / len(cases) for column in zip(*changes, strict=True)],
                lost / len(cases),
            )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--reports", type=Path, default=EXAMPLES / "reports.csv")
    parser.add_argument("--limit", type=int, default=200, help="cases of a perturbation at most")
    options = parser.parse_args()
    records = [record for record in chains(options.reports) if record["task"] != "temporal"]
    head = ["change", "cases", *(part.replace("_", " ") for part in PARTS), "cost something"]
    told = list(rows(records, options.limit))
    lines = [
        [name, str(count), *(f"{mean:+.3f}" for mean in means), f"{lost:.0%}"] for name, count, means, lost in told
    ]
    total = sum(count for _, count, _, _ in told)
    text = f"{table(head, lines)}\n\n{total:,} cases from {len(records):,} chains."
    publish("robustness.py", text, write=options.write, page=ROOT / "docs" / "scoring.md")


if __name__ == "__main__":
    main()
