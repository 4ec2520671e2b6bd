"""The driver of all data commands, in real processes: pipes that close, signals, kill -9, full disks, shards.

The command is tests/stream_driver.py, which misbehaves on demand: the options, the driver and the exit codes are the
real ones. test_shell.py does the same to `cxr mine` and `cxr refine`.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from conftest import environment
from processes import children, wait_for

from cxr_reason import runner
from cxr_reason.errors import CxrError
from cxr_reason.streams import Input

DRIVER = Path(__file__).with_name("stream_driver.py")
COMMAND = [sys.executable, str(DRIVER), "copy"]
STUDIES = 1500


def start(*arguments: object, **options) -> subprocess.Popen[bytes]:
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, env=environment(**options.pop("env", {})), **options
    )


def finish(*arguments: object, stdin: bytes | None = None, **options) -> subprocess.CompletedProcess[str]:
    process = start(*arguments, **{"stdin": subprocess.PIPE if stdin is not None else subprocess.DEVNULL, **options})
    output, error = process.communicate(stdin, timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, (output or b"").decode(), error.decode())


def summary(error: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", error.split("summary ")[1])}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """1,500 studies of one to three rows, a few of which are rejected, unreadable, or break the work."""
    chance = random.Random(7)
    lines = ["study_id,report"]
    for study in range(STUDIES):
        for _ in range(chance.choice([1, 1, 2, 3])):
            kind = chance.random()
            if kind < 0.01:
                lines.append(f"s{study},too,many")
            elif kind < 0.02:
                lines.append(f"s{study},raise")
            elif kind < 0.05:
                lines.append(f"s{study},reject")
            else:
                lines.append(f's{study},"text of {study}\n{"x" * chance.randrange(400)}"')
    path = tmp_path_factory.mktemp("table") / "reports.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory) -> tuple[bytes, bytes, dict[str, int]]:
    """Output, rejects and counts of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done = finish(table, "-o", folder / "out", "--rejects", folder / "rejects")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["out", "rejects"]
    return (folder / "out").read_bytes(), (folder / "rejects").read_bytes(), summary(done.stderr)


# ------------------------------------------------------------------------------------------------ what a run leaves


def test_a_run_accounts_for_every_row(table, whole):
    output, rejects, counts = whole
    records = [json.loads(line) for line in output.splitlines()]
    reasons = [json.loads(line) for line in rejects.splitlines()]
    kinds = Counter(reason["reasons"][0]["check"] for reason in reasons)
    assert counts["records"] == len(records) > STUDIES
    assert counts["rejected"] == counts["taste"] == kinds["taste"] > 0
    assert counts["unreadable"] == kinds["unreadable"] > 0
    assert counts["failed"] == kinds["internal-error"] > 0
    lines = table.read_text().splitlines()
    for reason in reasons:
        there = lines[reason["line"] - 1]
        assert reason["file"] == str(table)
        match reason["reasons"][0]["check"]:
            case "taste":
                assert there == f"{reason['id']},reject"
                assert reason["record"]["report"] == "reject"
            case "unreadable":
                assert reason["raw"] == there + "\n"
                assert reason["stage"] == "read"
            case "internal-error":
                assert "RuntimeError in stream_driver.py" in reason["reasons"][0]["message"]
                assert "quotes" not in reason["reasons"][0]["message"]


def test_stdout_has_data_only_and_stderr_the_rest(table, whole):
    done = finish(table)
    assert done.stdout.encode() == whole[0]
    assert "warning" in done.stderr
    assert "text of" not in done.stderr
    piped = finish("-", stdin=table.read_bytes())
    assert piped.stdout.encode() == whole[0]


def test_a_dry_run_counts_and_writes_nothing(table, whole, tmp_path):
    done = finish(table, "-n", "-o", tmp_path / "out", "--rejects", tmp_path / "rejects")
    assert done.returncode == 0
    assert summary(done.stderr) == whole[2]
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_too_many_unreadable_rows_end_with_3_after_all_is_written(tmp_path):
    text = b"study_id,report\n1,x\n2,x\n3\n4,x\n"
    for allowed, code in (("0.24", 3), ("25%", 0)):
        done = finish("-", "-o", tmp_path / "out", "--max-failed", allowed, stdin=text)
        assert done.returncode == code, done.stderr
        assert len((tmp_path / "out").read_text().splitlines()) == 3
        assert "<stdin>:4: 1 columns where the header has 2" in done.stderr
    assert finish("-", "--max-failed", "6", stdin=text).returncode == 2


@pytest.mark.parametrize("text", [b"", b"study_id,report\n"])
def test_an_input_without_rows_is_an_error_and_leaves_the_old_file(tmp_path, text):
    (tmp_path / "out").write_text("old")
    done = finish("-", "-o", tmp_path / "out", stdin=text)
    assert done.returncode == 1
    assert "no rows" in done.stderr
    assert (tmp_path / "out").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_record_that_json_cannot_say_breaks_its_row_only(tmp_path):
    done = finish("-", "--max-failed", "1", "--rejects", tmp_path / "rejects", stdin=b"study_id,report\n1,nan\n2,x\n")
    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["2"]
    assert json.loads((tmp_path / "rejects").read_text())["line"] == 2


def test_limit_takes_the_first_units(table, whole):
    done = finish(table, "--limit", 10)
    assert whole[0].startswith(done.stdout.encode())
    assert summary(done.stderr)["units"] == 10


# ---------------------------------------------------------------------------------------------- shards and processes


@pytest.mark.parametrize("count", [2, 3])
def test_shards_together_are_the_whole(table, whole, tmp_path, count):
    totals: Counter[str] = Counter()
    parts, rejects, owners = [], [], []
    for index in range(count):
        done = finish(table, "--shard", f"{index}/{count}", "--rejects", tmp_path / "rejects")
        parts += done.stdout.splitlines()
        rejects += (tmp_path / "rejects").read_text().splitlines()
        owners.append({json.loads(line)["id"] for line in done.stdout.splitlines()})
        totals.update(summary(done.stderr))
    assert sorted(parts) == sorted(whole[0].decode().splitlines())
    assert sorted(rejects) == sorted(whole[1].decode().splitlines())
    assert totals == Counter(whole[2])
    assert all(owners)
    assert not set.intersection(*owners)


def test_slurm_array_is_the_default_shard(table):
    array = {
        "SLURM_ARRAY_TASK_ID": "20",
        "SLURM_ARRAY_TASK_MIN": "10",
        "SLURM_ARRAY_TASK_MAX": "30",
        "SLURM_ARRAY_TASK_STEP": "10",
        "SLURM_ARRAY_TASK_COUNT": "3",
    }
    done = finish(table, env=array)
    assert done.stdout == finish(table, "--shard", "1/3").stdout
    assert "shard 1/3" in done.stderr
    assert finish(table, "--shard", "0/1", env=array).stdout == finish(table).stdout


@pytest.mark.parametrize("name", ["out", "out.gz"])
def test_two_processes_write_the_same_bytes_as_one(table, whole, tmp_path, name):
    found = []
    for jobs in (1, 2):
        done = finish(table, "--jobs", jobs, "-o", tmp_path / name, "--rejects", tmp_path / "rejects")
        assert done.returncode == 0, done.stderr
        assert summary(done.stderr) == whole[2]
        assert (tmp_path / "rejects").read_bytes() == whole[1]
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1]
    assert (gzip.decompress(found[0]) if name == "out.gz" else found[0]) == whole[0]


@pytest.mark.parametrize("ahead", [1, 7, 5000])
@pytest.mark.parametrize("output_format", ["jsonl", "array"])
def test_work_on_a_stream_gives_what_work_on_units_gives(table, whole, tmp_path, ahead, output_format):
    done = finish(
        table, "--ahead", ahead, "--format", output_format, "-o", tmp_path / "out", "--rejects", tmp_path / "rejects"
    )
    assert done.returncode == 0, done.stderr
    assert summary(done.stderr) == whole[2]
    assert (tmp_path / "rejects").read_bytes() == whole[1]
    finish(table, "--format", output_format, "-o", tmp_path / "by-unit")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "by-unit").read_bytes()
    shards = [finish(table, "--ahead", ahead, "--shard", f"{part}/3").stdout for part in range(3)]
    assert Counter("".join(shards).splitlines()) == Counter(whole[0].decode().splitlines())


def test_rejects_need_a_file_of_their_own(table, tmp_path):
    for output, rejects in (("out", "out"), ("out", "-")):
        done = finish(table, "-o", tmp_path / output, "--rejects", rejects if rejects == "-" else tmp_path / rejects)
        assert done.returncode == 1
        assert "--rejects" in done.stderr


def test_a_worker_that_dies_is_an_error_that_names_its_rows(tmp_path):
    text = b"study_id,report\n" + b"".join(b"%d,x\n" % number for number in range(100)) + b"101,die\n"
    done = finish("-", "--jobs", 2, "-o", tmp_path / "out", stdin=text)
    assert done.returncode == 1
    assert re.search(r"<stdin>:98 to 102: a worker process was killed", done.stderr)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------- pipes, signals and kills


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_reader_that_leaves_ends_the_run_with_141(table, tmp_path, jobs):
    shell = (
        f'{" ".join(COMMAND)} {table} --jobs {jobs} --rejects {tmp_path}/rejects | head -3; echo "${{PIPESTATUS[0]}}"'
    )
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=environment(), timeout=60)
    lines = done.stdout.splitlines()
    assert lines[3:] == ["141"]
    assert [json.loads(line)["id"] for line in lines[:3]]
    assert "Traceback" not in done.stderr
    assert "error:" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_saves_and_goes_on(table, whole, tmp_path, jobs, number, code):
    output = tmp_path / "out"
    common = ["-o", output, "--rejects", tmp_path / "rejects", "--jobs", jobs]
    process = start(table, *common, "--pause", 0.002, start_new_session=True)
    wait_for(Path(f"{output}.partial.json").exists)
    workers = children(process.pid)
    assert len(workers) >= jobs - 1
    os.killpg(process.pid, number)  # as a terminal does it: all of them
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert b"Traceback" not in error
    assert b"saved" in error
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 5)
    assert not output.exists()
    done = finish(table, *common)
    assert done.returncode == 0
    assert summary(done.stderr) == {**whole[2], "resumed": summary(done.stderr)["resumed"]}
    assert summary(done.stderr)["resumed"] > 0
    assert output.read_bytes() == whole[0]
    assert (tmp_path / "rejects").read_bytes() == whole[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rejects"]


@pytest.mark.parametrize(
    ("name", "jobs", "piped", "ahead"),
    [("out", 1, False, 0), ("out.gz", 1, False, 0), ("out", 2, True, 0), ("out", 1, False, 7)],
)
def test_kill_9_again_and_again_gives_the_same_bytes(table, whole, tmp_path, name, jobs, piped, ahead):
    output, rejects = tmp_path / name, tmp_path / "rejects"
    arguments = ["-" if piped else table, "-o", output, "--rejects", rejects, "--jobs", jobs, "--ahead", ahead]
    chance = random.Random(name + str(jobs))
    reached = [0]
    for _ in range(6):
        with open(table, "rb") as stream:
            process = start(*arguments, "--pause", 0.0005, stdin=stream if piped else subprocess.DEVNULL)
            journal = Path(f"{output}.partial.json")
            wait_for(lambda: journal.exists() or process.poll() is not None)  # noqa: B023 - called at once
            workers = children(process.pid)
            time.sleep(chance.random() * 0.6)
            process.kill()
            process.communicate()
            wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 5)  # noqa: B023
        if output.exists():
            break
        reached.append(json.loads(journal.read_text())["done"])
    assert len(reached) > 3
    assert reached == sorted(reached)
    assert reached[-1] > 0
    with open(table, "rb") as stream:
        done = finish(*arguments, **({"stdin": None} if not piped else {"stdin": stream.read()}))
    assert done.returncode == 0, done.stderr
    content = output.read_bytes()
    assert (gzip.decompress(content) if name == "out.gz" else content) == whole[0]
    assert rejects.read_bytes().replace(b"<stdin>", str(table).encode()) == whole[1]
    assert finish(table, "-o", tmp_path / f"undisturbed-{name}").returncode == 0
    assert (tmp_path / f"undisturbed-{name}").read_bytes() == content
    assert {**summary(done.stderr), "resumed": 0} == whole[2]


@pytest.fixture
def interrupted(table, tmp_path) -> Path:
    """A run of a copy of the table that was killed with some of its work saved."""
    copy, output = tmp_path / "reports.csv", tmp_path / "out"
    copy.write_bytes(table.read_bytes())
    process = start(copy, "-o", output, "--pause", 0.002)
    wait_for(Path(f"{output}.partial.json").exists)
    process.kill()
    process.communicate()
    return output


def test_a_torn_partial_file_is_repaired(table, whole, tmp_path, interrupted):
    partial = Path(f"{interrupted}.partial")
    with partial.open("ab") as stream:
        stream.write(b'{"id":"s7","rep')
    done = finish(tmp_path / "reports.csv", "-o", interrupted)
    assert summary(done.stderr)["resumed"] > 0
    assert interrupted.read_bytes() == whole[0]


@pytest.mark.parametrize("damage", ["input", "options", "journal", "partial", "force"])
def test_what_does_not_fit_starts_over_and_says_so(whole, tmp_path, interrupted, damage):
    copy, options = tmp_path / "reports.csv", []
    expected = whole[0]
    match damage:
        case "input":
            copy.write_text(copy.read_text().replace("text of 0", "text of zero", 1))
            expected = expected.replace(b"text of 0", b"text of zero", 1)
        case "options":
            options = ["--limit", STUDIES - 1]
            expected = finish(copy, *options).stdout.encode()
        case "journal":
            Path(f"{interrupted}.partial.json").write_text("{torn")
        case "partial":
            os.truncate(f"{interrupted}.partial", 3)
        case "force":
            options = ["--force"]
    done = finish(copy, "-o", interrupted, *options)
    assert done.returncode == 0, done.stderr
    assert summary(done.stderr)["resumed"] == 0
    assert ("starting over" in done.stderr) == (damage != "force")
    assert interrupted.read_bytes() == expected


def test_other_rows_from_a_pipe_are_refused(table, whole, tmp_path):
    arguments = ["-", "-o", tmp_path / "out"]
    with open(table, "rb") as stream:
        process = start(*arguments, "--pause", 0.002, stdin=stream)
        wait_for((tmp_path / "out.partial.json").exists)
        process.kill()
        process.communicate()
    done = finish(*arguments, stdin=b"study_id,report\n1,x\n")
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert (tmp_path / "out.partial").exists()
    assert finish(*arguments, stdin=table.read_bytes()).returncode == 0
    assert (tmp_path / "out").read_bytes() == whole[0]


def test_a_second_run_on_the_same_file_is_refused(table, tmp_path):
    first = start(table, "-o", tmp_path / "out", "--pause", 0.01)
    wait_for((tmp_path / "out.partial.json").exists)
    second = finish(table, "-o", tmp_path / "out", "--force")
    assert second.returncode == 1
    assert "another run" in second.stderr
    first.kill()
    first.communicate()
    assert summary(finish(table, "-o", tmp_path / "out").stderr)["resumed"] > 0


# ---------------------------------------------------------------------------------------------------- disks and devices


@pytest.mark.parametrize("in_stream", [False, True])
def test_what_was_done_when_an_engine_gave_up_is_kept(tmp_path, monkeypatch, capsys, in_stream):
    """A server that goes away in the middle of the night costs what it was asked last, and nothing else."""
    monkeypatch.setattr(runner, "CHUNK_UNITS", 1)
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(f'{{"id":"r{n}"}}\n' for n in range(20)))
    asked: list[str] = []

    def one(row, *, ends_at):
        if row.data["id"] == ends_at:
            raise CxrError("the server doesn't answer")
        asked.append(row.data["id"])
        return runner.Result([row.data])

    def many(rows, *, ends_at):
        return (one(row, ends_at=ends_at) for row in rows)

    def run(ends_at=None):
        work = partial(many if in_stream else one, ends_at=ends_at)
        source = Input(path, formats=("jsonl",))
        return runner.run(source, work, stage="x", output=output, in_stream=in_stream, checkpoint_seconds=1000)

    with pytest.raises(CxrError, match="doesn't answer"):
        run("r9")
    assert "9 rows or studies are done and saved" in capsys.readouterr().err
    run()
    assert asked == [f"r{n}" for n in range(20)]
    assert output.read_text() == path.read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_full_disk_says_so_and_leaves_the_old_output(table, whole, tmp_path):
    output = tmp_path / "out"
    output.write_text("old")
    arguments = f"{' '.join(COMMAND)} {table} -o {output}"
    limited = f"ulimit -f 200; trap '' XFSZ; {arguments}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 1
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert output.read_text() == "old"
    assert finish(table, "-o", output).returncode == 0
    assert output.read_bytes() == whole[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_stdout_is_an_error(table):
    with open("/dev/full", "wb") as full:
        done = finish(table, stdout=full)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert finish(table, "-o", "/dev/full").returncode == 1


def test_devices_are_written_straight(table):
    assert finish(table, "-o", "/dev/null").returncode == 0
    assert Path("/dev/null").is_char_device()
    assert not Path("/dev/null.partial").exists()


def test_memory_does_not_grow_with_the_input(tmp_path):
    def peak(rows: int) -> int:
        path = tmp_path / "in.csv"
        path.write_text("study_id,report\n" + "".join(f"s{number},{'x' * 300}\n" for number in range(rows)))
        process = start(path, "-o", tmp_path / "out", "--save-every", 1)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.read()
        process.stderr.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss

    assert peak(60_000) < 1.1 * peak(6_000)
