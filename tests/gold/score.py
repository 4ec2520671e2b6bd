"""Agreement between the annotators of the gold sentences, and how well the engine does on them.

    python tests/gold/score.py --kappa
    python tests/gold/score.py --engine --split dev [--errors]

GUIDELINES.md says what the fields mean. All figures rest on `align`, which decides the entries of two lists that are
about one finding: name decides, and side too where either list has several entries of that name. So a wrong side is a
wrong field and not a finding missed and another invented, unless left and right have to be told apart.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from cxr_reason.agreement import kappa

GOLD = Path(__file__).resolve().parent

VALUES: dict[str, tuple[Any, ...]] = {  # the default comes first; a bound may be any word of the text
    "status": ("present", "absent", "uncertain"),
    "certainty": ("definite", "probable", "possible", "differential"),
    "time": ("current", "history", "resolved", "hypothetical"),
    "side": (None, "left", "right", "bilateral"),
    "severity": (None, "mild", "moderate", "severe", "mild-moderate", "moderate-severe", "mild-severe"),
    "change": (None, "new", "worse", "stable", "better", "resolved"),
    "conflict": (False, True),
}
DEFAULTS = {"certainty": "definite", "time": "current", "bound": None, "conflict": False} | dict.fromkeys(
    ("side", "severity", "change")
)
FIELDS = ("status", "certainty", "time", "bound", "side", "severity", "change", "conflict")


@dataclass(frozen=True, slots=True)
class Entry:
    """One labelled finding. The fields and their defaults are those of GUIDELINES.md."""

    name: str
    status: str
    certainty: str = "definite"
    time: str = "current"
    bound: str | None = None
    side: str | None = None
    severity: str | None = None
    change: str | None = None
    conflict: bool = False

    def __str__(self) -> str:
        """Name, status and what isn't at its default: ``pleural effusion: present, left, mild``."""
        rest = [field if value is True else str(value) for field, value in details(self).items()]
        return f"{self.name}: {', '.join([self.status, *rest])}"


Labels = dict[str, list[Entry]]
Pair = tuple[Entry | None, Entry | None]


def details(entry: Entry) -> dict[str, Any]:
    """The fields of an entry that aren't at their default; the status has none."""
    return {field: value for field, default in DEFAULTS.items() if (value := getattr(entry, field)) != default}


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def names() -> frozenset[str]:
    """The names that may be labelled: the list that ends GUIDELINES.md."""
    listed = (GOLD / "GUIDELINES.md").read_text(encoding="utf-8").split("\n## The names\n")[1]
    return frozenset(re.findall(r"^- ([a-z-]+(?: [a-z-]+)*)", listed, flags=re.MULTILINE))


def load(path: Path) -> Labels:
    """Entries by item id. Raises ValueError with file, line and reason for what GUIDELINES.md forbids."""
    known, labels = names(), Labels()
    for number, row in enumerate(rows(path), 1):
        try:
            entries = [Entry(**finding) for finding in row["findings"]]
            for entry in entries:
                check(entry, known)
            if row["id"] in labels:
                raise ValueError(f"{row['id']} comes twice")
            if len(set(entries)) < len(entries):
                raise ValueError("the same entry twice")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path.name}:{number}: {error}") from error
        labels[row["id"]] = entries
    return labels


def check(entry: Entry, known: frozenset[str]) -> None:
    """Raises ValueError unless names and values are listed and a bound limits an absence."""
    if entry.name not in known:
        raise ValueError(f"{entry.name!r} isn't in the list of names")
    for field, allowed in VALUES.items():
        if getattr(entry, field) not in allowed:
            raise ValueError(f"{entry.name}: {field} {getattr(entry, field)!r} isn't one of {allowed}")
    if entry.bound is not None and entry.status != "absent":
        raise ValueError(f"{entry.name}: a bound without an absence")


def align(left: Sequence[Entry], right: Sequence[Entry]) -> list[Pair]:
    """Pairs of entries about the same finding; an entry without a partner is paired with None.

    Entries need the same name and, where either list has several of that name, the same side. Among several that could
    be paired those with more equal fields are paired first.
    """
    many = {name for entries in (left, right) for name, n in Counter(e.name for e in entries).items() if n > 1}
    possible = sorted(
        (
            (sum(getattr(a, field) != getattr(b, field) for field in FIELDS), i, j)
            for i, a in enumerate(left)
            for j, b in enumerate(right)
            if a.name == b.name and (a.side == b.side or a.name not in many)
        ),
    )
    partner: dict[int, int] = {}
    for _, i, j in possible:
        if i not in partner and j not in partner.values():
            partner[i] = j
    pairs: list[Pair] = [(a, right[partner[i]] if i in partner else None) for i, a in enumerate(left)]
    return pairs + [(None, b) for j, b in enumerate(right) if j not in partner.values()]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One line of the kappa table: `equal` of `rated` pairs of ratings are equal, in `used` somebody rated other than
    the default."""

    what: str
    rated: int
    used: int
    equal: int
    kappa: float | None


def agreement(left: Labels, right: Labels) -> list[Agreement]:
    """How far two annotators agree: first whether a finding is listed, then each field.

    Listed: each (item, name) pair with a name of the guidelines' list is rated listed or not, so a name that both leave
    out counts as agreement. Such pairs are nearly all, which is why the raw share means nothing here and kappa does:
    with chance that high it is close to the F1 of one annotator against the other.
    Fields: rated are the findings that both list, as `align` pairs them; no value is a value. A field that hardly
    anybody sets has a kappa that rests on few findings: see `used`.
    Raises ValueError if the items differ.
    """
    if left.keys() != right.keys():
        raise ValueError(f"not the same items: {sorted(left.keys() ^ right.keys())}")
    listed: list[tuple[Hashable, Hashable]] = [
        (any(e.name == name for e in left[item]), any(e.name == name for e in right[item]))
        for item in left
        for name in names()
    ]
    both = [(a, b) for item in left for a, b in align(left[item], right[item]) if a and b]
    rated = {"listed": listed} | {field: [(getattr(a, field), getattr(b, field)) for a, b in both] for field in FIELDS}
    defaults = {"listed": False, "status": "present", **DEFAULTS}
    return [
        Agreement(
            what=what,
            rated=len(pairs),
            used=sum(a != defaults[what] or b != defaults[what] for a, b in pairs),
            equal=sum(a == b for a, b in pairs),
            kappa=kappa(pairs),
        )
        for what, pairs in rated.items()
    ]


@dataclass(frozen=True, slots=True)
class Score:
    """How an engine did on some items. Shares are in [0, 1], and None where there is nothing to count.

    items: how many; gold: their gold findings; exact: share of items with all entries right in all fields and no other;
    recall: gold findings listed with the same name and status; precision: engine findings that gold has with the same
    name and status (what gold doesn't list is wrong, a region's name that follows from a listed finding too);
    accuracy[field]: gold findings with that field right; a finding that the engine misses has no field right;
    where_set[field]: the same of the gold findings that aren't at that field's default (status has none, so no key).
    """

    items: int
    gold: int
    exact: float | None
    recall: float | None
    precision: float | None
    accuracy: dict[str, float | None]
    where_set: dict[str, float | None]


def share(hits: Iterable[bool]) -> float | None:
    """The share of true values; None of nothing."""
    values = list(hits)
    return sum(values) / len(values) if values else None


def score(gold: Labels, engine: Labels) -> Score:
    """Score the engine's entries on the items of `gold`. Raises KeyError for an item that the engine hasn't got."""
    pairs = [pair for item in gold for pair in align(gold[item], engine[item])]
    of_gold = [(a, b) for a, b in pairs if a]
    of_engine = [(a, b) for a, b in pairs if b]

    def right(field: str, among: Iterable[tuple[Entry, Entry | None]]) -> float | None:
        return share(b is not None and getattr(a, field) == getattr(b, field) for a, b in among)

    return Score(
        items=len(gold),
        gold=len(of_gold),
        exact=share(set(gold[item]) == set(engine[item]) for item in gold),
        recall=right("status", of_gold),
        precision=share(a is not None and b is not None and a.status == b.status for a, b in of_engine),
        accuracy={field: right(field, of_gold) for field in FIELDS},
        where_set={
            field: right(field, [(a, b) for a, b in of_gold if getattr(a, field) != default])
            for field, default in DEFAULTS.items()
        },
    )


def engine_labels(texts: Mapping[str, str], read: Callable[[str], Any]) -> Labels:
    """What an engine reads in each text, as entries.

    A reading's `facts()` merge the mentions of a finding as the guidelines do (the details of both, the winner of a
    conflict); a reading without it gives its `findings`. Entries that are equal in all fields are one.
    """
    labels = Labels()
    for item, text in texts.items():
        reading = read(text)
        found = reading.facts() if hasattr(reading, "facts") else reading.findings
        entries = (Entry(f.name, *(getattr(f, field) for field in FIELDS)) for f in found)
        labels[item] = list(dict.fromkeys(entries))
    return labels


def table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    """A Markdown table with aligned columns; floats have three decimals, None is a dash."""

    def text(cell: object) -> str:
        if cell is None:
            return "-"
        return f"{cell:.3f}" if isinstance(cell, float) else str(cell)

    cells = [list(head), *([text(cell) for cell in row] for row in body)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for first, *rest in cells:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append(f"| {' | '.join([first.ljust(widths[0]), *numbers])} |")
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def kappa_table(left: Labels, right: Labels) -> str:
    """The agreement of two annotators as a table."""
    head = ["rating", "rated", "not at default", "equal", "kappa"]
    return table(head, (astuple(line) for line in agreement(left, right)))


def score_tables(gold: Labels, engine: Labels, kinds: Mapping[str, Sequence[str]]) -> str:
    """Three tables: the whole, each field, and each kind of item."""
    whole = score(gold, engine)
    by_kind = {}
    for kind in sorted({kind for item in gold for kind in kinds[item]}):
        by_kind[kind] = score({item: gold[item] for item in gold if kind in kinds[item]}, engine)
    return "\n\n".join(
        [
            table(
                ["items", "gold findings", "recall", "precision", "exact items"],
                [(whole.items, whole.gold, whole.recall, whole.precision, whole.exact)],
            ),
            table(
                ["field", "accuracy", "where set"],
                [(field, whole.accuracy[field], whole.where_set.get(field)) for field in FIELDS],
            ),
            table(
                ["kind", "items", "recall", "precision", "exact items"],
                [(kind, s.items, s.recall, s.precision, s.exact) for kind, s in by_kind.items()],
            ),
        ]
    )


def errors(gold: Labels, engine: Labels, texts: Mapping[str, str]) -> Iterator[str]:
    """Each item that isn't exactly right: its text, then with - what only gold has and with + what only the engine."""
    for item, entries in gold.items():
        missed = [f"  - {entry}" for entry in entries if entry not in engine[item]]
        extra = [f"  + {entry}" for entry in engine[item] if entry not in entries]
        if missed or extra:
            yield "\n".join([f"{item} {texts[item]!r}", *missed, *extra])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the flags ask for."""
    parser = argparse.ArgumentParser(description="Score the gold sentences: the annotators' agreement, or the engine.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--kappa", action="store_true", help="agreement of the two annotators")
    what.add_argument("--engine", action="store_true", help="the engine against the settled labels")
    parser.add_argument("--split", choices=["dev", "final", "all"], default="dev", help="items to score (default: dev)")
    parser.add_argument("--errors", action="store_true", help="also print each wrong item of the split dev")
    parser.add_argument(
        "--reveal-final",
        action="store_true",
        help="with --errors, print wrong items of the split final too: after the published figure only",
    )
    options = parser.parse_args(arguments)
    if options.kappa:
        print(kappa_table(load(GOLD / "labels_a.jsonl"), load(GOLD / "labels_b.jsonl")))
        return

    from cxr_reason.radiology import read  # here, so that agreement can be had without an engine

    sentences = [row for row in rows(GOLD / "sentences.jsonl") if options.split in (row["split"], "all")]
    texts = {row["id"]: row["text"] for row in sentences}
    settled = load(GOLD / "labels.jsonl")
    gold = {item: settled[item] for item in texts}
    engine = engine_labels(texts, read)
    print(score_tables(gold, engine, {row["id"]: row["kinds"] for row in rows(GOLD / "kinds.jsonl")}))
    if options.errors:
        shown = {row["id"] for row in sentences if row["split"] == "dev" or options.reveal_final}
        for error in errors({item: gold[item] for item in texts if item in shown}, engine, texts):
            print(f"\n{error}")
        if len(shown) < len(texts):
            print(f"\n{len(texts) - len(shown)} items of the split final aren't shown; see tests/gold/README.md")


if __name__ == "__main__":
    main()
