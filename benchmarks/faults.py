"""Kill -9 at random points of every command, again and again: does the same command give the same files, and is any
record lost?

    python benchmarks/faults.py                     # eight kills a command, some 20 minutes
    python benchmarks/faults.py --write             # also puts the table into docs/faults.md
    python benchmarks/faults.py --kills 2 --commands mine refine

Every command runs once without a disturbance. Then it is killed, with all its processes, at a random moment of the time
that it took, given again and killed again, and at last left alone. What is compared is everything that it writes: files
byte for byte, of trained models the weights and the curve. A record counts as lost where its id is in the undisturbed
output and not in the other, or there a different number of times. Moments are drawn from --seed; what they hit is not
the same on every machine. Kills that came too late, after the command's end, aren't counted: it starts anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench import ROOT, conditions, cxr_command, generate, note, parser_of, publish, table

STUDIES = 240
REPORTS = 20_000
TINY = "--recipe tiny --save-every 4 --eval-every 0 --freeze-vision"


@dataclass(frozen=True)
class Command:
    """A shell command that writes to OUT, and what it writes there."""

    line: str
    records: tuple[str, ...] = ("OUT",)
    """Files of records: JSON lines."""
    others: tuple[str, ...] = ()
    """Files that must be the same, byte for byte."""
    needs: tuple[str, ...] = field(default=())
    """Commands whose undisturbed output it reads, as NAME.whole."""


COMMANDS = {
    "demo": Command(f"cxr demo -o OUT --studies {STUDIES} -q", ("OUT/reports.jsonl",), ("OUT/films",)),
    "mine": Command("cxr mine reports.csv -q --rejects OUT.rejects -o OUT", others=("OUT.rejects",)),
    "mine, two processes": Command("cxr mine reports.csv --jobs 2 -q -o OUT"),
    "refine": Command(
        "cxr refine mine.whole -q --rejects OUT.rejects -o OUT", others=("OUT.rejects",), needs=("mine",)
    ),
    "mine | refine": Command("cxr mine reports.csv -q | cxr refine -q -o OUT"),
    "refine, to Parquet": Command(
        "cxr refine mine.whole -q -o OUT/ && cxr refine OUT/ --checks length -q --force -o OUT.jsonl",
        ("OUT.jsonl",), needs=("mine",),
    ),
    "sft": Command(
        f"cxr sft chains.jsonl --model tiny {TINY} --batch-size 8 --max-steps 24 -o OUT", (),
        ("OUT/model.safetensors", "OUT/metrics.jsonl"),
    ),
    "rl": Command(
        f"cxr rl --ckpt sft.whole {TINY} --save-every 2 --batch-size 2 --max-tokens 24 --max-steps 24 -o OUT", (),
        ("OUT/model.safetensors", "OUT/metrics.jsonl"), needs=("sft",),
    ),
    "infer": Command(
        "cxr infer chains.jsonl --ckpt sft.whole --engine transformers --dtype float32 --max-tokens 40 --limit 120 -q "
        "-o OUT", needs=("sft",),
    ),
    "score": Command(
        "cxr score predictions.jsonl --draws 200 --details OUT --html OUT.html > OUT.table",
        others=("OUT.html", "OUT.table"),
    ),
}  # fmt: skip


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--kills", type=int, default=8, help="of every command [default: 8]")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cxr-faults-") as name:
        folder = Path(name)
        prepare(folder)
        rows, bad = [], 0
        for command in options.commands:
            rows.append(tried(command, folder, kills=options.kills, dice=random.Random(f"{options.seed} {command}")))
            bad += rows[-1][-2] != "0" or rows[-1][-1] != "yes"
    told = table(["command", "undisturbed s", "kills", "gone on from saved work", "records", "lost", "same"], rows)
    sums = f"{sum(int(row[2]) for row in rows)} kills, {sum(int(row[-2]) for row in rows)} records lost"
    text = f"{told}\n\n{sums}; {conditions(f'{os.cpu_count()} cores')}."
    publish("faults.py", text, write=options.write, page=ROOT / "docs" / "faults.md")
    sys.exit(bad > 0)


def prepare(folder: Path) -> None:
    """The inputs: reports, phantoms with chains, and predictions, all of our own making."""
    generate(REPORTS, 3, folder / "reports.csv")
    demo = f"cxr demo -o films --studies {STUDIES} -q"
    mine = "cxr mine films/reports.jsonl -q | cxr refine -q -o films/chains.jsonl"
    assert run(f"{demo} && {mine}", folder).wait() == 0
    with open(folder / "chains.jsonl", "w") as file:
        for record in read(folder / "films" / "chains.jsonl"):
            record["images"] = [f"films/{image['path']}" for image in record["images"]]
            file.write(json.dumps(record) + "\n")
    with open(folder / "predictions.jsonl", "w") as file:
        for turn in range(40):
            for record in read(ROOT / "examples" / "predictions.jsonl"):
                file.write(json.dumps({**record, "id": f"{record['id']}-{turn}"}) + "\n")


def tried(name: str, folder: Path, *, kills: int, dice: random.Random) -> list[str]:
    """Kill the command of that `name`, and tell what came of it."""
    command = COMMANDS[name]
    for need in command.needs:
        whole(need, folder)
    seconds = whole(name, folder)
    out = slug(name) + ".out"
    line = command.line.replace("OUT", out)
    done, resumed = 0, 0
    while done < kills:
        process = run(line, folder)
        try:
            process.wait(timeout=dice.random() * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
            resumed += any(path.name.startswith(out) for path in folder.glob("*.partial*")) or checkpoint(folder / out)
        else:
            assert process.returncode == 0, f"{line}: {process.returncode}"
            clear(folder, out)
    process = run(line, folder)
    assert process.wait() == 0, f"{line}: {process.returncode}"
    there, here = (counted(command, folder, slug(name) + end) for end in (".whole", ".out"))
    lost = sum(((there - here) + (here - there)).values())
    same = digests(command, folder, slug(name) + ".whole") == digests(command, folder, out)
    clear(folder, out)
    note(f"{name}: {done} kills, {lost} records lost, {'the same' if same else 'NOT THE SAME'}")
    return [
        name,
        f"{seconds:.1f}",
        str(done),
        str(resumed),
        f"{sum(there.values()):,}",
        str(lost),
        "yes" if same else "NO",
    ]


def whole(name: str, folder: Path) -> float:
    """Run the command undisturbed, once; the seconds that it took."""
    out, told = slug(name) + ".whole", folder / f"{slug(name)}.seconds"
    if not told.exists():
        for need in COMMANDS[name].needs:
            whole(need, folder)
        began = time.monotonic()
        process = run(COMMANDS[name].line.replace("OUT", out), folder)
        assert process.wait() == 0, f"{name}: {(folder / 'log').read_text()[-2000:]}"
        told.write_text(str(time.monotonic() - began))
    return float(told.read_text())


def run(line: str, folder: Path) -> subprocess.Popen[bytes]:
    """`line` in a shell in `folder`, with all its processes in a group of their own."""
    cxr = " ".join(f"'{word}'" for word in cxr_command())
    with open(folder / "log", "a") as log:
        return subprocess.Popen(
            ["bash", "-c", f'set -eo pipefail; cxr() {{ {cxr} "$@"; }}; {line}'],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
        )  # fmt: skip


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def checkpoint(out: Path) -> bool:
    return any(out.glob("checkpoint-*"))


def clear(folder: Path, out: str) -> None:
    for path in folder.glob(f"{out}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def read(path: Path) -> list[dict]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def counted(command: Command, folder: Path, out: str) -> Counter[str]:
    return Counter(
        str(record.get("id") or record.get("study_id"))
        for name in command.records
        for record in read(folder / name.replace("OUT", out))
    )


def digests(command: Command, folder: Path, out: str) -> list[str]:
    """A hash of each file that the command writes; of a folder, of all in it."""
    found = []
    for name in (*command.records, *command.others):
        path = folder / name.replace("OUT", out)
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        assert files
        found += [hashlib.blake2b(content(file).replace(out.encode(), b"OUT")).hexdigest() for file in files]
    return found


def content(file: Path) -> bytes:
    """The bytes of a file; of a curve, its lines without the seconds that a step took."""
    if file.name != "metrics.jsonl":
        return file.read_bytes()
    rows = [{name: value for name, value in row.items() if not name.endswith("_time")} for row in read(file)]
    return json.dumps(rows).encode()


if __name__ == "__main__":
    main()
