"""What the processes of one run have to agree on. Which of them we are, `cluster.ranks_from_environment` tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cxr_reason.errors import Stop

T = TypeVar("T")


class Followed(Stop):
    """Another process of the run has said why it ends; this one ends with the same code, and says nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


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
