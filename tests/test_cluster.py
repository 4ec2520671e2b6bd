"""Shards, job arrays and signals."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from cxr_reason.cluster import Shard, StopSignals, shard_from_environment
from cxr_reason.errors import CxrError, Terminated


def array(task: int, first: int, last: int, step: int, count: int) -> dict[str, str]:
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    return {
        f"SLURM_ARRAY_TASK_{name}": str(value)
        for name, value in zip(names, (task, first, last, step, count), strict=True)
    }


def test_shards_are_parsed_or_explained():
    assert Shard.parse("0/4") == Shard(0, 4)
    assert str(Shard(3, 4)) == "3/4"
    for text in ("4/4", "-1/4", "1", "a/b", "0/0", "1/2/3", ""):
        with pytest.raises(ValueError, match="shard"):
            Shard.parse(text)


@pytest.mark.parametrize(
    ("variables", "shard"),
    [
        ({}, None),
        (array(0, 0, 3, 1, 4), Shard(0, 4)),
        (array(4, 1, 4, 1, 4), Shard(3, 4)),
        (array(30, 10, 40, 10, 4), Shard(2, 4)),
        (array(4, 0, 5, 2, 3), Shard(2, 3)),  # --array=0-5:2 has the tasks 0, 2 and 4
        (array(7, 7, 7, 1, 1), Shard(0, 1)),
    ],
)
def test_the_shard_of_an_array_task_is_its_rank(variables, shard):
    assert shard_from_environment(variables) == shard


@pytest.mark.parametrize(
    "variables", [array(3, 1, 7, 1, 3), array(2, 1, 7, 3, 3), {"SLURM_ARRAY_TASK_ID": "1"}, array(1, 0, 3, 0, 4)]
)
def test_arrays_with_gaps_are_refused(variables):
    with pytest.raises(CxrError, match="--shard"):
        shard_from_environment(variables)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_signals_become_exceptions_which_wait_for_held_blocks(number, error):
    before = signal.getsignal(number)
    with pytest.raises(error), StopSignals():  # noqa: PT012 - the signal arrives inside
        os.kill(os.getpid(), number)
        pytest.fail("the signal was lost")
    reached = False
    with pytest.raises(error), StopSignals() as signals:  # noqa: PT012 - it must be raised at the end of the block
        with signals.held():
            os.kill(os.getpid(), number)
            reached = True
        pytest.fail("the signal was lost")
    assert reached
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_left_alone():
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with StopSignals() as signals, signals.held():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures
