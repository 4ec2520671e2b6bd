"""Does a model learn to look, and what do process rewards add? The tiny model trained on phantoms, asked about others.

    python benchmarks/learning.py --work DIR            # three seeds; goes on where it was stopped, by arm and seed
    python benchmarks/learning.py --work DIR --write    # also puts the tables into BENCHMARKS.md
    python benchmarks/learning.py --arms sft            # supervised training alone

Films and truth are drawn (`cxr_reason.phantoms`). A chain, at most 64 tokens, goes through five findings that were
fixed beforehand, the one that is asked for last. "No" is always A: a model of this size doesn't learn in a thousand
steps to look letters up. It is made of what `cxr mine` reads in the report and held against it
by `cxr refine`, as a hospital's would be: what a report gets wrong, or leaves out, is in it. The 1,000 questions of the
test come from another world, each on a film of its own, 200 a finding, half of them Yes by the drawn truth. The truth
also judges the claims; RadRScore judges the reasoning by the reports.

Arms, each with every seed: `sft` (supervised), and from its model, by `cxr rl` on films that it never saw: `outcome`
(format and accuracy), `process` (and process, shared by all tokens), `steps` (and process, step by step),
`steps-unknown` (the same, a report's silence taken as unknown), `answers` (accuracy alone, without thinking). Rows
beside: *blind*, the same model with every film exchanged for another patient's; and two floors that look at nothing,
the constant normal chain and always Yes.

Differences are pooled over seeds and paired by film; their 95 % intervals are bootstrapped over films.
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

from bench import ROOT, conditions, note, parser_of, publish, table, version

from cxr_reason.streams import stable_id

FINDINGS = ("pleural effusion", "cardiomegaly", "pneumothorax", "consolidation", "pulmonary edema")
SIDED = frozenset(("pleural effusion", "pneumothorax", "consolidation"))
SIZE = 128
TRAIN_WORLD, RL_WORLD, TEST_WORLD = 5, 7, 6
CHAINS, RL_CHAINS = 14_000, 3_000
TEST_PER_ANSWER = 100
QUESTIONS = ("Does this chest X-ray show {}?", "Is there {} on this film?", "Can {} be seen on this chest radiograph?")
LONGEST = 64
SFT = (
    *("--recipe", "tiny", "--set", "num_train_epochs=1", "--answer-only-share", "10%", "--freeze-vision"),
    *("--eval-every", "0", "--save-every", "500"),
)
RL = (
    *("--recipe", "tiny", "--max-tokens", "72", "--max-steps", "120", "--eval-every", "0", "--save-every", "60"),
    *("--answer-only-share", "0", "--freeze-vision"),
)
OUTCOME = ("--reward", "format=1", "--reward", "accuracy=1")
ARMS: dict[str, tuple[str, ...]] = {
    "sft": SFT,
    "outcome": (*RL, *OUTCOME, "--credit", "sequence"),
    "process": (*RL, *OUTCOME, "--reward", "process=1", "--credit", "sequence"),
    "steps": (*RL, *OUTCOME, "--reward", "process=1", "--credit", "step"),
    "steps-unknown": (*RL, *OUTCOME, "--reward", "process=1", "--credit", "step", "--silence", "unknown"),
    "answers": (*RL, "--reward", "accuracy=1", "--credit", "sequence", "--answer-only-share", "1"),
}
WITHOUT_THINKING = frozenset(("answers",))
PAIRS = (
    *((arm, "outcome") for arm in ("process", "steps", "steps-unknown", "answers", "sft")),
    ("steps", "process"),
)
SEEDS = (0, 1, 2)
CLAIMED = ("precision", "recall", "sided_precision", "sided_recall")
DRAWS = 10_000
CXR = [sys.executable, "-m", "cxr_reason"]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "cxr-learning")
    parser.add_argument("--model", default="tiny", help="what is trained")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further options of cxr sft and cxr rl")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    files = prepared(options.work / "data", options.model)
    results = []
    for seed in options.seeds:
        for arm in options.arms:
            results.append(measured(options.work, arm, seed, files, options.model, options.more))
            note(f"{arm} {seed}: {results[-1]['seconds']} s of training")
    codes = ", ".join(sorted({result["code"] for result in results}))
    about = f"{conditions(f'{os.cpu_count()} cores')}. Runs were made by {codes}"
    told = [shown(results, floors(files["test"])), *compared(results)]
    publish("learning.py", "\n\n".join([f"{about}.", *told]), write=options.write)


# ---------------------------------------------------------------------------------------------------------------- data


def prepared(folder: Path, model: str) -> dict[str, Path]:
    """The chains to train on, supervised and reinforced, and the questions of the test, made once."""
    files = {name: folder / f"{name}.jsonl" for name in ("train", "rl", "test")}
    if files["test"].exists():
        return files
    folder.mkdir(exist_ok=True)
    for name, world, count in (("train", TRAIN_WORLD, CHAINS), ("rl", RL_WORLD, RL_CHAINS)):
        chains = list(evenly(mined(folder, world, count * 3), count // (2 * len(FINDINGS))))
        longest = max(lengths(chains, model))
        assert longest <= LONGEST, f"the longest chain has {longest} tokens"
        draw(folder, world, chains)
        write(files[name], chains)
        told = Counter((record["asked"], answer_of(record)) for record in chains)
        print(f"{name}: {len(chains):,} chains, the longest of {longest} tokens", file=sys.stderr)
        print({f"{what}: {answer}": number for (what, answer), number in sorted(told.items())}, file=sys.stderr)
    questions = list(chosen(mined(folder, TEST_WORLD, 12_000)))
    draw(folder, TEST_WORLD, questions)
    write(files["test"], questions)
    return files


def mined(folder: Path, world: int, count: int) -> Iterator[dict[str, Any]]:
    """A question on each film of a world with a short chain, made of what its report says, and refined.

    `cxr mine` balances its answers for hospitals, where normal films are many, and its chains keep to what a question
    asks; here films are read from top to bottom. So the reading is that of `cxr mine --findings`, question and steps
    are worded here, and `cxr refine` holds them against the report, all of its checks but that steps bear on the
    question. `truth` is what is drawn; nothing that is trained on comes from it.
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
        run("refine", str(questions), "--checks", "-relevant", "-q", "-o", str(chains), "--force")
    yield from read(chains)


def asked(reading: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A question on one of those of `FINDINGS` that a report tells surely, with a chain of all that it tells."""
    told = {finding: entries for finding in FINDINGS if (entries := current(reading, finding))}
    sure = [finding for finding, entries in told.items() if entries[0]["status"] != "uncertain"]
    if not sure:
        return
    identity = stable_id("learning", reading["id"])
    dice = int(identity, 16)
    # What is there is told of fewer films than what isn't.
    there = [finding for finding, entries in told.items() if entries[0]["status"] == "present"]
    pool = there if there and dice % 3 else sure
    finding = pool[dice // 3 % len(pool)]
    steps = [sentence(name, told[name]) for name in (*(name for name in told if name != finding), finding)]
    answer = "B" if finding in there else "A"
    yield {
        **{name: reading[name] for name in ("study_id", "patient_id", "images", "report", "truth")},
        "id": identity,
        "task": "binary",
        "question": QUESTIONS[dice // 128 % len(QUESTIONS)].format(finding),
        "options": ["No", "Yes"],
        "answer": answer,
        "steps": [
            *({"text": step, "kind": "observe"} for step in steps),
            {"text": f"So the answer is {answer}, {'Yes' if finding in there else 'No'}.", "kind": "conclude"},
        ],
        "asked": finding,
    }


def current(reading: Mapping[str, Any], finding: str) -> list[Mapping[str, Any]]:
    """What a report says of `finding` on its film, where all of it is the same: there, denied, or hedged alike."""
    told = [
        found for found in reading["findings"] if found["name"] == finding and found.get("time", "current") == "current"
    ]
    limited = any(found.get("conflict") or found.get("bound") for found in told)
    kinds = {(found["status"], found.get("certainty", "definite")) for found in told}
    return told if not limited and len(kinds) == 1 else []


HEDGES = {"probable": "Probable", "possible": "Possible", "differential": "Possible"}


def sentence(finding: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """What is told of `finding`, with its side; not how severe it is, which takes more than a model of this size."""
    first = entries[0]
    if first["status"] == "absent":
        return f"No {finding}."
    sides = {entry.get("side") for entry in entries} - {None}
    side = "bilateral" if len(sides) > 1 else next(iter(sides), None)
    hedge = HEDGES.get(first.get("certainty", "definite"), "Possible") if first["status"] == "uncertain" else None
    words = " ".join(filter(None, [hedge, side, finding]))
    return f"{words[0].upper()}{words[1:]}{'' if side or hedge else ' is present'}."


def evenly(records: Iterable[dict[str, Any]], most: int) -> Iterator[dict[str, Any]]:
    """At most `most` of each finding and answer, the first ones."""
    taken: Counter[tuple[str, str]] = Counter()
    for record in records:
        kind = record["asked"], answer_of(record)
        if taken[kind] < most:
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


def sides_of(truth: Sequence[Mapping[str, Any]], finding: str) -> set[str]:
    """The sides on which `finding` is drawn."""
    sides = set()
    for entry in truth:
        if entry["name"] == finding and entry["status"] == "present" and entry.get("side"):
            sides |= {"left", "right"} if entry["side"] == "bilateral" else {entry["side"]}
    return sides


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
    work: Path, arm: str, seed: int, files: Mapping[str, Path], model: str, more: Sequence[str]
) -> dict[str, Any]:
    """The figures of an arm with a seed, of the model as it is and blind; made once."""
    result = work / f"{arm}-{seed}.json"
    if result.exists():
        told: dict[str, Any] = json.loads(result.read_text())
        return told
    out = work / f"{arm}-{seed}"
    started = time.monotonic()
    if arm == "sft":
        source = ("sft", str(files["train"]), "--model", model)
    else:
        source = ("rl", str(files["rl"]), "--ckpt", str(work / f"sft-{seed}"))
    run(*source, "-o", str(out), "--seed", str(seed), *ARMS[arm], *more)
    told = {"arm": arm, "seed": seed, "seconds": round(time.monotonic() - started), "code": version()}
    if arm != "sft":
        told["reward_ms"], told["reward_share"] = rewarding(out)
    think = ["--no-think"] if arm in WITHOUT_THINKING else []
    for name, options in (("seeing", []), ("blind", ["--blind", "shuffle"])):
        predictions = work / f"{arm}-{seed}-{name}.jsonl"
        run("infer", str(files["test"]), "--ckpt", str(out), "--engine", "transformers", "--dtype", "float32",
            "--batch-size", "100", "--max-tokens", "96", "-q", "-o", str(predictions), *think, *options)  # fmt: skip
        told[name] = figures(read(predictions))
    result.write_text(json.dumps(told) + "\n")
    return told


def rewarding(out: Path) -> tuple[float, float]:
    """What the rewards of a run took: ms a completion, and their share of the steps."""
    from pyarrow import parquet

    logged = [row for row in read(out / "metrics.jsonl") if "reward_time" in row]
    seconds, steps = (sum(row[name] for row in logged) for name in ("reward_time", "step_time"))
    completions = sum(parquet.read_metadata(path).num_rows for path in (out / "completions").glob("*.parquet"))
    return 1e3 * seconds / completions, seconds / steps


CELLS = ("tp", "fp", "fn", "sided_tp", "sided_fp", "sided_fn")


def figures(predictions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy, and precision and recall of positive claims, by the drawn truth; the parts of RadRScore by the reports.

    A claim is that one of `FINDINGS` is there; *sided*, that it is there on a side, for those that have one.
    """
    from cxr_reason.rewards import judge

    by_finding: dict[str, Counter[str]] = {finding: Counter() for finding in FINDINGS}
    items: dict[str, dict[str, Any]] = {}
    parts: dict[str, list[float]] = {"factuality": [], "radrscore": [], "balanced_radrscore": []}
    unread = 0
    for record in predictions:
        line = judge(record)
        unread += not line["answer_read"]
        for name, values in parts.items():
            if line[name] is not None:
                values.append(line[name])
        cells: Counter[str] = Counter()
        for finding in FINDINGS:
            told = [c for c in line["claims"] if c["finding"] == finding and c["status"] != "absent"]
            there = is_present(record["truth"], finding)
            if there is None:
                continue
            cell = "tp" if told and there else "fp" if told else "fn" if there else "tn"
            by_finding[finding][cell] += 1
            cells[cell] += 1
            if finding in SIDED:
                claimed = {
                    side for c in told for side in (("left", "right") if c["side"] == "bilateral" else (c["side"],))
                }
                drawn = sides_of(record["truth"], finding)
                cells["sided_tp"] += len(claimed & drawn)
                cells["sided_fp"] += len(claimed - drawn)
                cells["sided_fn"] += len(drawn - claimed)
        items[record["id"]] = {"right": bool(line["correct"]), **{name: cells[name] for name in CELLS}}
    return {
        "accuracy": statistics.mean(item["right"] for item in items.values()),
        "unread": unread,
        **{name: statistics.mean(values) if values else None for name, values in parts.items()},
        **rates([*items.values()]),
        "f1": {finding: f1(cell) for finding, cell in by_finding.items()},
        "items": items,
    }


def rates(items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Precision and recall of positive claims over `items`."""
    whole = {name: sum(item[name] for item in items) for name in CELLS}
    told = {}
    for kind in ("", "sided_"):
        true, false, missed = (whole[kind + cell] for cell in ("tp", "fp", "fn"))
        told[f"{kind}precision"] = true / (true + false) if true + false else 0.0
        told[f"{kind}recall"] = true / (true + missed) if true + missed else 0.0
    return told


def f1(cell: Mapping[str, int]) -> float:
    whole = 2 * cell["tp"] + cell["fp"] + cell["fn"]
    return 2 * cell["tp"] / whole if whole else 0.0


def floors(test: Path) -> dict[str, dict[str, Any]]:
    """What looks at nothing gets."""

    def written(chain: str, answer: str) -> Iterator[dict[str, Any]]:
        for record in read(test):
            letter = "AB"[record["options"].index(answer)]
            yield {**record, "prediction": f"{chain}<answer>{letter}</answer>"}

    normal = "\n\n".join(f"No {finding}." for finding in FINDINGS)
    return {
        "constant normal chain": figures(written(f"<think>{normal}</think>", "No")),
        "always Yes": figures(written("", "Yes")),
    }


COLUMNS = (
    "accuracy", "precision", "recall", "sided_precision", "sided_recall", "factuality", "radrscore",
    "balanced_radrscore",
)  # fmt: skip


def shown(results: Sequence[Mapping[str, Any]], beside: Mapping[str, Mapping[str, Any]]) -> str:
    """A row an arm and seed, then their blind rows, then what looks at nothing."""
    heads = [*(name.replace("_", " ") for name in COLUMNS), *(f"F1 {name}" for name in FINDINGS), "training, s"]
    heads += ["rewards, ms a completion", "rewards, % of a step"]

    def row(arm: str, seed: str, told: Mapping[str, Any], *costs: str) -> list[str]:
        values = [*(told[name] for name in COLUMNS), *(told["f1"][name] for name in FINDINGS)]
        return [arm, seed, *("" if value is None else f"{value:.3f}" for value in values), *(costs or ("",) * 3)]

    def rewards(one: Mapping[str, Any]) -> tuple[str, str]:
        return (f"{one['reward_ms']:.2f}", f"{100 * one['reward_share']:.1f}") if "reward_ms" in one else ("", "")

    rows = [row(one["arm"], str(one["seed"]), one["seeing"], str(one["seconds"]), *rewards(one)) for one in results]
    rows += [row(f"{one['arm']}, blind", str(one["seed"]), one["blind"]) for one in results]
    rows += [row(name, "", told) for name, told in beside.items()]
    return table(["arm", "seed", *heads], rows)


def compared(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The differences of `PAIRS`, pooled over the seeds that both have, with intervals over films and signs by seed."""
    arms = {(result["arm"], result["seed"]): result["seeing"]["items"] for result in results}
    rows = []
    for arm, base in PAIRS:
        seeds = sorted(seed for name, seed in arms if name == arm and (base, seed) in arms)
        pairs = [(arms[arm, seed], arms[base, seed]) for seed in seeds]
        for measure in ("accuracy", *(() if arm in WITHOUT_THINKING else CLAIMED)) if pairs else ():
            by_seed = [difference([*one.values()], [*other.values()], measure) for one, other in pairs]
            value, low, high = pooled(pairs, measure)
            told = " ".join(f"{one:+.3f}" for one in by_seed)
            cells = [measure.replace("_", " "), f"{value:+.3f}", f"{low:+.3f} to {high:+.3f}", told]
            rows.append([f"`{arm}` minus `{base}`", *cells])
    if rows:
        yield table(["", "measure", "difference", "95 %", "by seed"], rows)


def difference(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], measure: str) -> float:
    if measure == "accuracy":
        return statistics.mean(item["right"] for item in one) - statistics.mean(item["right"] for item in other)
    return rates(one)[measure] - rates(other)[measure]


def pooled(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], measure: str) -> tuple[float, float, float]:
    """(difference, low, high) over all seeds together; a film is drawn with its answers of every seed and both arms."""
    import numpy as np

    films = [*pairs[0][0]]
    names = ("right", *CELLS)
    counts = np.array(
        [[[sum(told[film][name] for told in side) for name in names] for film in films]
         for side in zip(*pairs, strict=True)], dtype=float,
    )  # fmt: skip
    dice = np.random.default_rng(0)
    kind = "sided_" if measure.startswith("sided") else ""
    true = names.index(f"{kind}tp")
    against = names.index(f"{kind}fp" if measure.endswith("precision") else f"{kind}fn")

    def value(weights: Any) -> Any:
        sums = np.einsum("dn,snk->dsk", weights, counts)
        if measure == "accuracy":
            shares = sums[..., 0] / (weights.sum(axis=1, keepdims=True) * len(pairs))
        else:
            shares = sums[..., true] / np.maximum(sums[..., true] + sums[..., against], 1)
        return shares[:, 0] - shares[:, 1]

    draws = dice.multinomial(len(films), np.full(len(films), 1 / len(films)), size=DRAWS).astype(float)
    low, high = np.quantile(value(draws), [0.025, 0.975])
    return float(value(np.ones((1, len(films))))[0]), float(low), float(high)


# --------------------------------------------------------------------------------------------------------------- shared


def run(*arguments: str) -> None:
    done = subprocess.run([*CXR, *arguments], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
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
