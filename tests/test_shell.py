"""`cxr mine` and `cxr refine` in a real shell: pipes, Ctrl-C, kill -9, shards, processes, a full disk, no network.

Nothing here is a stand-in: the commands are the real ones, and the reports come from benchmarks/generate.py. What a run
does when its own work breaks down is tested in test_runner.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, environment
from processes import wait_for

from cxr_reason.runner import CHECKPOINT_SECONDS

pytestmark = pytest.mark.xdist_group("shell")  # one worker makes the files, once

REPORTS = 600
CXR = [sys.executable, "-m", "cxr_reason"]
PREDICTIONS = ROOT / "examples" / "predictions.jsonl"
NO_NETWORK = ("unshare", "--map-root-user", "--net")
OWN_MOUNTS = ("unshare", "--map-root-user", "--mount")


def permitted(*command: str) -> bool:
    try:
        return subprocess.run([*command, "true"], capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


def shell(script: str, folder: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
    """Run `script` with bash in `folder`, where `cxr` is ours. The exit code is that of its last command."""
    command = [*prefix, "bash", "-c", f'cxr() {{ {" ".join(CXR)} "$@"; }}\n{script}']
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment(), timeout=120)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with reports.csv and what comes of it when nothing disturbs: questions and chains."""
    folder = tmp_path_factory.mktemp("made")
    generator = [sys.executable, ROOT / "benchmarks" / "generate.py", "-n", str(REPORTS), "--seed", "3"]
    subprocess.run([*generator, "-o", folder / "reports.csv"], check=True, capture_output=True)
    done = shell("cxr mine reports.csv -q -o questions && cxr refine questions -q -o chains", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "chains").read_bytes().count(b"\n") > REPORTS
    return folder


# ------------------------------------------------------------------------------------------------------------- pipes


def test_refining_again_changes_nothing(made):
    done = shell("set -o pipefail; cxr refine chains -q | cmp - chains", made)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("options", ["", "--findings", "--jobs 2"])
def test_a_reader_that_leaves_ends_mine_with_141(made, options):
    done = shell(f'cxr mine reports.csv -q {options} | head -3; echo "${{PIPESTATUS[0]}}"', made)
    *records, code = done.stdout.splitlines()
    assert len({json.loads(record)["id"] for record in records}) == 3
    assert (code, done.stderr) == ("141", "")


def test_a_reader_that_leaves_ends_the_whole_pipe(made):
    done = shell('cxr mine reports.csv -q | cxr refine | head -1 | wc -l; echo "${PIPESTATUS[@]}"', made)
    assert (done.stdout.split(), done.stderr) == (["1", "141", "141", "0", "0"], "")


# --------------------------------------------------------------------------------------------------- signals and kills


def start(output: Path, made: Path, *, piped: bool) -> list[subprocess.Popen[bytes]]:
    """`cxr mine … -o OUTPUT`, or `cxr mine … | cxr refine -o OUTPUT`, with the last process last."""
    mine = [*CXR, "mine", str(made / "reports.csv")]
    options = {"stderr": subprocess.PIPE, "env": environment()}
    if not piped:
        return [subprocess.Popen([*mine, "-o", str(output)], process_group=0, **options)]
    first = subprocess.Popen(mine, stdout=subprocess.PIPE, process_group=0, **options)
    refine = [*CXR, "refine", "-o", str(output)]
    second = subprocess.Popen(refine, stdin=first.stdout, process_group=first.pid, **options)
    assert first.stdout
    first.stdout.close()
    return [first, second]


def wait_for_output(output: Path) -> None:
    partial = Path(f"{output}.partial")
    wait_for(lambda: partial.exists() and partial.stat().st_size, 60)


def whole(made: Path, piped: bool) -> bytes:
    return (made / ("chains" if piped else "questions")).read_bytes()


def again(output: Path, made: Path, piped: bool) -> subprocess.CompletedProcess[str]:
    command = f"cxr mine {made}/reports.csv"
    return shell(f"{command} | cxr refine -o {output}" if piped else f"{command} -o {output}", made)


@pytest.mark.parametrize("piped", [False, True], ids=["mine", "mine | refine"])
def test_ctrl_c_ends_with_130_and_nothing_is_lost(made, tmp_path, piped):
    output = tmp_path / "out"
    processes = start(output, made, piped=piped)
    wait_for_output(output)
    os.killpg(processes[0].pid, signal.SIGINT)  # as a terminal does it: all of them
    for process in processes:
        _, error = process.communicate(timeout=30)
        assert process.returncode == 130, error
        assert b"interrupted" in error
        assert b"Traceback" not in error
    assert b"done and saved" in error
    assert not output.exists()
    done = again(output, made, piped)
    assert done.returncode == 0
    assert "continuing an earlier run" in done.stderr
    assert output.read_bytes() == whole(made, piped)


@pytest.mark.parametrize("piped", [False, True], ids=["mine", "mine | refine"])
def test_kill_9_at_random_points_gives_the_same_bytes(made, tmp_path, piped):
    output = tmp_path / "out"
    chance = random.Random(piped)
    for attempt in range(4):
        processes = start(output, made, piped=piped)
        if attempt == 0:
            # Stopped for as long as there is between two savings, it saves at its next record, however fast it is.
            wait_for_output(output)
            processes[-1].send_signal(signal.SIGSTOP)
            time.sleep(CHECKPOINT_SECONDS)
            processes[-1].send_signal(signal.SIGCONT)
            wait_for(Path(f"{output}.partial.json").exists)
        else:
            time.sleep(chance.uniform(0, 0.6))
        os.killpg(processes[0].pid, signal.SIGKILL)
        for process in processes:
            process.communicate()
        if attempt and output.exists():  # the rest was done before it could be killed
            break
    else:
        assert not output.exists()
        with Path(f"{output}.partial").open("ab") as partial:
            partial.write(b'{"id": "a line torn in the mid')
        done = again(output, made, piped)
        assert done.returncode == 0
        assert "continuing an earlier run" in done.stderr
        # The closing tables count the part that the killed runs had done.
        undisturbed = again(tmp_path / "undisturbed", made, piped)
        assert set(undisturbed.stderr.splitlines()) <= set(done.stderr.splitlines())
        (tmp_path / "undisturbed").unlink()
    assert output.read_bytes() == whole(made, piped)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# ---------------------------------------------------------------------------------------------- shards and processes


def test_two_shards_together_are_the_whole(made):
    shards = [shell(f"cxr mine reports.csv -q --shard {i}/2 | cxr refine -q", made).stdout for i in (0, 1)]
    lines = [Counter(shard.splitlines()) for shard in shards]
    assert lines[0]
    assert lines[1]
    assert lines[0] + lines[1] == Counter((made / "chains").read_text(encoding="utf-8").splitlines())


def test_two_processes_give_the_bytes_of_one(made):
    done = shell(
        "set -o pipefail; cxr mine reports.csv -q --jobs 2 | tee two | cxr refine -q --jobs 2 | cmp - chains", made
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (made / "two").read_bytes() == whole(made, False)


# ---------------------------------------------------------------------------------------------------------- full disks


def test_a_full_disk_says_so_and_leaves_the_old_output(made, tmp_path):
    for number, command in enumerate(("mine reports.csv", "refine questions")):
        output = tmp_path / str(number)
        output.write_text("old")
        done = shell(f"ulimit -f 200; trap '' XFSZ; cxr {command} -o {output} --force", made)
        says_that_the_disk_is_full(done)
        assert output.read_text() == "old"


@pytest.mark.skipif(not permitted(*OWN_MOUNTS), reason="may not mount")
def test_a_full_file_system_says_so_and_leaves_the_old_output(made, tmp_path):
    script = (
        f"mount -t tmpfs -o size=300k none {tmp_path} || exit 99\n"
        f"echo old > {tmp_path}/out\n"
        f"cxr mine reports.csv -o {tmp_path}/out --force; code=$?; cat {tmp_path}/out; exit $code"
    )
    done = shell(script, made, *OWN_MOUNTS)
    if done.returncode == 99:
        pytest.skip("may not mount")
    says_that_the_disk_is_full(done)
    assert done.stdout == "old\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_stdout_says_so(made):
    says_that_the_disk_is_full(shell("cxr mine reports.csv > /dev/full", made))


def says_that_the_disk_is_full(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------------------- network


@pytest.mark.skipif(not permitted(*NO_NETWORK), reason="may not unshare the network")
def test_no_network_is_needed(made):
    script = (
        "cxr mine reports.csv -q --jobs 2 | cmp - questions && cxr refine chains -q | cmp - chains"
        f" && cxr score {PREDICTIONS} -q --json > /dev/null"
    )
    done = shell(script, made, *NO_NETWORK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "command", ["mine reports.csv --limit 100", "refine chains --limit 100", f"score {PREDICTIONS} -q --json"]
)
def test_no_socket_is_opened(made, command):
    script = (
        "import os, sys\n"
        "sys.addaudithook(lambda event, _: os._exit(99) if event.startswith('socket.') else None)\n"
        "if sys.argv[1] == 'socket':\n"
        "    import socket; socket.socket()\n"
        "from cxr_reason.cli import main\n"
        "main(sys.argv[1:], prog_name='cxr')"
    )
    codes = [
        subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, cwd=made, env=environment(), timeout=60
        ).returncode
        for words in (command.split(), ["socket"])
    ]
    assert codes == [0, 99]  # the second shows that the hook works
