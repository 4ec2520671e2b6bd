"""The processes of one run: which of them we are, and what they have to agree on.

A run is distributed only where a launcher (torchrun, accelerate, srun with the variables exported) has set RANK,
LOCAL_RANK and WORLD_SIZE. Nothing here starts a process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cxr_reason.errors import CxrError, Stop

T = TypeVar("T")
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


class Followed(Stop):
    """Another process of the run has said why it ends; this one ends with the same code, and says nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def of_environment(environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """(rank, processes) as a launcher tells them, (0, 1) without one. Raises CxrError where it tells only half."""
    environment = os.environ if environment is None else environment
    there = [name for name in VARIABLES if name in environment]
    if not there:
        return 0, 1
    if len(there) < len(VARIABLES):
        missing = ", ".join(name for name in VARIABLES if name not in there)
        raise CxrError(
            f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} set and {missing} not, so it isn't clear whether "
            "this is one process of several",
            hint="Start it by torchrun or accelerate launch, or unset them for a run of one process.",
        )
    return int(environment["RANK"]), int(environment["WORLD_SIZE"])


def first_does(work: Callable[[], T]) -> T | None:
    """Do `work` in the first process while the others wait; what it gives there, None elsewhere.

    Where it raises, all processes end: the first with the error, the others silently with its exit code.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState()
    if state.num_processes == 1:
        return work()
    result, failure = None, None
    if state.is_main_process:
        try:
            result = work()
        except BaseException as error:
            failure = error
    code = getattr(failure, "exit_code", 130 if isinstance(failure, KeyboardInterrupt) else 1) if failure else 0
    (told,) = broadcast_object_list([code])
    if failure is not None:
        raise failure
    if told:
        raise Followed(int(told))
    return result


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in any process. All of them must ask."""
    import torch
    from accelerate import PartialState

    state = PartialState()
    if state.num_processes == 1:
        return flag
    told = torch.tensor(int(flag), device=state.device)
    torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
    return bool(told.item())


def gathered(entries: list[Any]) -> list[Any]:
    """The `entries` of all processes, in the order of their ranks. All of them must ask."""
    from accelerate.utils import gather_object

    return list(gather_object(entries))
