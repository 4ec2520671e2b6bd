"""What a scheduler tells us: which share of the input is ours, which process of a run we are, where there is room for
temporary files, how many processors are ours, and when to stop. Nothing else in cxr asks for Slurm's variables.

*Shards.* Slurm describes a job array in ``SLURM_ARRAY_TASK_ID``, ``_MIN``, ``_MAX``, ``_STEP`` and ``_COUNT``. The
array's indices need not start at 0 nor be 1 apart (``--array=10-40:10`` is four tasks): the shard is the task's rank in
it. What Slurm doesn't tell is whether an array is a whole: ``--array=3`` may be the one task of a run that failed, and
would then take the whole input. ``CXR_SHARDS=8`` says of how many shards indices are, and then any of them may be
there: shard 3 is task 3.

*Ranks.* torchrun and accelerate set RANK, LOCAL_RANK and WORLD_SIZE. Where srun alone has started several tasks, its
own variables say the same. Nothing here starts a process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
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


SHARDS = "CXR_SHARDS"


def shard_from_environment(environment: Mapping[str, str] | None = None) -> Shard | None:
    """The shard of this Slurm array task, None outside an array.

    Raises CxrError where that isn't sure: an array with gaps (``--array=1,3,7``) or of a single task, without
    CXR_SHARDS. A guess would take some studies twice and others never.
    """
    environment = os.environ if environment is None else environment
    task = environment.get("SLURM_ARRAY_TASK_ID")
    if task is None:
        return None
    whole = environment.get(SHARDS)
    try:
        index = int(task)
        if whole:
            return Shard(index, int(whole))
        first = int(environment["SLURM_ARRAY_TASK_MIN"])
        last = int(environment["SLURM_ARRAY_TASK_MAX"])
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
        count = int(environment["SLURM_ARRAY_TASK_COUNT"])
        rank, rest = divmod(index - first, step)
        if count > 1 and rest == 0 and (last - first) // step + 1 == count:
            return Shard(rank, count)
    except (KeyError, ValueError, ZeroDivisionError):
        pass
    if whole:
        told = f"its index is {task}, and {SHARDS} is {whole}: indices go from 0 to {SHARDS} - 1"
    else:
        told = f"Slurm doesn't tell whether the array is whole (it has gaps, or this task alone) without {SHARDS}"
    raise CxrError(
        f"it isn't clear which part of the input array task {task} is: {told}",
        hint=f"Say of how many shards these are: {SHARDS}=8 sbatch --array=1,3,7 …; or give --shard i/n, 0-based.",
    )


RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def ranks_from_environment(environment: MutableMapping[str, str] | None = None) -> tuple[int, int]:
    """(rank, processes) as a launcher tells them, (0, 1) without one.

    Where it is srun alone, RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set in `environment` for
    torch, as Slurm tells them. Raises CxrError where a launcher tells only half.
    """
    environment = os.environ if environment is None else environment
    there = [name for name in RANKS if name in environment]
    # A batch script has SLURM_PROCID and SLURM_NTASKS too; this one is of what srun starts.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if not there and tasks > 1:
        environment.update(RANK=environment["SLURM_PROCID"], LOCAL_RANK=environment["SLURM_LOCALID"])
        environment["WORLD_SIZE"] = str(tasks)
        if "MASTER_ADDR" not in environment:
            environment["MASTER_ADDR"] = _first_host(environment)
        environment.setdefault("MASTER_PORT", str(20_000 + int(environment.get("SLURM_JOB_ID", "0")) % 10_000))
    elif not there:
        return 0, 1
    elif len(there) < len(RANKS):
        missing = ", ".join(name for name in RANKS if name not in there)
        raise CxrError(
            f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} set and {missing} not, so it isn't clear whether "
            "this is one process of several",
            hint="Start it by torchrun or accelerate launch, or unset them for a run of one process.",
        )
    return int(environment["RANK"]), int(environment["WORLD_SIZE"])


def _first_host(environment: Mapping[str, str]) -> str:
    """Where the first process of a step runs."""
    if environment.get("SLURM_STEP_NUM_NODES", "1") == "1":
        return "127.0.0.1"
    command = ["scontrol", "show", "hostnames", environment["SLURM_STEP_NODELIST"]]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise CxrError(
            "Slurm doesn't tell the name of the first node", hint="Set MASTER_ADDR to it, or start by torchrun."
        ) from None


def job_from_environment(environment: Mapping[str, str] | None = None) -> str | None:
    """The number of the Slurm job that this process is part of."""
    return (os.environ if environment is None else environment).get("SLURM_JOB_ID")


def scratch(environment: Mapping[str, str] | None = None) -> str | None:
    """The node's own disk for the time of a job, where the site names it as SLURM_TMPDIR and nobody TMPDIR."""
    environment = os.environ if environment is None else environment
    folder = environment.get("SLURM_TMPDIR")
    return folder if folder and "TMPDIR" not in environment and os.path.isdir(folder) else None


def processors() -> int:
    """Those that this process may use: in a Slurm job its own, not the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
