"""Does a model learn to look? The tiny model trained on chains about phantoms, asked about films that it never saw.

    python benchmarks/learning.py --work DIR            # three seeds; goes on where it was stopped, by arm and seed

Films and truth are drawn (`cxr_reason.phantoms`). The chains, at most 64 tokens, are made of what `cxr mine` reads in
the reports and held against these by `cxr refine`, as a hospital's would be: what a report gets wrong is in them. The
1,000 questions of the test come from another world, each on a film of its own, 200 a finding, half of them Yes by the
drawn truth. The truth also judges the answers; RadRScore judges the reasoning by the reports.

Rows beside each arm: *blind*, the same model with every film exchanged for another patient's; and two floors that look
at nothing, the constant normal chain and always the same answer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_reason.streams import stable_id

FINDINGS = ("pleural effusion", "cardiomegaly", "pneumothorax", "consolidation", "pulmonary edema")
SIZE = 128
TRAIN_WORLD, TEST_WORLD = 5, 6
STUDIES, PER_ANSWER = 12_000, 900
TEST_STUDIES, TEST_PER_ANSWER = 6_000, 100
QUESTIONS = ("Does this chest X-ray show {}?", "Is there {} on this film?", "Can {} be seen on this chest radiograph?")
LONGEST = 64
ARMS = {
    "sft": (
        "--recipe",
        "tiny",
        "--set",
        "eval_tokens=64",
        "--eval-items",
        "100",
        "--eval-every",
        "400",
        "--save-every",
        "400",
    )
}
SEEDS = (0, 1, 2)
CXR = [sys.executable, "-m", "cxr_reason"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "cxr-learning")
    parser.add_argument("--model", default="tiny", help="what is trained")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further options of cxr sft")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    train, test = prepared(options.work / "data", options.model)
    results = []
    for seed in options.seeds:
        for arm in ARMS:
            results.append(measured(options.work, arm, seed, train, test, options.model, options.more))
            show(results, floors(test))


# ---------------------------------------------------------------------------------------------------------------- data


def prepared(folder: Path, model: str) -> tuple[Path, Path]:
    """The chains to train on and the questions of the test, made once."""
    train, test = folder / "train.jsonl", folder / "test.jsonl"
    if test.exists():
        return train, test
    folder.mkdir(exist_ok=True)
    chains = list(evenly(mined(folder, TRAIN_WORLD, STUDIES)))
    longest = max(lengths(chains, model))
    assert longest <= LONGEST, f"the longest chain has {longest} tokens"
    draw(folder, TRAIN_WORLD, chains)
    write(train, chains)
    questions = list(chosen(mined(folder, TEST_WORLD, TEST_STUDIES)))
    draw(folder, TEST_WORLD, questions)
    write(test, questions)
    told = Counter((record["asked"], answer_of(record)) for record in chains)
    print(f"{len(chains):,} chains, the longest of {longest} tokens; {len(questions):,} questions", file=sys.stderr)
    print({f"{name}: {answer}": number for (name, answer), number in sorted(told.items())}, file=sys.stderr)
    return train, test


def mined(folder: Path, world: int, count: int) -> Iterator[dict[str, Any]]:
    """Yes/no questions about `FINDINGS` with short chains, made of what the reports of a world say, and refined.

    `cxr mine` balances its answers for hospitals, where normal films are many; here they are asked evenly. So
    the reading is that of `cxr mine --findings`, question and steps are worded here, and `cxr refine` holds them
    against the report. `truth` is what is drawn; nothing that is trained on comes from it.
    """
    from cxr_reason import phantoms

    reports, readings, questions, chains = (
        folder / f"{name}-{world}.jsonl" for name in ("reports", "readings", "questions", "chains")
    )
    if not chains.exists():
        write(
            reports,
            (
                {
                    "study_id": case.study_id,
                    "patient_id": case.patient_id,
                    "report": case.report,
                    "images": [f"films-{world}/{case.index}.png"],
                    "truth": case.truth,
                }
                for case in phantoms.cases(world, count)
            ),
        )
        run("mine", str(reports), "--findings", "-q", "-o", str(readings), "--force")
        write(questions, (question for reading in read(readings) for question in asked(reading)))
        run("refine", str(questions), "-q", "-o", str(chains), "--force")
    yield from read(chains)


def asked(reading: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A question for each of `FINDINGS` that a report calls there or not there, without a hedge."""
    for finding in FINDINGS:
        told = [
            found
            for found in reading["findings"]
            if found["name"] == finding and found.get("time", "current") == "current"
        ]
        states = {found["status"] for found in told}
        sure = not any(found.get("conflict") or found.get("bound") for found in told)
        if (
            not sure
            or states not in ({"present"}, {"absent"})
            or any(f.get("certainty", "definite") != "definite" for f in told)
        ):
            continue
        there = states == {"present"}
        identity = stable_id("learning", reading["id"], finding)
        dice = int(identity, 16)
        options = ["No", "Yes"] if dice % 2 else ["Yes", "No"]
        answer = "AB"[options.index("Yes" if there else "No")]
        first = told[0]
        words = (
            " ".join(filter(None, [first.get("severity"), first.get("side"), finding])) if there else f"no {finding}"
        )
        yield {
            **{name: reading[name] for name in ("study_id", "patient_id", "images", "report", "truth")},
            "id": identity,
            "task": "binary",
            "question": QUESTIONS[dice // 2 % len(QUESTIONS)].format(finding),
            "options": options,
            "answer": answer,
            "steps": [
                {"text": f"{words[0].upper()}{words[1:]} is seen.", "kind": "observe"},
                {"text": f"So the answer is {answer}, {'Yes' if there else 'No'}.", "kind": "conclude"},
            ],
            "asked": finding,
        }


def evenly(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """At most `PER_ANSWER` of each finding and answer, the first ones."""
    taken: Counter[tuple[str, str]] = Counter()
    for record in records:
        kind = record["asked"], answer_of(record)
        if taken[kind] < PER_ANSWER:
            taken[kind] += 1
            yield record


def answer_of(record: Mapping[str, Any]) -> str:
    return str(record["options"][ord(record["answer"]) - ord("A")])


def lengths(chains: Iterable[Mapping[str, Any]], model: str) -> Iterator[int]:
    from transformers import AutoTokenizer

    from cxr_reason.engines import models
    from cxr_reason.engines.prompts import completion_of

    tokenizer = AutoTokenizer.from_pretrained(models.resolve(model).path)
    return (len(tokenizer(completion_of(record))["input_ids"]) for record in chains)


def is_present(truth: Sequence[Mapping[str, Any]], finding: str) -> bool | None:
    """What is drawn of `finding`; None where the truth doesn't speak of it."""
    states = {entry["status"] for entry in truth if entry["name"] == finding}
    return True if "present" in states else False if "absent" in states else None


def chosen(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Questions balanced by the drawn truth, each finding and answer as often; the truth is their answer."""
    taken: Counter[tuple[str, bool]] = Counter()
    films = set()
    for record in records:
        finding = record["asked"]
        there = is_present(record["truth"], finding)
        film = record["images"][0]
        if there is None or taken[finding, there] >= TEST_PER_ANSWER or film in films:
            continue
        films.add(film)
        taken[finding, there] += 1
        yield {**record, "answer": "AB"[record["options"].index("Yes" if there else "No")]}
    assert len(films) == 2 * TEST_PER_ANSWER * len(FINDINGS), taken


def draw(folder: Path, world: int, records: Iterable[Mapping[str, Any]]) -> None:
    from PIL import Image

    from cxr_reason import phantoms

    (folder / f"films-{world}").mkdir(exist_ok=True)
    for name in {record["images"][0] for record in records}:
        if not (folder / name).exists():
            film = phantoms.study(world, int(Path(name).stem), size=SIZE).image
            Image.fromarray(film).save(folder / name)


# ------------------------------------------------------------------------------------------------------------- the arms


def measured(
    work: Path, arm: str, seed: int, train: Path, test: Path, model: str, more: Sequence[str]
) -> dict[str, Any]:
    """The figures of an arm with a seed, of the model as it is and blind; made once."""
    result = work / f"{arm}-{seed}.json"
    if result.exists():
        told: dict[str, Any] = json.loads(result.read_text())
        return told
    out = work / f"{arm}-{seed}"
    started = time.monotonic()
    run("sft", str(train), "--model", model, "-o", str(out), "--seed", str(seed), *ARMS[arm], *more)
    told = {"arm": arm, "seed": seed, "seconds": round(time.monotonic() - started)}
    for name, options in (("seeing", []), ("blind", ["--blind", "shuffle"])):
        predictions = work / f"{arm}-{seed}-{name}.jsonl"
        run("infer", str(test), "--ckpt", str(out), "--engine", "transformers", "--dtype", "float32", "--batch-size",
            "100", "--max-tokens", "96", "-q", "-o", str(predictions), *options)  # fmt: skip
        told[name] = figures(read(predictions))
    result.write_text(json.dumps(told, indent=1) + "\n")
    return told


def figures(predictions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy and F1 of positive claims by the drawn truth; balanced RadRScore by the reports."""
    from cxr_reason.rewards import judge

    right, balanced, unread = [], [], 0
    cells: dict[str, Counter[str]] = {finding: Counter() for finding in FINDINGS}
    for record in predictions:
        line = judge(record)
        right.append(bool(line["correct"]))
        unread += not line["answer_read"]
        if line["balanced_radrscore"] is not None:
            balanced.append(line["balanced_radrscore"])
        finding = record["asked"]
        called = any(claim["finding"] == finding and claim["status"] != "absent" for claim in line["claims"])
        there = is_present(record["truth"], finding)
        cells[finding]["tp" if called and there else "fp" if called else "fn" if there else "tn"] += 1
    return {
        "items": len(right),
        "accuracy": statistics.mean(right),
        "unread": unread,
        "balanced_radrscore": statistics.mean(balanced) if balanced else None,
        "f1": {finding: f1(cell) for finding, cell in cells.items()},
    }


def f1(cell: Mapping[str, int]) -> float:
    whole = 2 * cell["tp"] + cell["fp"] + cell["fn"]
    return 2 * cell["tp"] / whole if whole else 0.0


def floors(test: Path) -> dict[str, dict[str, Any]]:
    """What looks at nothing gets."""
    from cxr_reason.scoring import floors as known

    def always(letter: str) -> Iterator[dict[str, Any]]:
        for record in read(test):
            yield {**record, "prediction": f"<answer>{'AB'[record['options'].index(letter)]}</answer>"}

    normal = ({**record, "prediction": known.litany(record)} for record in read(test))
    return {"constant normal chain": figures(normal), "always Yes": figures(always("Yes"))}


def show(results: Sequence[Mapping[str, Any]], beside: Mapping[str, Mapping[str, Any]]) -> None:
    print(
        "\n| arm | seed | accuracy | balanced RadRScore | "
        + " | ".join(f"F1 {name}" for name in FINDINGS)
        + " | train s |"
    )
    print("|---|---|---|---|" + "---|" * (len(FINDINGS) + 1))

    def row(arm: str, seed: Any, told: Mapping[str, Any], seconds: Any) -> None:
        cells = [f"{told['f1'][name]:.2f}" for name in FINDINGS]
        balanced = told["balanced_radrscore"]
        score = f"{balanced:.3f}" if balanced is not None else ""
        print(f"| {arm} | {seed} | {told['accuracy']:.3f} | {score} | {' | '.join(cells)} | {seconds} |")

    for result in results:
        row(result["arm"], result["seed"], result["seeing"], result["seconds"])
        row(f"{result['arm']}, blind", result["seed"], result["blind"], "")
    for name, told in beside.items():
        row(name, "", told, "")
    sys.stdout.flush()


# --------------------------------------------------------------------------------------------------------------- shared


def run(*arguments: str) -> None:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([*CXR, *arguments], env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.DEVNULL)
    assert done.returncode == 0, f"cxr {' '.join(arguments)}: exit {done.returncode}"


def read(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    partial = path.with_suffix(".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    os.replace(partial, path)


if __name__ == "__main__":
    main()
