"""Evaluation in mid-run: a fixed sample is answered by the live model and judged by `cxr score`'s own code.

The loss tells how well a model imitates chains; whether it answers and reasons better only its own answers tell. They
are greedy, so a run that is continued tells the same as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cxr_reason import console
from cxr_reason.engines import Sampling
from cxr_reason.engines.prompts import prompt_of
from cxr_reason.films import Films
from cxr_reason.rewards import judge
from cxr_reason.scoring import tables
from cxr_reason.scoring.tally import ALL, Tally, noted
from cxr_reason.training import ranks
from cxr_reason.training.settings import UNREAD

if TYPE_CHECKING:
    from cxr_reason.engines.chat import Chat


class Exam:
    """Questions that a model in training is asked again and again.

    `sample` are records with their films' paths absolute; they are dealt to the processes of the run. `thinks` tells of
    each whether it is asked for its reasoning too.
    """

    def __init__(
        self,
        sample: Sequence[Mapping[str, Any]],
        chat: Chat,
        *,
        films: Films,
        max_tokens: int,
        batch_size: int,
        thinks: Sequence[bool],
        instruction: str | None = None,
    ) -> None:
        self.sample = sample
        self.chat = chat
        self.films = films
        self.sampling = Sampling(max_tokens=max_tokens)
        self.batch_size = batch_size
        self.thinks = thinks
        self.instruction = instruction

    def __call__(self, trainer: Any) -> dict[str, float]:
        """The measures of `cxr score` by name, means over tasks. Every process must ask."""
        from trl.models import unwrap_model_for_generation

        from cxr_reason.engines.transformers import TransformersEngine

        state = trainer.accelerator.state
        mine = self._share(state.process_index, state.num_processes)
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        was_training = trainer.model.training
        trainer.model.eval()
        try:
            with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
                engine = TransformersEngine.around(
                    model, self.chat, batch_size=self.batch_size, synced=sharded and state.num_processes > 1
                )
                done = list(engine.complete((self._prompt(index) for index in mine), self.sampling))
        finally:
            trainer.model.train(was_training)
        notes = [(index, self._note(index, made)) for index, made in zip(mine, done, strict=True)]
        together = dict(ranks.gathered(notes) if state.num_processes > 1 else notes)
        return measures([together[index] for index in sorted(together)])

    def _share(self, rank: int, world: int) -> list[int]:
        """The questions of one process. All get as many: who has one less is asked one that another is asked too."""
        count = -(-len(self.sample) // world)
        return [(rank + world * turn) % len(self.sample) for turn in range(count)]

    def _prompt(self, index: int) -> Any:
        record = self.sample[index]
        images = self.films.of(record, base=None)
        return prompt_of(record, images=images, think=self.thinks[index], instruction=self.instruction)

    def _note(self, index: int, made: Any) -> dict[str, Any]:
        text = made.texts[0] if made.texts else ""
        return noted(judge({**self.sample[index], "prediction": text}))


def measures(notes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The measures of judged items as `cxr score` has them overall, and the share of answers that couldn't be read."""
    tally = Tally(draws=0)
    tally.add(dict(note) for note in notes)
    told = {name: figure["value"] for name, figure in tables.over_tasks(tally, ALL).items()}
    told[UNREAD] = sum(bool(note["unread"]) for note in notes) / max(1, len(notes))
    return {name: float(value) for name, value in told.items() if value is not None}


class Examined:
    """Mixed into a trainer of TRL, in front of it: an evaluation also asks `exam`, and is followed by a checkpoint.

    It leaves torch's random numbers as they were, so that one that is made up for (`make_up`) changes nothing either.
    """

    exam: Exam | None = None
    best_metric: str = "loss"
    with_loss: bool = True
    """Whether the trainer's own evaluation is made too."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        import torch

        with torch.random.fork_rng(enabled=True):
            told: dict[str, float] = super().evaluate(*args, **kwargs) if self.with_loss else {}  # type: ignore[misc]
            if self.exam is not None:
                answered = {f"eval_{name}": value for name, value in self.exam(self).items()}
                self.log(dict(answered))  # type: ignore[attr-defined]
                told |= answered
            if not self.with_loss:  # which the trainer's own would have said
                this: Any = self
                this.control = this.callback_handler.on_evaluate(this.args, this.state, this.control, told)
        name = f"eval_{self.best_metric}"
        if name not in told:
            console.warn(
                f"the evaluation has no {self.best_metric}, which was to tell the best checkpoint: taken for 0"
            )
            told[name] = 0.0
        self.control.should_save = True  # type: ignore[attr-defined]  # or the best would be lost
        return told

    def owes(self) -> bool:
        """Whether the run goes on from a step whose evaluation was left out because a signal had come."""
        args, state = self.args, self.state  # type: ignore[attr-defined]
        due = args.eval_strategy == "steps" and state.global_step and state.global_step % state.eval_steps == 0
        return bool(due) and not any(
            row.get("step") == state.global_step and any(name.startswith("eval_") for name in row)
            for row in state.log_history
        )

    def make_up(self) -> None:
        """Make the evaluation that is owed, at the start of a run that goes on."""
        if self.owes():
            told = self._evaluate(None, None, skip_scheduler=True)  # type: ignore[attr-defined]
            self._determine_best_metric(told, None)  # type: ignore[attr-defined]
            # The checkpoint of this step is there, and the random numbers of this process are not yet the run's.
            self.control.should_save = False  # type: ignore[attr-defined]
