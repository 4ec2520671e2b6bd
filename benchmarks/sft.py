"""What a step of `cxr sft` costs beside that of a bare TRL script: same data, same settings, interleaved pairs.

    python benchmarks/sft.py --pairs 7

Both are processes of their own and train the tiny model on the same phantoms; the time from step to step is taken by a
callback that both get, the first ten steps left out. The bare script is what TRL's documentation shows for films: a
dataset with a transform that opens them, SFTConfig, SFTTrainer, train. Printed: the median of the pairs' ratios of mean
step times, and the 95 % bootstrap interval of that median.
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

STEPS, WARM = 60, 10
BATCH = 16
RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "cxr-sft")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--one", choices=["cxr", "bare"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(timed(options.one, options.work, options.model)))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    chains(options.work)
    ratios = []
    for pair in range(options.pairs):
        order = ["cxr", "bare"] if pair % 2 else ["bare", "cxr"]
        times = {name: measured(name, options.work, options.model) for name in order}
        ratios.append(times["cxr"] / times["bare"])
        print(
            f"pair {pair + 1}: cxr {times['cxr']:.4f} s, bare TRL {times['bare']:.4f} s a step, ratio {ratios[-1]:.3f}"
        )
        sys.stdout.flush()
    dice = random.Random(0)
    medians = sorted(statistics.median(dice.choices(ratios, k=len(ratios))) for _ in range(10_000))
    print(
        f"median ratio {statistics.median(ratios):.3f} [{medians[250]:.3f}, {medians[9750]:.3f}], {len(ratios)} pairs"
    )


def measured(name: str, work: Path, model: str) -> float:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, __file__, "--one", name, "--work", str(work), "--model", model],
        capture_output=True, encoding="utf-8", env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"},
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


def timed(name: str, work: Path, model: str) -> float:
    """Mean seconds from step to step."""
    import transformers

    moments: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            moments.append(time.perf_counter())

    transformers.trainer.DEFAULT_CALLBACKS.append(Clock)
    with tempfile.TemporaryDirectory(dir=work) as out:
        (ours if name == "cxr" else bare)(work, model, out)
    return (moments[-1] - moments[WARM]) / (len(moments) - 1 - WARM)


def ours(work: Path, model: str, out: str) -> None:
    from cxr_reason.training import settings, sft

    chosen = settings.resolve(
        "sft", known=sft.known(), recipe="tiny", flags={"max_steps": STEPS, "batch_size": BATCH, "eval_share": 0}
    )
    sft.train(sft.Run(inputs=[str(work / "chains.jsonl")], model=model, out=Path(out), settings=chosen))


def bare(work: Path, model: str, out: str) -> None:
    from datasets import Dataset
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from cxr_reason.engines import models
    from cxr_reason.engines.prompts import completion_of, prompt_of
    from cxr_reason.training import settings

    rows = []
    for line in (work / "chains.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        prompt = [{"role": turn.role, "content": turn.text} for turn in prompt_of(record).messages]
        paths = [str(work / image) for image in record["images"]]
        rows.append({"prompt": prompt, "completion": completion_of(record), "images": paths})

    def opened(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {
            "prompt": batch["prompt"],
            "completion": [[{"role": "assistant", "content": text}] for text in batch["completion"]],
            "images": [[Image.open(path).convert("RGB") for path in paths] for paths in batch["images"]],
        }

    recipe = settings.recipes("sft")["tiny"]
    path = models.resolve(model).path
    args = SFTConfig(
        output_dir=out, max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=RATE,
        lr_scheduler_type=recipe["lr_scheduler_type"], warmup_steps=recipe["warmup_steps"], bf16=False, use_cpu=True,
        gradient_checkpointing=False, max_length=None, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_steps=1, remove_unused_columns=False, seed=0, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        AutoModelForImageTextToText.from_pretrained(path, dtype="float32"),
        args=args,
        train_dataset=Dataset.from_list(rows).with_transform(opened),
        processing_class=AutoProcessor.from_pretrained(path),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


if __name__ == "__main__":
    main()
