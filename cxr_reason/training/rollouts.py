"""What `cxr rl` adds to TRL's GRPOTrainer: credit by step, what is written of completions, and what TRL gets wrong.

Mixed into the trainer in front of it. TRL generates, rewards and normalises; here its batch gets advantages by token
(`training.credit`), questions whose completions are all worth the same leave the step, and every completion goes with
its rewards and verdicts to ``completions/`` as Parquet.

**Films and vLLM.** TRL 1.16 hands vLLM prompts whose image tokens are expanded already, with the images, and vLLM
expands them again: the policy that samples sees another prompt than the one that is trained, importance ratios fall to
0.003, gradients vanish, and nothing says so. Here vLLM gets one placeholder an image, as it wants. And vLLM keeps what
its vision tower made of a film, which TRL doesn't clear when it brings new weights: a film that comes again is seen
with old ones. Here it forgets. Whatever the cause, a run whose mean importance ratio leaves `RATIOS` ends with an
error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from cxr_reason import environment
from cxr_reason.errors import CxrError
from cxr_reason.rewards import process
from cxr_reason.rewards.functions import examined, texts
from cxr_reason.sinks import whole
from cxr_reason.training import checkpoints, credit, ranks

if TYPE_CHECKING:
    from torch import Tensor

    from cxr_reason.training.settings import RlSettings

RATIOS = (0.5, 2.0)
"""Where the mean importance ratio of sampled tokens must lie: of two engines with the same weights it is 1."""
RATIO = "sampling/importance_sampling_ratio/mean"


class Rollouts:
    """Mixed into TRL's GRPOTrainer, in front of it."""

    chosen: RlSettings
    first: bool = True
    """Whether this process writes files."""
    _rewarded: dict[str, Any]

    # ------------------------------------------------------------------------------------------------------ generation

    def _generate(self, prompts: list[Any]) -> Any:
        started = time.perf_counter()
        told = super()._generate(prompts)  # type: ignore[misc]
        self._note("generation_time", time.perf_counter() - started)
        return told

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        told = super()._tokenize_prompts(prompts)  # type: ignore[misc]
        if self.use_vllm and told[1] is not None:  # type: ignore[attr-defined]
            self._with_placeholders = self._unexpanded(prompts)
        return told

    def _unexpanded(self, prompts: list[Any]) -> list[list[int]]:
        """The tokens of `prompts` with one placeholder an image."""
        from trl.data_utils import prepare_multimodal_messages

        written = self.processing_class.apply_chat_template(  # type: ignore[attr-defined]
            conversation=[prepare_multimodal_messages(prompt) for prompt in prompts],
            chat_template=self.chat_template,  # type: ignore[attr-defined]
            add_generation_prompt=True,
            tokenize=False,
            **self.chat_template_kwargs,  # type: ignore[attr-defined]
        )
        ids: list[list[int]] = self._tokenizer(written, add_special_tokens=False)["input_ids"]  # type: ignore[attr-defined]
        return ids

    def _generate_single_turn(self, prompt_ids: Any, images: Any, *given: Any, **more: Any) -> Any:
        if self.use_vllm and images is not None:  # type: ignore[attr-defined]
            prompt_ids = self._with_placeholders
            self._forget_films()
        return super()._generate_single_turn(prompt_ids, images, *given, **more)  # type: ignore[misc]

    def _forget_films(self) -> None:
        """Let vLLM see films with the weights that it is about to get: it keeps what its vision tower made of them."""
        if self.vllm_mode == "colocate" and self.state.global_step != self._last_loaded_step:  # type: ignore[attr-defined]
            self.vllm_generation.llm.llm_engine.engine_core.reset_encoder_cache()  # type: ignore[attr-defined]

    # --------------------------------------------------------------------------------------------------------- rewards

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        import torch

        started = time.perf_counter()
        told: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # type: ignore[misc]
        written = texts(completions)
        steps = self._steps(inputs, written) if self.chosen.credit == "step" or self.chosen.keep_completions else []
        self._note("reward_time", time.perf_counter() - started)
        # As TRL sums them; what no reward applies to is worth nothing, and its group's spread is that of the others.
        weighted = told * self.reward_weights.to(told.device)  # type: ignore[attr-defined]
        sums = weighted.nansum(dim=1)
        groups = sums.view(-1, self.num_generations)  # type: ignore[attr-defined]
        std = groups.std(dim=1).repeat_interleave(self.num_generations)  # type: ignore[attr-defined]
        mine = slice(
            self.accelerator.process_index * len(prompts),  # type: ignore[attr-defined]
            (self.accelerator.process_index + 1) * len(prompts),  # type: ignore[attr-defined]
        )
        self._rewarded = {
            "ids": completion_ids_list, "texts": written, "steps": steps, "std": std[mine], "values": told[mine],
            "sums": sums[mine], "about": [(row.get("id"), bool(row.get("think", True))) for row in inputs],
            "spread": torch.as_tensor(std[mine] >= self.chosen.min_reward_std),
        }  # fmt: skip
        return told

    def _steps(self, inputs: Sequence[Mapping[str, Any]], written: Sequence[str]) -> list[list[process.Step]]:
        """The steps of each completion with their verdicts; none where no reasoning is asked."""
        columns = {name: [row.get(name) for row in inputs] for name in inputs[0]}
        told = examined(written, silence=self.chosen.silence, **columns)
        return [
            process.steps(one, text) if row.get("think", True) else []
            for one, text, row in zip(told, written, inputs, strict=True)
        ]

    # ------------------------------------------------------------------------------------------------------ advantages

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        made: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        told = self._rewarded
        self._check_ratio()
        advantages = made["advantages"]
        if self.chosen.credit == "step":
            made["advantages"] = self._by_step(advantages, made["completion_ids"].size(1))
        if self.chosen.min_reward_std:
            self._leave_out(made, told["spread"])
        if self.chosen.keep_completions:
            self._write(advantages)
        return made

    def _by_step(self, advantages: Tensor, length: int) -> Tensor:
        import torch

        told = self._rewarded
        credits = torch.zeros((len(told["texts"]), length))
        inside = 0
        rows = zip(told["ids"], told["texts"], told["steps"], self._credits(told["steps"]), strict=True)
        for row, (ids, text, steps, values) in enumerate(rows):
            if steps:
                spans = credit.token_spans(self._tokenizer, ids, text)  # type: ignore[attr-defined]
                found = credit.by_token(spans, steps, values)
                credits[row, : len(ids)] = torch.tensor([value or 0.0 for value in found])
                inside += sum(value is not None for value in found)
        std = told["std"] if self.scale_rewards != "none" else torch.ones_like(told["std"])  # type: ignore[attr-defined]
        by_step = credit.by_step(advantages, credits.to(advantages.device), std, weight=self.chosen.step_weight)
        self._note("credit/tokens_in_steps", inside / max(1, sum(map(len, told["ids"]))))
        self._note("credit/mean_correction", float((by_step - advantages.unsqueeze(1)).abs().mean()))
        return by_step

    def _credits(self, mine: Sequence[Sequence[process.Step]]) -> list[list[float]]:
        """What the steps of our completions are worth beside those of their groups, which may span processes."""
        told = [[step.claims for step in steps] for steps in mine]
        together = [row for part in ranks.gathered([told]) for row in part]
        size = self.num_generations  # type: ignore[attr-defined]
        worth = [
            row for start in range(0, len(together), size) for row in credit.relative(together[start : start + size])
        ]
        first = self.accelerator.process_index * len(mine)  # type: ignore[attr-defined]
        return worth[first : first + len(mine)]

    def _leave_out(self, made: dict[str, Any], spread: Tensor) -> None:
        """Take the completions of groups without spread out of the loss, and of what it is divided by."""
        import torch

        kept = made.get("tool_mask", torch.ones_like(made["completion_mask"])) * spread.unsqueeze(1).long()
        made["tool_mask"] = kept
        tokens = (made["completion_mask"] * kept).sum()
        made["num_items_in_batch"] = self.accelerator.gather(tokens).sum()  # type: ignore[attr-defined]
        self._note("groups_left_out", float(1 - spread.float().mean()))

    def _check_ratio(self) -> None:
        """Raise CxrError where the policy that samples is another than the one that is trained."""
        seen = self._metrics["train"].get(RATIO)  # type: ignore[attr-defined]
        if seen and not RATIOS[0] <= seen[-1] <= RATIOS[1]:
            raise CxrError(
                f"the mean importance ratio is {seen[-1]:.3g}: vLLM and the trainer disagree on what was sampled, and "
                "learning from it would go nowhere",
                where="vllm",
                hint="Leave --vllm out: transformers then generates. If it goes well so, please report it.",
            )

    def _note(self, name: str, value: float) -> None:
        mode = "train" if self.model.training else "eval"  # type: ignore[attr-defined]
        self._metrics[mode][name].append(value)  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------------------------------------------ files

    def _write(self, advantages: Tensor) -> None:
        """The completions of this step to ``completions/``, from all processes."""
        told = self._rewarded
        names = self.reward_func_names  # type: ignore[attr-defined]
        rows = []
        for number, (identity, think) in enumerate(told["about"]):
            values = told["values"][number].tolist()
            steps = told["steps"][number]
            rows.append(
                {
                    "step": self.state.global_step,  # type: ignore[attr-defined]
                    "id": identity,
                    "think": think,
                    "completion": told["texts"][number],
                    "tokens": len(told["ids"][number]),
                    "rewards": {
                        name: None if value != value else value for name, value in zip(names, values, strict=True)
                    },
                    "reward": float(told["sums"][number]),
                    "advantage": float(advantages[number]),
                    "steps": [{"start": one.start, "end": one.end, "verdict": one.verdict} for one in steps],
                }
            )
        rows = [row for part in ranks.gathered([rows]) for row in part]
        if self.first:
            folder = Path(self.args.output_dir) / checkpoints.COMPLETIONS  # type: ignore[attr-defined]
            folder.mkdir(exist_ok=True)
            write(folder / f"step-{self.state.global_step:06d}.parquet", rows, names)  # type: ignore[attr-defined]


def write(path: Path, rows: Sequence[Mapping[str, Any]], rewards: Sequence[str]) -> None:
    """Completions as a Parquet file, which appears whole."""
    import pyarrow as pa
    from pyarrow import parquet

    step = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("verdict", pa.float32())])
    schema = pa.schema(
        [
            ("step", pa.int64()), ("id", pa.string()), ("think", pa.bool_()), ("completion", pa.string()),
            ("tokens", pa.int32()), ("rewards", pa.struct([(name, pa.float32()) for name in rewards])),
            ("reward", pa.float32()), ("advantage", pa.float32()), ("steps", pa.list_(step)),
        ]
    )  # fmt: skip
    with whole(path) as file:
        parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), file, compression="zstd")


@contextlib.contextmanager
def colocated(*, dtype: str) -> Iterator[None]:
    """Inside, the vLLM that TRL starts computes in `dtype`, compiles nothing on a CPU, and logs to stderr and little.

    TRL leaves the type to vLLM, which makes bfloat16 of float32: of other numbers than the trainer's. And on a CPU vLLM
    packs weights for oneDNN and lets go of the originals, so that new ones could not be loaded: there it is to multiply
    by torch.
    """
    from trl.generation import vllm_generation

    from cxr_reason.engines.vllm import set_up

    set_up()
    more: dict[str, Any] = {"dtype": dtype}
    if not environment.gpus():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # or its weights are another process's
        more["enforce_eager"] = True  # compiling for a CPU takes minutes and gains little
    with contextlib.ExitStack() as stack:
        if not environment.gpus():
            from vllm import _custom_ops
            from vllm.model_executor.layers import utils

            stack.enter_context(mock.patch.object(_custom_ops, "_supports_onednn", False))
            stack.enter_context(mock.patch.object(utils, "check_cpu_sgl_kernel", return_value=False))
        theirs = partial(vllm_generation.LLM, **more)
        stack.enter_context(mock.patch.object(vllm_generation, "LLM", theirs))
        yield


def silence_trl() -> None:
    """Keep TRL's trainer from logging rows: where no reward applies to a completion it tells all of its item, the
    report included, as a warning.
    """
    logging.getLogger("trl.trainer.grpo_trainer").setLevel(logging.ERROR)
