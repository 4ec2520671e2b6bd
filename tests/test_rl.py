"""`cxr rl`: real runs of GRPO on phantoms, after `cxr sft`, that end with a model, are killed and go on."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import environment
from small_models import vision_model
from trainings import Done, Training, chains, read, torchrun, weights, write

from cxr_reason.errors import CxrError
from cxr_reason.training import checkpoints, data, rollouts, settings
from cxr_reason.training.rl import Rl
from cxr_reason.training.settings import RlSettings

pytestmark = pytest.mark.xdist_group("rl")  # one worker draws the phantoms, once

CANARY = "quokkazebra"
STEPS, GENERATIONS = 4, 4
COMMON = (
    *("--recipe", "tiny", "--max-steps", str(STEPS), "--batch-size", "2", "--num-generations", str(GENERATIONS)),
    *("--max-tokens", "16", "--save-every", "1", "--eval-every", "2", "--eval-items", "3", "--set", "eval_tokens=8"),
    *("--eval-share", "20%"),
)
# An untrained model earns nothing by its answers: what it earns here is for words that it does write.
REWARDS = ("--reward", "format=1", "--reward", "process=1", "--reward", "small_rewards:variety=1")
LORA = ("--lora", "4", "--set", "lora_dropout=0")
MODELS = {"full": (), "lora": LORA}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model/``, ``films/chains.jsonl``, whose reports hold the canary's name, and our own rewards."""
    folder = tmp_path_factory.mktemp("rl")
    vision_model(folder / "model")
    records = read(chains(folder / "films", 24))
    for record in records:
        record["report"] += f" Exam read by Dr. {CANARY}."
    write(folder / "films" / "chains.jsonl", records)
    (folder / "small_rewards.py").write_text(
        "def variety(completions, **columns):\n"
        "    return [len(set(turns[0]['content'])) / 40 for turns in completions]\n"
        "def failing(completions, report, **columns):\n"
        "    raise RuntimeError(report[0])\n"
        "def constant(completions, **columns):\n"
        "    return [0.5] * len(completions)\n"
    )
    return folder


def rl(world: Path, log: Path, out: Path, *more: str, model: str | None = None, **variables: str) -> Training:
    arguments = (str(world / "films" / "chains.jsonl"), "--ckpt", model or str(world / "model"), "-o", str(out))
    return Training(
        log, *arguments, *COMMON, *(() if "--reward" in more else REWARDS), *more, command="rl",
        PYTHONPATH=f"{world}{os.pathsep}{environment()['PYTHONPATH']}", **variables,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(world: Path) -> dict[str, tuple[Path, Done]]:
    """A run of each kind that nobody disturbed."""
    found = {}
    for kind, more in MODELS.items():
        out = world / f"whole-{kind}"
        found[kind] = out, rl(world, world / f"log-{kind}", out, *more, "--report-to", "tensorboard").wait()
    return found


def curve(out: Path) -> list[dict[str, Any]]:
    """What was logged, without what a clock told."""
    return [
        {name: value for name, value in row.items() if not name.endswith("_time")}
        for row in read(out / "metrics.jsonl")
    ]


# ---------------------------------------------------------------------------------------------------------- a whole run


@pytest.mark.parametrize("kind", MODELS)
def test_a_run_ends_with_a_model_and_one_line(whole: dict[str, tuple[Path, Done]], world: Path, kind: str) -> None:
    out, done = whole[kind]
    assert done.code == 0, done.stderr
    assert done.result["checkpoint"] == str(out)
    assert done.result["step"] == STEPS
    metrics = done.result["metrics"]
    assert {"reward", "rewards/variety/mean", "rewards/format/mean", "reward_time", "generation_time", "step_time",
            "credit/tokens_in_steps", "eval_accuracy", "eval_balanced_radrscore"} <= {
        name.replace("small_rewards:", "") for name in metrics
    }  # fmt: skip
    told = checkpoints.read(out)
    assert told
    assert told["stage"] == "rl"
    assert told["parent"]["path"] == str(world / "model")
    assert checkpoints.fault(out) is None
    steps = [row["step"] for row in read(out / "metrics.jsonl") if "reward" in row]
    assert steps == list(range(1, STEPS + 1))
    evaluated = [row["step"] for row in read(out / "metrics.jsonl") if "eval_accuracy" in row]
    assert evaluated == [2, 4]
    moved = weights(out)
    assert moved.keys() == (weights(world / "model").keys() if kind == "full" else moved.keys())
    if kind == "full":
        assert any((moved[name] != before).any() for name, before in weights(world / "model").items())


def test_completions_are_kept_with_their_rewards(whole: dict[str, tuple[Path, Done]], world: Path) -> None:
    from pyarrow import parquet

    out, _ = whole["full"]
    files = sorted((out / checkpoints.COMPLETIONS).glob("*.parquet"))
    assert [file.name for file in files] == [f"step-{step:06d}.parquet" for step in range(STEPS)]
    known = {record["id"] for record in read(world / "films" / "chains.jsonl")}
    for file in files:
        rows = parquet.read_table(file).to_pylist()
        assert len(rows) == 2 * GENERATIONS
        assert {row["id"] for row in rows} <= known
        for group in (rows[:GENERATIONS], rows[GENERATIONS:]):
            assert len({row["id"] for row in group}) == 1
            assert sum(row["advantage"] for row in group) == pytest.approx(0, abs=1e-4)
        for row in rows:
            assert row["reward"] == pytest.approx(sum(value or 0 for value in row["rewards"].values()), abs=1e-5)


def test_no_text_of_a_report_leaves_the_data(whole: dict[str, tuple[Path, Done]]) -> None:
    for out, done in whole.values():
        assert CANARY not in done.stdout + done.stderr
        files = [path for path in out.rglob("*") if path.is_file() and path.parent.name != data.FOLDER]
        assert any("tfevents" in path.name for path in files)
        assert not [path for path in files if CANARY.encode() in path.read_bytes()]
        assert [path for path in (out / data.FOLDER).iterdir() if CANARY.encode() in path.read_bytes()]


def test_a_reward_that_fails_does_not_stop_the_run(world: Path, tmp_path: Path) -> None:
    more = ("--reward", "small_rewards:failing=1", "--max-steps", "1", "--eval-items", "0")
    done = rl(world, tmp_path / "log", tmp_path / "out", *more).wait()
    assert done.code == 0, done.stderr
    assert "the reward small_rewards:failing raised RuntimeError on item" in done.stderr
    assert CANARY not in done.stderr + done.stdout
    strict = rl(world, tmp_path / "log2", tmp_path / "out2", *more, "--strict-rewards").wait()
    assert strict.code == 1
    assert "raised RuntimeError on item" in strict.stderr
    assert CANARY not in strict.stderr + strict.stdout


def test_groups_without_spread_are_left_out(world: Path, tmp_path: Path) -> None:
    more = ("--reward", "small_rewards:constant=1", "--min-reward-std", "0.01", "--max-steps", "1", "--eval-items", "0")
    done = rl(world, tmp_path / "log", tmp_path / "out", *more).wait()
    assert done.code == 0, done.stderr
    assert done.result["metrics"]["groups_left_out"] == 1.0
    assert done.result["metrics"]["loss"] == 0.0
    before, after = weights(world / "model"), weights(tmp_path / "out")
    assert all((before[name] == after[name]).all() for name in before)


def test_questions_that_teach_nothing_are_left_out_beforehand(world: Path, tmp_path: Path) -> None:
    mine = [record for record in read(world / "films" / "chains.jsonl") if record["split"] != "test"]
    same, wrong = ([f"<think>a</think><answer>{record['answer']}</answer>"] * 2 for record in mine[:2])
    tried = [{**mine[0], "predictions": same}, {**mine[1], "predictions": [wrong[0], "no"]}, *mine[2:]]
    source = write(world / "films" / "tried.jsonl", tried)
    more = ("--min-reward-std", "0.01", "--max-steps", "1", "--eval-items", "0", "--rejects", str(tmp_path / "rejects"))
    arguments = (str(source), "--ckpt", str(world / "model"), "-o", str(tmp_path / "out"), *COMMON, *more)
    done = Training(tmp_path / "log", *arguments, "--eval-share", "0", command="rl").wait()
    assert done.code == 0, done.stderr
    assert "left out: 1 whose answers are worth the same" in done.stderr
    (left_out,) = read(tmp_path / "rejects")
    assert left_out["id"] == mine[0]["id"]
    assert left_out["reasons"] == [{"check": "spread", "message": "its 2 predictions are worth the same within 0"}]


def test_a_model_is_trained_on_what_it_was_trained_on(world: Path, tmp_path: Path) -> None:
    """sft, then rl with nothing but its folder; then on with the LoRA that came of it."""
    source = shutil.copy(world / "films" / "chains.jsonl", world / "films" / "copy.jsonl")
    out = tmp_path / "sft"
    sft = Training(
        tmp_path / "log", str(source), "--model", str(world / "model"), "-o", str(out), "--recipe", "tiny", *LORA,
        *("--max-steps", "1", "--batch-size", "2", "--eval-every", "0", "--eval-share", "20%"),
    ).wait()  # fmt: skip
    assert sft.code == 0, sft.stderr
    arguments = ("--ckpt", str(out), *COMMON, "--max-steps", "1", "--beta", "0.04")
    done = Training(tmp_path / "log1", *arguments, command="rl").wait()
    assert done.code == 0, done.stderr
    assert f"trained on what {out} was trained on" in done.stderr
    reinforced = tmp_path / "sft-rl"
    assert done.result["checkpoint"] == str(reinforced)
    assert weights(reinforced).keys() == weights(out).keys()
    assert not (reinforced / "ref").exists()
    with open(source, "a", encoding="utf-8") as file:
        file.write("\n")
    changed = Training(tmp_path / "log2", *arguments, "--force", command="rl").wait()
    assert changed.code == 1
    assert "the records have changed" in changed.stderr
    Path(source).unlink()
    gone = Training(tmp_path / "log3", *arguments, "--force", command="rl").wait()
    assert gone.code == 1
    assert "are gone" in gone.stderr


# ---------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("kind", MODELS)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    whole: dict[str, tuple[Path, Done]], world: Path, tmp_path: Path, kind: str
) -> None:
    dice = random.Random(kind)
    out = tmp_path / "out"
    for attempt in range(3):
        saved = max((step for step, _ in checkpoints.numbered(out)), default=0)
        if saved >= STEPS:
            break
        rl(world, tmp_path / f"log{attempt}", out, *MODELS[kind]).when(
            lambda saved=saved: any(step > saved for step, _ in checkpoints.numbered(out)),
            kill=signal.SIGKILL,
            delay=dice.uniform(0, 0.3),
        )
    done = rl(world, tmp_path / "last", out, *MODELS[kind]).wait()
    assert done.code == 0, done.stderr
    undisturbed, _ = whole[kind]
    assert curve(out) == curve(undisturbed)
    ours, theirs = weights(out), weights(undisturbed)
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_sigterm_saves_and_exits_with_143(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = rl(world, tmp_path / "log", out, "--max-steps", "500")
    done = run.when(lambda: checkpoints.numbered(out), kill=signal.SIGTERM)
    assert done.code == 143, done.stderr
    assert done.stdout == ""
    assert checkpoints.newest(out) is not None


# ------------------------------------------------------------------------------------------------------------ processes


def test_two_processes_share_a_step(world: Path, tmp_path: Path) -> None:
    """By torchrun: groups span the processes, and rewards, verdicts and completions come together."""
    from pyarrow import parquet

    out = tmp_path / "out"
    done = torchrun(
        "rl", str(world / "films" / "chains.jsonl"), "--ckpt", str(world / "model"), "-o", str(out), *COMMON, *REWARDS,
        *("--batch-size", "1", "--num-generations", "4", "--max-steps", "2"),
        PYTHONPATH=f"{world}{os.pathsep}{environment()['PYTHONPATH']}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 2
    for file in sorted((out / checkpoints.COMPLETIONS).glob("*.parquet")):
        rows = parquet.read_table(file).to_pylist()
        assert len(rows) == 4
        assert len({row["id"] for row in rows}) == 1
        rewards = [row["reward"] for row in rows]
        mean = sum(rewards) / 4
        std = math.sqrt(sum((value - mean) ** 2 for value in rewards) / 3)
        for row in rows:
            assert row["advantage"] == pytest.approx((row["reward"] - mean) / (std + 1e-4), abs=1e-3)


# ----------------------------------------------------------------------------------------------------------------- vLLM


@pytest.mark.vllm
@pytest.mark.xdist_group("models")  # one vLLM at a time
def test_colocated_vllm_samples_what_is_trained(world: Path, tmp_path: Path) -> None:
    """Twenty steps: the policy that samples is the one that is trained, by its probabilities.

    Of the model that comes with the package: an untrained one would write a film's token once in 256, which vLLM may
    not.
    """
    more = ("--vllm", "colocate", "--max-steps", "20", "--set", "vllm_gpu_memory_utilization=0.3", "--eval-items", "0")
    done = rl(
        world, tmp_path / "log", tmp_path / "out", *more, "--save-every", "20", model="tiny",
        VLLM_CPU_KVCACHE_SPACE="1",
    ).wait(600)  # fmt: skip
    assert done.code == 0, done.stderr
    rows = [row for row in read(tmp_path / "out" / "metrics.jsonl") if "reward" in row]
    assert len(rows) == 20
    for row in rows:
        assert row["sampling/sampling_logp_difference/mean"] < 1e-3
        assert row[rollouts.RATIO] == pytest.approx(1, abs=0.02)


def test_a_ratio_out_of_bounds_ends_the_run() -> None:
    class Told(rollouts.Rollouts):
        def __init__(self, *ratios: float) -> None:
            self._metrics = {"train": {rollouts.RATIO: list(ratios)}}

    Told()._check_ratio()
    Told(0.003, 1.0)._check_ratio()
    with pytest.raises(CxrError, match="disagree"):
        Told(1.0, 0.003)._check_ratio()


# ------------------------------------------------------------------------------------------------------------- settings


def test_settings_of_its_own() -> None:
    told = Rl({}).settings(recipe="chestx-reasoner", flags={"rewards": {"accuracy": 2.0}})
    assert isinstance(told, RlSettings)
    assert told.rewards == {"accuracy": 2.0}
    assert (told.batch_size, told.trainer["num_generations"], told.trainer["learning_rate"]) == (256, 8, 5e-7)
    assert told.trainer["beta"] == told.trainer["entropy_coef"] == 0.001


@pytest.mark.parametrize(
    "sets",
    [
        {"best_metric": "loss"},
        {"credit": "token"},
        {"step_weight": -1},
        {"rewards": {}},
        {"reward_weights": [1]},
        {"num_generation": 4},
    ],
)
def test_settings_that_cannot_be_are_refused(sets: dict[str, Any]) -> None:
    with pytest.raises(CxrError):
        Rl({}).settings(sets=sets)


def test_a_batch_counts_questions_however_it_is_dealt() -> None:
    assert settings.accumulation(8 * 8, 64, world=1) == (64, 1)
    assert settings.accumulation(8 * 8, 16, world=2) == (16, 2)
