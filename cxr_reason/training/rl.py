"""Reinforcement learning with process rewards, by TRL's GRPOTrainer: what `cxr rl` calls.

The rewards are those of `cxr score` (`cxr_reason.rewards.functions`), and each step of reasoning gets the credit that
its claims earn (`training.credit`). Everything else is as in `cxr sft`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any, cast

from cxr_reason.apart import digest_of
from cxr_reason.engines import models
from cxr_reason.engines.chat import Chat
from cxr_reason.errors import CxrError, InputError
from cxr_reason.rewards.functions import OF_REASONING
from cxr_reason.training import checkpoints, data, rewarding, runs, settings
from cxr_reason.training.refusals import Refusals
from cxr_reason.training.ruler import Ruler
from cxr_reason.training.settings import RlSettings

TRL_GENERATIONS, TRL_TOKENS = 8, 256
"""TRL's own defaults of `num_generations` and `max_completion_length`."""
OF_THE_DATA = ("eval_share", "max_pixels", "instruction", "answer_only_share")
"""Settings that are taken over from the checkpoint that is trained on, unless they are given."""
FILES_ONLY = frozenset(("keep_completions", "strict_rewards"))


class Rl(runs.Stage):
    """`cxr rl`."""

    name = "rl"
    kind = RlSettings
    may_change = runs.MAY_CHANGE | FILES_ONLY
    has_loss = False

    def __init__(self, rewards: Mapping[str, float]) -> None:
        self.shape = data.Shape(completion=False, chains=bool(OF_REASONING & rewards.keys()))

    def config(self) -> Any:
        from trl import GRPOConfig

        return GRPOConfig

    def arguments(self, run: runs.Run, *, world: int) -> dict[str, Any]:
        chosen = cast(RlSettings, run.settings)
        generations = int(chosen.trainer.get("num_generations", TRL_GENERATIONS))
        micro, steps = settings.accumulation(chosen.batch_size * generations, chosen.micro_batch, world=world)
        if chosen.trainer.get("use_vllm") and chosen.trainer.get("vllm_mode", "colocate") == "server":
            _need_gpu("a vLLM server takes new weights over NCCL, which needs a GPU")
        return {
            "per_device_train_batch_size": micro,
            "per_device_eval_batch_size": micro,
            "gradient_accumulation_steps": steps,
            "reward_weights": list(chosen.rewards.values()),
            "log_completions": False,  # TRL's go to stdout and to trackers
        }

    def measure(self, run: runs.Run, chat: Chat, refusals: Refusals) -> data.Measure:
        """A prompt counts with the longest completion that may follow it."""
        ruler = Ruler(chat, refusals)
        longest = int(run.settings.trainer.get("max_completion_length", TRL_TOKENS))
        return lambda messages, completion, images: ruler(messages, completion, images) + longest

    def sift(self, run: runs.Run) -> data.Sift | None:
        """A record that comes with several answers of a model (`cxr infer --n`) shows beforehand how they spread."""
        chosen = cast(RlSettings, run.settings)
        return Spread(chosen) if chosen.min_reward_std else None

    def decides(self, run: runs.Run) -> dict[str, Any]:
        chosen = cast(RlSettings, run.settings)
        if not chosen.min_reward_std:
            return {"min_reward_std": 0.0}
        return {"min_reward_std": chosen.min_reward_std, "rewards": chosen.rewards, "silence": chosen.silence}

    def trainer(self, run: runs.Run, model: Any, adapter: Any, *, args: Any, first: bool, **given: Any) -> Any:
        from trl import GRPOTrainer

        from cxr_reason.training import rollouts
        from cxr_reason.training.evaluation import Examined

        rollouts.silence_trl()
        # TRL pads prompts on the left, and takes what marks a film's tokens in them as the processor pads it.
        getattr(given["processing_class"], "tokenizer", given["processing_class"]).padding_side = "left"
        chosen = cast(RlSettings, run.settings)

        class Trainer(rollouts.Rollouts, Examined, checkpoints.Saving, GRPOTrainer):  # type: ignore[misc]
            """TRL's, with credit by step, our checkpoints and our evaluation."""

            with_loss = False

        Trainer.chosen, Trainer.first = chosen, first
        functions = rewarding.of(chosen)
        if args.use_vllm:
            args.generation_kwargs = {**(args.generation_kwargs or {}), "logit_bias": _no_films(model.config)}
        dtype = "bfloat16" if args.bf16 else "float16" if args.fp16 else chosen.dtype
        with rollouts.colocated(dtype=dtype) if args.use_vllm else contextlib.nullcontext():
            return Trainer(model, reward_funcs=functions, args=args, peft_config=adapter, **given)


class Spread:
    """Tells the records whose ``predictions`` are worth the same within `min_reward_std`."""

    def __init__(self, chosen: RlSettings) -> None:
        self._least = chosen.min_reward_std
        self._rewards = [*zip(rewarding.of(chosen), chosen.rewards.values(), strict=True)]

    def __call__(self, record: Mapping[str, Any], think: bool) -> str | None:
        told = record.get("predictions")
        if not isinstance(told, list) or len(told) < 2 or not all(isinstance(text, str) for text in told):
            return None
        columns = {name: [record.get(name)] * len(told) for name in data.REWARDED} | {"think": [think] * len(told)}
        completions = [[{"role": "assistant", "content": text}] for text in told]
        prompts = [[{"role": "user", "content": record["question"]}]] * len(told)
        sums = [0.0] * len(told)
        for reward, weight in self._rewards:
            for number, value in enumerate(reward(prompts=prompts, completions=completions, **columns)):
                sums[number] += weight * (value or 0.0)
        if (std := stdev(sums)) >= self._least:
            return None
        return f"its {len(told)} predictions are worth the same within {std:.3g}"


def _no_films(config: Any) -> dict[int, float]:
    """What keeps vLLM from writing the token of a film, to which no film would belong; TRL does so for transformers."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    return {int(token): -100.0 for name in names if (token := getattr(config, name, None)) is not None}


def _need_gpu(why: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise CxrError(why, where="--vllm server", hint="Take --vllm colocate, or leave it out.")


@dataclass(frozen=True, slots=True)
class Parent:
    """What a checkpoint of `cxr sft` or `cxr rl` tells of the records that it was trained on."""

    digests: Mapping[str, str]
    """Of each file of records, by its path (`apart.digest_of`)."""
    image_root: Path | None
    settings: Mapping[str, Any]
    """Those of `OF_THE_DATA`."""

    def inputs(self) -> tuple[str, ...]:
        """The files. Raises InputError where one is gone or has changed since."""
        for path, digest in self.digests.items():
            if not Path(path).exists():
                raise InputError(
                    "the records that this checkpoint was trained on are gone",
                    where=path,
                    hint="Name a file: cxr rl FILE.",
                )
            if digest_of(Path(path)) != digest:
                raise InputError(
                    "the records have changed since this checkpoint was trained on them",
                    where=path,
                    hint="Name the file to take it as it is: cxr rl FILE.",
                )
        return tuple(self.digests)


def parent_of(name: str) -> Parent | None:
    """What the ``cxr.json`` of the checkpoint `name` tells; None where there is none."""
    checkpoint = models.resolve(name)
    told = checkpoints.read(checkpoint.adapter or checkpoint.path)
    if told is None or "data" not in told:
        return None
    root, config = told.get("image_root"), told.get("config") or {}
    return Parent(
        {entry["path"]: entry["blake2b"] for entry in told["data"]},
        Path(root) if root else None,
        {name: config[name] for name in OF_THE_DATA if config.get(name) is not None},
    )


def train(run: runs.Run) -> dict[str, Any]:
    """`runs.train` for this stage."""
    return runs.train(Rl(cast(RlSettings, run.settings).rewards), run)
