"""Supervised fine-tuning on chains, by TRL's SFTTrainer: what `cxr sft` calls.

Where we differ from ChestX-Reasoner's reference code (arXiv 2504.20930): sequences are never cut but refused; weights
stay in float32 while bfloat16 computes, as TRL has it; the loss is on the completion alone; the model that is kept is
the one that answered best, not the last.
"""

from __future__ import annotations

from typing import Any

from cxr_reason.engines.chat import Chat
from cxr_reason.training import checkpoints, data, runs, settings
from cxr_reason.training.refusals import Refusals
from cxr_reason.training.ruler import Ruler


class Sft(runs.Stage):
    """`cxr sft`."""

    name = "sft"

    def config(self) -> Any:
        from trl import SFTConfig

        return SFTConfig

    def arguments(self, run: runs.Run, *, world: int) -> dict[str, Any]:
        micro, steps = settings.accumulation(run.settings.batch_size, run.settings.micro_batch, world=world)
        return {
            "per_device_train_batch_size": micro,
            "per_device_eval_batch_size": micro,
            "gradient_accumulation_steps": steps,
            "max_length": None,  # TRL would cut image tokens; we refuse instead
            "completion_only_loss": True,
        }

    def measure(self, run: runs.Run, chat: Chat, refusals: Refusals) -> data.Measure:
        return Ruler(chat, refusals)

    def trainer(self, run: runs.Run, model: Any, adapter: Any, *, args: Any, first: bool, **given: Any) -> Any:
        from trl import SFTTrainer

        from cxr_reason.training.evaluation import Examined

        class Trainer(Examined, checkpoints.Saving, SFTTrainer):  # type: ignore[misc]
            """TRL's, with our checkpoints and our evaluation."""

            def _init_training_state(self, *given: Any, **more: Any) -> Any:
                told = super()._init_training_state(*given, **more)
                seen = [row["num_tokens"] for row in self.state.log_history if "num_tokens" in row]
                self._total_train_tokens = seen[-1] if seen else 0
                return told

        return Trainer(model, args=args, peft_config=adapter, **given)


def train(run: runs.Run) -> dict[str, Any]:
    """`runs.train` for this stage."""
    return runs.train(Sft(), run)
