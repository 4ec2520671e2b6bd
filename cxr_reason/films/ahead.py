"""Work on films by threads, some items ahead: decoding is native code, which runs beside the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cxr_reason.cluster import processors

Item = TypeVar("Item")
Told = TypeVar("Told")


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
