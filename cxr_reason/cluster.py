"""What a scheduler tells us: which share of the input is ours, and when to stop.

Slurm describes a job array in ``SLURM_ARRAY_TASK_ID``, ``_MIN``, ``_MAX``, ``_STEP`` and ``_COUNT``. The array's
indices need not start at 0 nor be 1 apart (``--array=10-40:10`` is four tasks): the shard is the task's rank in it.
"""

from __future__ import annotations

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self

from cxr_reason.errors import CxrError, Terminated


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (0-based) of `count` equal parts of the input."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise ValueError(f"shard {self}: shards count from 0, so i/n needs 0 <= i < n")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``, as in ``0/4``. Raises ValueError with a sentence for the user."""
        index, slash, count = text.partition("/")
        if not (slash and index.strip().isdecimal() and count.strip().isdecimal()):
            raise ValueError(f"shard {text!r}: write i/n, as in 0/4 for the first of four")
        return cls(int(index), int(count))


def shard_from_environment(environment: Mapping[str, str] | None = None) -> Shard | None:
    """The shard of this Slurm array task, None outside an array.

    Raises CxrError where the array has gaps (``--array=1,3,7``): Slurm tells a task its index and the array's size but
    not its rank, and a guess would mine some studies twice and others never.
    """
    environment = os.environ if environment is None else environment
    task = environment.get("SLURM_ARRAY_TASK_ID")
    if task is None:
        return None
    try:
        first = int(environment["SLURM_ARRAY_TASK_MIN"])
        last = int(environment["SLURM_ARRAY_TASK_MAX"])
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
        count = int(environment["SLURM_ARRAY_TASK_COUNT"])
        rank, rest = divmod(int(task) - first, step)
        whole = rest == 0 and (last - first) // step + 1 == count
        if whole:
            return Shard(rank, count)
    except (KeyError, ValueError, ZeroDivisionError):
        pass
    raise CxrError(
        f"Slurm's variables don't say which part of its array task {task} is (an array with gaps?).",
        hint="Give --shard i/n, 0-based: for example --shard 0/1 for the whole input.",
    )


class Handlers(ABC):
    """Inside its ``with`` block `signals` go to `_arrived`; afterwards to whoever had them before.

    One that is ignored on purpose (nohup, a background job of a script) stays ignored. Outside the main thread, where
    Python allows no handlers, nothing is changed.
    """

    signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @abstractmethod
    def _arrived(self, number: int, frame: FrameType | None) -> None: ...


class StopSignals(Handlers):
    """Turn Ctrl-C and SIGTERM into exceptions that never tear a step in two.

    Inside ``with StopSignals() as signals``, SIGINT raises KeyboardInterrupt and SIGTERM raises `Terminated` at once,
    also out of a blocked read; inside ``with signals.held():`` they wait for the end of the block.
    """

    def __init__(self) -> None:
        super().__init__()
        self._holding = False
        self._pending: int | None = None

    def held(self) -> _Held:
        """A block that runs to its end before a signal that arrives in it is raised."""
        return _Held(self)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._holding:
            self._pending = number
        else:
            self._raise(number)

    def _raise(self, number: int) -> None:
        self._pending = None
        raise Terminated("terminated") if number == signal.SIGTERM else KeyboardInterrupt


class _Held:
    # A class, not @contextmanager: it is entered once a row, and the generator's way costs four times as much.
    __slots__ = ("signals",)

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals

    def __enter__(self) -> None:
        self.signals._holding = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.signals._holding = False
        if error is None and self.signals._pending is not None:
            self.signals._raise(self.signals._pending)
