#!/usr/bin/env python3
"""Learn how report English orders its words, from this project's own text, into cxr_reason/radiology/word_order.json.

    python tools/word_order.py

The engine rejects text whose words don't stand in an order that a report could have (shuffled words, word lists, broken
exports). For two neighbours a, b the table holds 10 ln(P(b | a) / P(b)), clipped to ±3, with add-0.5 smoothing over
b's own share; a pair never seen is worth what `unseen` says of a. The words are the 400 commonest ones; others go by
their class (see `Lexicon.classes`), a capital N added where a phrase of the lexicon may begin with them.
Text: reports of benchmarks/generate.py, examples/reports.csv, the pairs of tests/pairs.jsonl and the development half
of tests/gold/sentences.jsonl.
"""

from __future__ import annotations

import collections
import csv
import json
import math
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import generate  # noqa: E402

from cxr_reason.radiology.lexicon import LEXICON  # noqa: E402
from cxr_reason.radiology.sections import sections  # noqa: E402
from cxr_reason.radiology.sentences import lowered, sentences, words  # noqa: E402

TARGET = ROOT / "cxr_reason" / "radiology" / "word_order.json"
REPORTS, WORDS, SMOOTHING, CLIP = 6000, 400, 0.5, 3.0
OWN_WEIGHT = 10  # reports written by hand count this often: the generator's are many but less varied


def corpus() -> Iterator[tuple[str, int]]:
    """(text, weight)"""
    for report in generate.reports(REPORTS, 0):
        yield report.text, 1
    with open(ROOT / "examples" / "reports.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row.get("report") and row["study_id"] not in ("S0088", "S0089"):  # a stub, and one in Spanish
                yield row["report"], OWN_WEIGHT
    for line in (ROOT / "tests" / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        yield pair["prior"], OWN_WEIGHT
        yield pair["current"], OWN_WEIGHT
    for line in (ROOT / "tests" / "gold" / "sentences.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        if item["split"] == "dev":
            yield item["text"], OWN_WEIGHT


def sentence_words(text: str) -> Iterator[list[str]]:
    for section in sections(text):
        for start, end in sentences(text, section.start, section.end):
            yield [LEXICON.canonical(word) for word in words(lowered(text[start:end]))]


def main() -> None:
    texts = [(sentence, weight) for text, weight in corpus() for sentence in sentence_words(text)]
    common = collections.Counter[str]()
    for sentence, weight in texts:
        for word in sentence:
            common[word] += weight
    names = ["^", "$", *sorted(w for w, _ in common.most_common(WORDS) if w != "\0")]
    known = set(names)
    pairs = collections.Counter[tuple[str, str]]()
    for sentence, weight in texts:
        line = ["^", *(word if word in known else LEXICON.class_of(word) for word in sentence), "$"]
        for pair in pairwise(line):
            pairs[pair] += weight
    left, right = collections.Counter[str](), collections.Counter[str]()
    for (a, b), n in pairs.items():
        left[a] += n
        right[b] += n
    total, kinds = sum(pairs.values()), len(right)

    def worth(n: int, a: str, b: str) -> int:
        share = (right[b] + 1) / (total + kinds)
        value = math.log((n + SMOOTHING * kinds * share) / (left[a] + SMOOTHING * kinds) / share)
        return round(10 * max(-CLIP, min(CLIP, value)))

    seen: dict[str, dict[str, int]] = {a: {} for a in sorted(left)}
    for (a, b), n in sorted(pairs.items()):
        seen[a][b] = worth(n, a, b)
    unseen = {
        a: round(10 * max(-CLIP, math.log(SMOOTHING * kinds / (n + SMOOTHING * kinds))))
        for a, n in sorted(left.items())
    }
    TARGET.write_text(json.dumps({"unseen": unseen, "seen": seen}, separators=(",", ":")) + "\n", encoding="utf-8")
    pairs_kept = sum(map(len, seen.values()))
    print(f"{TARGET.name}: {len(seen)} words and classes, {pairs_kept} pairs, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
