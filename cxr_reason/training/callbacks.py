"""What goes on beside the steps: signals that save and stop, numbers into ``metrics.jsonl``, progress on stderr.

Only finite numbers pass through here. Whatever else a trainer logs stays out of files and off the terminal, so that no
text of a report can get there.
"""

from __future__ import annotations

import json
import math
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from cxr_reason import console
from cxr_reason.cluster import Handlers
from cxr_reason.sinks import whole
from cxr_reason.training import ranks
from cxr_reason.training.checkpoints import METRICS

LIKE_SPEED = ("_runtime", "_per_second", "total_flos", "_preparation_time")


class StopOnSignal(Handlers, TrainerCallback):  # type: ignore[misc]
    """SIGTERM, SIGUSR1 or Ctrl-C: the step is ended, a checkpoint saved, and training stops, in all processes at once.

    A context manager, which puts the handlers back. `received` is the signal, in the process that got it; `stopped` is
    true in all of them once the run has been stopped for one. A second Ctrl-C doesn't wait.
    """

    signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    """Slurm sends the first when a job's time is up, and the second before where ``--signal=USR1@300`` asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.received: int | None = None
        self.stopped = False

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
        if number == signal.SIGINT:
            console.note("stopping after this step, with a checkpoint; Ctrl-C again stops at once, without one")

    def asked(self) -> bool:
        """Whether a process of the run was asked to stop. All of them must ask this at the same point."""
        self.stopped = self.stopped or ranks.any_of(self.received is not None)
        return self.stopped

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.asked() and state.global_step < state.max_steps:
            control.should_evaluate = False
            control.should_save = True
            control.should_training_stop = True


class Numbers(TrainerCallback):  # type: ignore[misc]
    """Writes what is logged to ``metrics.jsonl``, a line a time, and shows it: loss, tokens a second, memory.

    Lines of steps that a killed run took and that are taken again are cut off first, so the file reads as if nothing
    had happened. Only the first process writes.
    """

    def __init__(self, out: Path, *, name: str, first: bool) -> None:
        self._name = name
        self._path = out / METRICS
        self._first = first
        self._progress: console.Progress | None = None
        self._counted = self._counted_at_start = 0.0
        self._started = time.monotonic()
        self.tokens_per_second: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()
        if not self._first:
            return
        lines = [json.dumps(row) + "\n" for row in read_metrics(self._path) if row["step"] <= state.global_step]
        with whole(self._path) as file:
            file.write("".join(lines).encode())
        self._progress = console.progress(self._name, state.max_steps, unit="steps")
        self._progress.__enter__()
        self._progress.count = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress.advance()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        told = numbers(logs or {})
        self._count(told.get("num_tokens"))
        if not self._first:
            return
        kept = {name: value for name, value in told.items() if not name.endswith(LIKE_SPEED) and name != "train_loss"}
        if kept.keys() - {"epoch"}:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **kept}) + "\n")
        self._show(told, state)

    def _count(self, tokens: float | None) -> None:
        """Note that `tokens` were trained since the run began; the first of these may have been before a kill."""
        if not tokens or tokens <= self._counted:
            return
        if self._progress is not None and self._counted:
            self._progress.also["tokens"] += int(tokens - self._counted)
        self._counted_at_start = self._counted_at_start or tokens
        self._counted = tokens
        if tokens > self._counted_at_start:
            self.tokens_per_second = (tokens - self._counted_at_start) / (time.monotonic() - self._started)

    def _show(self, told: Mapping[str, float | None], state: Any) -> None:
        learnt = next((name for name in ("reward", "loss") if told.get(name) is not None), None)
        if self._progress is not None and learnt:
            self._progress.detail = f"{learnt} {told[learnt]:.3f}  {memory()}"
        measures = [
            f"{name.removeprefix('eval_')} {value:.3f}"
            for name, value in told.items()
            if name in ("eval_loss", "eval_accuracy", "eval_radrscore", "eval_balanced_radrscore") and value is not None
        ]
        if measures:
            speed = f"{self.tokens_per_second:,.0f} tokens/s  " if self.tokens_per_second else ""
            last: Mapping[str, float] = next((row for row in reversed(state.log_history) if "loss" in row), {})
            shown = "reward" if "reward" in last else "loss"
            trained = f"{shown} {last[shown]:.3f}  {speed}" if shown in last else ""
            console.note(
                f"step {state.global_step:,} of {state.max_steps:,}: {trained}evaluation {', '.join(measures)}"
            )

    def close(self) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None


class AtStart(TrainerCallback):  # type: ignore[misc]
    """Does `work` when training begins, after what was saved of the run has been loaded."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._work()


def numbers(logs: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of `logs`; None for one that is no number (NaN), and nothing of what isn't one at all."""
    told: dict[str, float | None] = {}
    for name, value in logs.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            told[name] = value if math.isfinite(value) else None
    return told


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; a torn last one is left out."""
    rows = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def memory() -> str:
    """The most memory that was in use at once: the GPU's where there is one, else this process's."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{most / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"
