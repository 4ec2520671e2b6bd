"""The floor under `cxr mine`: reads the reports as CSV and writes them as JSON lines, and nothing else.

python benchmarks/peers/floor.py reports.csv > texts.jsonl
"""

from __future__ import annotations

import csv
import json
import sys


def main(path: str) -> None:
    with open(path, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
