"""Chest X-ray reports by the thousand, from a seed: varied English for benchmarks, made by nobody's patient.

    python benchmarks/generate.py -n 20000 --seed 0 -o reports.csv

Writes CSV with the columns study_id, patient_id, report. The reports come from grammar.txt, all of it our own
wording. They are for measuring speed and memory, not accuracy: nobody has labelled them.

A program that remembers sentences would look faster on a file that repeats a few of them, so the grammar varies nearly
every sentence by measurement, level, position, list of negatives or date of comparison; about a tenth of the normal
sentences are left plain ("The lungs are clear."), as in life. The share of sentences that had occurred before in the
file is counted while writing and printed on stderr with the other figures.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

NORMAL_SHARE = 0.35
PLAIN_SHARE = 0.1  # of the normal sentences: bare stock phrases
UPPER_SHARE = 0.03  # of the reports: dictated in capitals

# Topic -> (region of the chest, weight). One problem a region, so that a report doesn't argue with itself.
TOPICS = {
    "consolidation": ("lungs", 6), "atelectasis": ("lungs", 7), "edema": ("lungs", 5), "nodule": ("lungs", 3),
    "mass": ("lungs", 1), "copd": ("lungs", 3), "interstitial": ("lungs", 3), "scar": ("lungs", 3),
    "effusion": ("pleura", 8), "pneumothorax": ("pleura", 3), "thickening": ("pleura", 2),
    "cardiomegaly": ("heart", 8),
    "aorta": ("mediastinum", 5), "hernia": ("mediastinum", 1), "hilum": ("mediastinum", 2),
    "rib_fracture": ("bones", 2), "compression": ("bones", 2), "degenerative": ("bones", 4),
    "diaphragm": ("abdomen", 2),
    "ett": ("airway tube", 3), "line": ("vein", 5), "enteric": ("feeding tube", 3), "pacer": ("box", 2),
    "chest_tube": ("drain", 2), "post": ("scar", 3),
}  # fmt: skip
DEVICES = ("airway tube", "vein", "feeding tube", "box", "drain", "scar")
COURSES = ("worse", "better", "same", "new")
# Region -> how often a report calls it normal where nothing is wrong with it.
NORMAL_REGIONS = {"lungs": 0.97, "pleura": 0.92, "heart": 0.92, "mediastinum": 0.55, "bones": 0.6, "abdomen": 0.15}

# A compiled alternative is a list of parts: a text, or (name where the value is kept, alternatives).
Alternatives = list[list[Any]]


def compile_grammar(text: str) -> dict[str, Alternatives]:
    """Rule name -> alternatives. A slot without a rule is a `KeyError`, so a misspelt name never goes unnoticed."""
    joined = re.sub(r"\n\s+\|", " |", re.sub(r"(?m)^#.*\n", "", text))
    sources = dict(line.split(" = ", 1) for line in joined.splitlines() if line.strip())
    kept = {name.rstrip("!") for name in sources if name.endswith("!")}
    sources = {name.rstrip("!"): source for name, source in sources.items()}
    rules: dict[str, Alternatives] = {name: [] for name in sources}

    def parts(alternative: str) -> list[Any]:
        found: list[Any] = []
        for token in re.findall(r"\{[^{}]*\}|\[[^\[\]]*\]|[^{}\[\]]+", alternative):
            if token == "{}":
                continue
            if token[0] == "[":
                found.append((None, [[], parts(token[1:-1])]))
            elif number := re.fullmatch(r"\{(\d+)-(\d+)\}", token):
                found.append((None, [[str(n)] for n in range(int(number[1]), int(number[2]) + 1)]))
            elif token[0] == "{":
                name = token[1:-1]
                found.append((name if name in kept else None, rules[name]))
            else:
                found.append(token)
        return found

    for name, source in sources.items():
        for alternative in source.split("|"):
            rules[name].append(parts(alternative.strip()))
    return rules


def fill(alternatives: Alternatives, kept: dict[str, str], rnd: Callable[[], float]) -> str:
    """One random text of a rule; `kept` holds the values that stay the same within a problem."""
    text = ""
    for part in alternatives[int(rnd() * len(alternatives))]:
        if part.__class__ is str:
            text += part
        else:
            name, inner = part
            if name is None:
                text += fill(inner, kept, rnd)
            else:
                if name not in kept:
                    kept[name] = fill(inner, kept, rnd)
                text += kept[name]
    return text


RULES = compile_grammar(Path(__file__).with_name("grammar.txt").read_text(encoding="utf-8"))
_BY_REGION: dict[str, list[str]] = {}
for _topic, (_region, _weight) in TOPICS.items():
    _BY_REGION.setdefault(_region, []).extend([_topic] * _weight)
_BODY_DRAW = [region for region in _BY_REGION if region not in DEVICES for _ in _BY_REGION[region]]


class Report(NamedTuple):
    text: str
    sentences: list[str]  # without headings and list numbers
    normal: bool


def write_report(rnd: Callable[[], float]) -> Report:
    """One report from a source of uniform numbers in [0, 1)."""

    def say(rule: str, kept: dict[str, str] | None = None) -> str:
        text = fill(RULES[rule], {} if kept is None else kept, rnd)
        text = text[0].upper() + text[1:]
        return text if text[-1] == "." else text + "."

    def say_normal(region: str) -> str:
        return say(region + ("_plain" if rnd() < PLAIN_SHARE else "_normal"))

    def course() -> dict[str, str]:
        """What a new problem keeps from its first sentence on: its course, told by a verb or by a tail."""
        way = COURSES[int(rnd() * len(COURSES))]
        return {f"course_{form}": fill(RULES[f"{way}_{form}"], {}, rnd) for form in ("verb", "tail")}

    normal = rnd() < NORMAL_SHARE
    problems: dict[str, tuple[str, dict[str, str]]] = {}  # region -> topic, its kept values
    if not normal:
        for _ in range(1 + (rnd() < 0.55) + (rnd() < 0.2)):
            region = _BODY_DRAW[int(rnd() * len(_BODY_DRAW))]
            problems.setdefault(region, (_BY_REGION[region][int(rnd() * len(_BY_REGION[region]))], course()))
        for region in DEVICES:
            if rnd() < 0.09:
                problems[region] = (_BY_REGION[region][0], course())

    findings = [say("quality")] if rnd() < 0.06 else []
    findings += [say(problems[region][0], problems[region][1]) for region in DEVICES if region in problems]
    for region, chance in NORMAL_REGIONS.items():
        if region in problems:
            topic, kept = problems[region]
            findings.append(say(topic, kept))
        elif rnd() < chance * (1.0 if normal else 0.85):
            findings.append(say_normal(region))
    impression = [say(topic + "_imp", kept) for region, (topic, kept) in problems.items() if region not in DEVICES]
    impression += [
        say(topic + "_imp", kept) for region, (topic, kept) in problems.items() if region in DEVICES and rnd() < 0.3
    ]
    if not impression:
        impression = [say("normal_plain" if rnd() < 2 * PLAIN_SHARE else "normal_impression")]

    head: list[tuple[str, str]] = []
    style = rnd()  # below 0.7 with headings, below 0.85 findings and impression only, else none
    if style < 0.7:
        for heading, chance in (("EXAM", 0.15), ("INDICATION", 0.85), ("TECHNIQUE", 0.12), ("COMPARISON", 0.7)):
            if rnd() < chance:
                head.append((heading, say(heading.lower())))
    sentences = [text for _, text in head] + findings + impression
    if style < 0.85:
        numbered = len(impression) > 1 and rnd() < 0.6
        closing = (
            "\n".join(f"{n}. {text}" for n, text in enumerate(impression, 1)) if numbered else " ".join(impression)
        )
        blocks = [f"{heading}: {text}" for heading, text in head]
        blocks += ["FINDINGS: " + " ".join(findings), ("IMPRESSION:\n" if numbered else "IMPRESSION: ") + closing]
        text = "\n\n".join(blocks)
    else:
        text = " ".join(findings + impression)
    if rnd() < UPPER_SHARE:
        text, sentences = text.upper(), [sentence.upper() for sentence in sentences]
    return Report(text, sentences, normal)


def reports(n: int, seed: int) -> Iterator[Report]:
    """The first `n` reports of a seed; the first 1,000 of 20,000 are the same as 1,000 alone."""
    rnd = random.Random(seed).random
    for _ in range(n):
        yield write_report(rnd)


def write_csv(stream: TextIO, n: int, seed: int) -> dict[str, float]:
    """Writes the reports as CSV and returns what was measured on them.

    A sentence counts as repeated when it occurred earlier in the file, in whatever case; headings and list numbers are
    no part of it. Keeps 8 bytes a sentence, not the sentences.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["study_id", "patient_id", "report"])
    seen: set[bytes] = set()
    sentences = repeated = words = normal = 0
    for number, report in enumerate(reports(n, seed)):
        writer.writerow([f"s{number:07d}", f"p{number * 2 // 3:07d}", report.text])
        for sentence in report.sentences:
            key = hashlib.blake2b(sentence.lower().encode(), digest_size=8).digest()
            repeated += key in seen
            seen.add(key)
        sentences += len(report.sentences)
        words += len(report.text.split())
        normal += report.normal
    return {
        "reports": n,
        "repeated_share": round(repeated / max(sentences, 1), 4),
        "words_mean": round(words / max(n, 1), 1),
        "sentences_mean": round(sentences / max(n, 1), 2),
        "normal_share": round(normal / max(n, 1), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write generated chest X-ray reports as CSV.")
    parser.add_argument("-n", type=int, default=20_000, help="number of reports (default 20000)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same file (default 0)")
    parser.add_argument("-o", "--output", default="-", help="file, or - for stdout (default)")
    arguments = parser.parse_args()
    if arguments.n < 0:
        parser.error("-n must not be negative")
    if arguments.output == "-":
        figures = write_csv(sys.stdout, arguments.n, arguments.seed)
    else:
        with open(arguments.output, "w", encoding="utf-8", newline="") as stream:
            figures = write_csv(stream, arguments.n, arguments.seed)
    print(json.dumps(figures), file=sys.stderr)


if __name__ == "__main__":
    main()
