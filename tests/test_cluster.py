"""Shards, job arrays and signals."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from cxr_reason.cluster import Shard, StopSignals, ranks_from_environment, scratch, shard_from_environment
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
        ({**array(7, 7, 7, 1, 1), "CXR_SHARDS": "8"}, Shard(7, 8)),  # one that failed, once more
        ({**array(3, 1, 7, 1, 3), "CXR_SHARDS": "8"}, Shard(3, 8)),
        ({**array(2, 0, 3, 1, 4), "CXR_SHARDS": "4"}, Shard(2, 4)),
        ({"CXR_SHARDS": "4"}, None),
    ],
)
def test_the_shard_of_an_array_task_is_its_rank(variables, shard):
    assert shard_from_environment(variables) == shard


@pytest.mark.parametrize(
    "variables",
    [
        array(3, 1, 7, 1, 3),
        array(2, 1, 7, 3, 3),
        {"SLURM_ARRAY_TASK_ID": "1"},
        array(1, 0, 3, 0, 4),
        array(7, 7, 7, 1, 1),  # the whole, or the one that failed?
        array(0, 0, 0, 1, 1),
        {**array(4, 1, 4, 1, 4), "CXR_SHARDS": "4"},
        {**array(1, 0, 3, 1, 4), "CXR_SHARDS": "all"},
    ],
)
def test_arrays_that_may_be_a_part_are_refused(variables):
    with pytest.raises(CxrError, match="CXR_SHARDS") as error:
        shard_from_environment(variables)
    assert "--shard" in (error.value.hint or "")


def test_scratch_is_what_the_site_names(tmp_path):
    there = {"SLURM_TMPDIR": str(tmp_path)}
    assert scratch(there) == str(tmp_path)
    assert scratch({**there, "TMPDIR": "/elsewhere"}) is None
    assert scratch({"SLURM_TMPDIR": str(tmp_path / "gone")}) is None
    assert scratch({}) is None


def test_ranks_are_what_a_launcher_tells():
    assert ranks_from_environment({}) == (0, 1)
    assert ranks_from_environment({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}) == (3, 4)
    with pytest.raises(CxrError, match=r"WORLD_SIZE is set and RANK, LOCAL_RANK not"):
        ranks_from_environment({"WORLD_SIZE": "2"})


def test_ranks_are_what_srun_tells_where_no_launcher_does():
    step = {
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_JOB_ID": "70123",
    }
    assert ranks_from_environment(step) == (1, 2)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert [step[name] for name in names] == ["1", "1", "2", "127.0.0.1", "20123"]
    # One launch a node: what torchrun says of its own processes counts.
    told = {**step, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "8"}
    assert ranks_from_environment(told) == (0, 8)
    # A batch script is no step, though Slurm tells it that two tasks may be started.
    assert ranks_from_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) == (0, 1)


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
