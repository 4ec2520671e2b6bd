"""What a judgement of ours takes beside the text metrics of others: ROUGE, BLEU and those of RadEval.

    python benchmarks/metrics.py                # 1,000 items, three interleaved runs, a minute
    python benchmarks/metrics.py --write        # also puts the table into BENCHMARKS.md
    python benchmarks/metrics.py --peer-venv DIR --peer rouge --peer bleu

Items are the made-up predictions of benchmarks/score.py, no two the same; the texts that are compared are those of
`cxr score --metrics`. CPU time on one core, start and warm-up aside. The peers run in an environment of their own
(`--peer-venv`, made on first use with pip: RadEval brings torch, 2 GB); those that need a model that isn't in the
machine's cache say so in place of a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import score
from bench import HERE, conditions, note, parser_of, peer_python, pin, publish, spread, table

PACKAGES = ("radeval==2.2.1", "rouge-score==0.1.2", "sacrebleu==2.6.0")
WARM = 300
OURS = "`cxr score`, a judgement"
PEERS = {
    "rouge": "ROUGE-1, -2, -L (rouge-score)",
    "bleu": "BLEU (sacrebleu)",
    "radeval:rouge": "ROUGE (RadEval)",
    "radeval:bleu": "BLEU (RadEval)",
    "radeval:bertscore": "BERTScore (RadEval)",
    "radeval:radeval_bertscore": "RadEval-BERTScore (RadEval)",
    "radeval:f1chexbert": "F1CheXbert (RadEval)",
    "radeval:radgraph": "RadGraph F1 (RadEval)",
    "radeval:ratescore": "RaTEScore (RadEval)",
    "radeval:srrbert": "SRR-BERT (RadEval)",
    "radeval:temporal": "temporal F1 (RadEval)",
    "radeval:green": "GREEN (RadEval)",
}


def ours(records: list[dict[str, Any]]) -> float:
    """Seconds a judgement."""
    from cxr_reason.rewards import judge

    started = time.process_time()
    for record in records:
        judge(record)
    return (time.process_time() - started) / len(records)


def peers(python: str, names: list[str], records: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds an item that each of the peers takes, or why it can't be told."""
    from cxr_reason.rewards.prose import parts
    from cxr_reason.scoring.metrics import reference_text

    pairs = [(reference_text(record), parts(record["prediction"])[0]) for record in records]
    done = subprocess.run(
        [python, str(HERE / "peers" / "text_metrics.py"), *names],
        input=json.dumps(pairs),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    return dict(json.loads(done.stdout))


def run(arguments: argparse.Namespace) -> str:
    """All measurements; returns the Markdown."""
    python = peer_python(arguments.peer_venv, PACKAGES)
    items = score.items(WARM + arguments.items * arguments.repeats)
    ours(list(islice(items, WARM)))  # the peers are warmed up too
    taken: dict[str, list[float]] = {}
    without: dict[str, str] = {}
    for number in range(1, arguments.repeats + 1):
        records = list(islice(items, arguments.items))  # others each time: what the engine has read it remembers
        taken.setdefault(OURS, []).append(ours(records))
        for name, told in peers(python, [name for name in arguments.peer if name not in without], records).items():
            if isinstance(told, str):
                without[name] = told
            else:
                taken.setdefault(PEERS[name], []).append(told)
        last = ", ".join(f"{name} {1e3 * runs[-1]:.2f}" for name, runs in taken.items())
        note(f"{number}/{arguments.repeats}: ms an item: {last}")
    base = statistics.median(taken[OURS])
    rows = [
        [name, spread([1e3 * seconds for seconds in runs], 2), f"{statistics.median(runs) / base:.1f}"]
        for name, runs in taken.items()
    ]
    rows += [[PEERS[name], "not here", why.partition(":")[0]] for name, why in without.items()]
    return "\n\n".join(
        [
            f"{conditions('one core')}; {', '.join(PACKAGES)}. {arguments.repeats} interleaved runs over "
            f"{arguments.items:,} predictions.",
            table(["an item", "CPU ms, median (range)", "÷ ours"], rows),
        ]
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats (default 3)")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="only these (default: all)")
    parser.add_argument(
        "--peer-venv",
        type=Path,
        default=Path(tempfile.gettempdir()) / "cxr-benchmark-metrics",
        help="the peers' environment, made if missing (default: in the temporary folder)",
    )
    arguments = parser.parse_args()
    arguments.peer = arguments.peer or list(PEERS)
    pin()
    publish("metrics.py", run(arguments), write=arguments.write)


if __name__ == "__main__":
    main()
