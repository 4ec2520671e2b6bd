"""What a step of `cxr sft` and `cxr rl` costs beside that of a bare TRL script: same data, same settings, in pairs.

    python benchmarks/steps.py --stage sft --pairs 7
    python benchmarks/steps.py --stage rl --pairs 7 --write     # also puts the row into BENCHMARKS.md

Both of a pair are processes of their own and train the tiny model on the same phantoms, in turns of who goes first; the
time from step to step is taken by a callback that both get, the first ten steps left out. The bare script is what TRL's
documentation shows for films: a dataset with a transform that opens them, SFTConfig and SFTTrainer, or GRPOConfig and
GRPOTrainer with a reward that is constant, where `cxr rl` has its three, credit by step, and completions kept. GRPO
learns next to nothing here (a rate of 1e-9), so that both write the same completions. Printed: the median of the pairs'
ratios of mean step times, and the 95 % bootstrap interval of that median.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import ROOT, conditions, note, parser_of, publish, table

STEPS, WARM = {"sft": 60, "rl": 30}, 10
BATCH = 16
RATE = 1e-3
QUESTIONS, GENERATIONS, TOKENS = 4, 8, 48


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--stage", choices=STEPS, default="sft")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "cxr-steps")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--one", choices=["cxr", "bare"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(timed(options.stage, options.one, options.work, options.model)))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    chains(options.work)
    ratios, taken = [], []
    for pair in range(options.pairs):
        order = ["cxr", "bare"] if pair % 2 else ["bare", "cxr"]
        times = {name: measured(options.stage, name, options.work, options.model) for name in order}
        taken.append(times)
        ratios.append(times["cxr"] / times["bare"])
        note(
            f"pair {pair + 1}: cxr {times['cxr']:.4f} s, bare TRL {times['bare']:.4f} s a step, ratio {ratios[-1]:.3f}"
        )
    dice = random.Random(0)
    medians = sorted(statistics.median(dice.choices(ratios, k=len(ratios))) for _ in range(10_000))
    row = [options.stage, *(f"{statistics.median(times[name] for times in taken):.3f}" for name in ("cxr", "bare"))]
    row.append(f"{statistics.median(ratios):.3f} [{medians[250]:.3f}, {medians[9750]:.3f}], {len(ratios)} pairs")
    told = table(["stage", "cxr, s a step", "bare TRL, s a step", "ratio"], [row])
    text = f"{conditions(f'{os.cpu_count()} cores')}.\n\n{told}"
    publish(f"steps.py --stage {options.stage}", text, write=options.write)


def measured(stage: str, name: str, work: Path, model: str) -> float:
    done = subprocess.run(
        [sys.executable, __file__, "--stage", stage, "--one", name, "--work", str(work), "--model", model],
        capture_output=True, encoding="utf-8", env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: float = json.loads(done.stdout.splitlines()[-1])
    return told


def chains(work: Path, count: int = 240) -> None:
    """Chains on phantoms, as a person would make them."""
    from PIL import Image

    from cxr_reason import phantoms

    if (work / "chains.jsonl").exists():
        return
    with open(work / "reports.jsonl", "w", encoding="utf-8") as file:
        for index in range(count):
            study = phantoms.study(0, index, size=224)
            Image.fromarray(study.image).save(work / f"{index}.png")
            row = {"study_id": study.study_id, "patient_id": study.patient_id, "report": study.report}
            file.write(json.dumps({**row, "images": [f"{index}.png"]}) + "\n")
    for command in (
        ["mine", "reports.jsonl", "-o", "questions.jsonl"],
        ["refine", "questions.jsonl", "-o", "chains.jsonl"],
    ):
        subprocess.run([sys.executable, "-m", "cxr_reason", *command, "-q", "--force"], cwd=work, check=True)


def timed(stage: str, name: str, work: Path, model: str) -> float:
    """Mean seconds from step to step."""
    import transformers

    moments: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            moments.append(time.perf_counter())

    transformers.trainer.DEFAULT_CALLBACKS.append(Clock)
    run = {"sft": (ours_sft, bare_sft), "rl": (ours_rl, bare_rl)}[stage][name == "bare"]
    with tempfile.TemporaryDirectory(dir=work) as out:
        run(work, model, out)
    return (moments[-1] - moments[WARM]) / (len(moments) - 1 - WARM)


def ours_sft(work: Path, model: str, out: str) -> None:
    from cxr_reason.training import runs, sft

    flags = {"max_steps": STEPS["sft"], "batch_size": BATCH, "eval_share": 0}
    chosen = sft.Sft().settings(recipe="tiny", flags=flags)
    sft.train(runs.Run(inputs=[str(work / "chains.jsonl")], model=model, out=Path(out), settings=chosen))


def ours_rl(work: Path, model: str, out: str) -> None:
    from cxr_reason.training import rl, runs

    flags = {
        "max_steps": STEPS["rl"], "batch_size": QUESTIONS, "num_generations": GENERATIONS, "eval_share": 0,
        "max_completion_length": TOKENS, "learning_rate": 1e-9,
    }  # fmt: skip
    chosen = rl.Rl({}).settings(recipe="tiny", flags=flags)
    rl.train(runs.Run(inputs=[str(work / "chains.jsonl")], model=model, out=Path(out), settings=chosen))


def bare_sft(work: Path, model: str, out: str) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from cxr_reason.engines import models
    from cxr_reason.training import settings

    recipe = settings.recipes("sft")["tiny"]
    path = models.resolve(model).path
    args = SFTConfig(
        output_dir=out, max_steps=STEPS["sft"], per_device_train_batch_size=BATCH, learning_rate=RATE,
        lr_scheduler_type=recipe["lr_scheduler_type"], warmup_steps=recipe["warmup_steps"], max_length=None, **plain(),
    )  # fmt: skip
    trainer = SFTTrainer(
        AutoModelForImageTextToText.from_pretrained(path, dtype="float32"),
        args=args,
        train_dataset=dataset(work, completions=True),
        processing_class=AutoProcessor.from_pretrained(path),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def bare_rl(work: Path, model: str, out: str) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from cxr_reason.engines import models

    def constant(completions: list[Any], **columns: Any) -> list[float]:
        return [0.5] * len(completions)

    path = models.resolve(model).path
    args = GRPOConfig(
        output_dir=out, max_steps=STEPS["rl"], per_device_train_batch_size=QUESTIONS * GENERATIONS,
        num_generations=GENERATIONS, max_completion_length=TOKENS, learning_rate=1e-9, lr_scheduler_type="constant",
        beta=0.0, **plain(),
    )  # fmt: skip
    trainer = GRPOTrainer(
        AutoModelForImageTextToText.from_pretrained(path, dtype="float32"),
        reward_funcs=[constant],
        args=args,
        train_dataset=dataset(work, completions=False),
        processing_class=AutoProcessor.from_pretrained(path, padding_side="left"),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def plain() -> dict[str, Any]:
    """TRL's arguments for a CPU and no noise."""
    return {
        "bf16": False, "use_cpu": True, "gradient_checkpointing": False, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "logging_steps": 1, "remove_unused_columns": False, "seed": 0,
        "dataloader_pin_memory": False,
    }  # fmt: skip


def dataset(work: Path, *, completions: bool) -> Any:
    """The chains as TRL takes them, films opened when they are asked for."""
    from datasets import Dataset
    from PIL import Image

    from cxr_reason.engines.prompts import completion_of, prompt_of

    rows = []
    for line in (work / "chains.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        prompt = [{"role": turn.role, "content": turn.text} for turn in prompt_of(record).messages]
        paths = [str(work / image) for image in record["images"]]
        rows.append({"prompt": prompt, "completion": completion_of(record), "images": paths})

    def opened(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        told = {
            "prompt": batch["prompt"],
            "images": [[Image.open(path).convert("RGB") for path in paths] for paths in batch["images"]],
        }
        if completions:
            told["completion"] = [[{"role": "assistant", "content": text}] for text in batch["completion"]]
        return told

    return Dataset.from_list(rows).with_transform(opened)


if __name__ == "__main__":
    main()
