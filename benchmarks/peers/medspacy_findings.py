"""medspaCy on the job of `cxr mine --findings`: finding names with negation, uncertainty and history, as JSON lines.

    PEER_VENV/bin/python benchmarks/peers/medspacy_findings.py reports.csv 300 > findings.jsonl

Runs in an environment of its own that mine.py makes. The pipeline is medspaCy's default (its tokenizer, PyRuSH
sentences, TargetMatcher, ConText with its own English rules) with the phrases of phrases.txt; the section
detector stays off, which spares it work. The last line on stderr is JSON: seconds to load, seconds for the reports.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()


def read_phrases() -> list[tuple[str, str]]:
    """(phrase, finding) of every line of phrases.txt."""
    text = Path(__file__).with_name("phrases.txt").read_text(encoding="utf-8")
    lines = re.sub(r"\n\s+\|", " |", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    return [
        (phrase.strip(), name) for name, phrases in (line.split(":") for line in lines) for phrase in phrases.split("|")
    ]


def main(path: str, limit: int) -> None:
    import medspacy
    from loguru import logger
    from medspacy.target_matcher import TargetRule

    logger.remove()  # PyRuSH logs every sentence at debug level, which would cost it time
    nlp = medspacy.load()
    nlp.get_pipe("medspacy_target_matcher").add([TargetRule(phrase, name) for phrase, name in read_phrases()])
    loaded = time.perf_counter()
    with open(path, encoding="utf-8", newline="") as stream:
        rows = itertools.islice(csv.DictReader(stream), limit)
        for doc, study in nlp.pipe(((row["report"], row["study_id"]) for row in rows), as_tuples=True):
            findings = [
                {
                    "name": entity.label_,
                    "negated": entity._.is_negated,
                    "uncertain": entity._.is_uncertain,
                    "historical": entity._.is_historical,
                    "hypothetical": entity._.is_hypothetical,
                    "span": [entity.start_char, entity.end_char],
                }
                for entity in doc.ents
            ]
            sys.stdout.write(json.dumps({"study_id": study, "findings": findings}) + "\n")
    done = time.perf_counter()
    versions = {"medspacy": medspacy.__version__, "rules": len(read_phrases())}
    print(json.dumps({"load_s": loaded - STARTED, "reports_s": done - loaded, **versions}), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
