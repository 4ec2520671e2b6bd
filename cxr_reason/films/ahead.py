"""Work on films by threads, some items ahead: decoding is native code, which runs beside the rest."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Told = TypeVar("Told")


def processors() -> int:
    """Those that this process may use: of a Slurm job its own, not the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ahead(work: Callable[[Item], Told], items: Iterable[Item], *, most: int) -> Iterator[Told]:
    """What `work` makes of each of `items`, in their order; at most `most` threads, with two items waiting for each."""
    threads = min(most, processors())
    waiting: deque[Future[Told]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="films") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
