"""The scripts of examples/slurm on a real Slurm of several nodes, and training across two machines.

`make slurm` starts one on this machine (`tools/slurm_here.sh`), runs these, and stops it. A script is copied and its
three lines are edited, as a user would do it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, environment
from processes import wait_for
from small_models import vision_model
from trainings import chains, read, weights

SCRIPTS = ROOT / "examples" / "slurm"
STEPS = 850
TRAINED = ("--recipe", "tiny", "--batch-size", "4", "--eval-every", "0")

pytestmark = pytest.mark.slurm


# ------------------------------------------------------------------------------------------------------------- the user


class Site:
    """A user's folder on a login node, with the scripts as they have edited them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = environment(OMP_NUM_THREADS="1", SLURM_CONF=os.environ.get("SLURM_CONF", ""))
        activate = folder / "activate"
        activate.write_text(f'export PATH="{Path(sys.executable).parent}:$PATH" PYTHONPATH="{ROOT}"\n')
        shutil.copytree(SCRIPTS, folder / "slurm")
        for script in (folder / "slurm").glob("*.sh"):
            lines = script.read_text().splitlines(keepends=True)
            script.write_text("".join(self._edited(line, activate) for line in lines))

    def _edited(self, line: str, activate: Path) -> str:
        """A line that is marked as the user's own, for a cluster without GPUs whose jobs may take a minute."""
        line = line.replace("$HOME/cxr/.venv/bin/activate", str(activate))
        return re.sub(r"--gpus-per-node=\d+ --cpus-per-task=\d+", "--cpus-per-task=1", line)

    def run(self, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env={**self.environment, **(env or {})}, capture_output=True, encoding="utf-8"
        )

    def submit(self, *command: str, env: dict[str, str] | None = None) -> str:
        """sbatch, as typed in the user's folder; the job's number."""
        done = self.run("sbatch", "--parsable", *command, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def states(self, job: str) -> dict[str, str]:
        """The states of a job's tasks (of one that is no array, under "N/A")."""
        done = self.run("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%K %T")
        return dict(line.split() for line in done.stdout.splitlines())

    def wait(self, *jobs: str, seconds: float = 240) -> None:
        """Until `jobs` have ended, all of them well."""

        def ended() -> bool:
            states = {state for job in jobs for state in self.states(job).values()}
            return not states & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}

        wait_for(ended, seconds)
        assert {state for job in jobs for state in self.states(job).values()} == {"COMPLETED"}, self.logs()

    def told(self, job: str, name: str) -> str:
        """What scontrol tells under `name` of a job that isn't an array, or of a task of one."""
        found = re.search(rf"\b{name}=(\S+)", self.run("scontrol", "show", "job", job).stdout)
        assert found
        return found[1]

    def logs(self) -> str:
        return "\n".join(f"--- {log}:\n{log.read_text()}" for log in sorted(self.folder.rglob("*.log")))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.run("scancel", "--me")
    wait_for(lambda: not found.run("squeue", "-h").stdout.strip(), 60)


def lines(*files: Path) -> list[str]:
    return sorted(line for file in files for line in file.read_text(encoding="utf-8").splitlines())


def reports(path: Path, times: int) -> Path:
    """Our reports, each `times` times as a study of its own."""
    with open(ROOT / "examples" / "reports.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    whole = [row for row in rows if len(row) == len(header)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number in range(times):
            writer.writerows([f"{row[0]}-{number}", f"{row[1]}-{number}", *row[2:]] for row in whole)
    return path


def phantoms(folder: Path, cxr: Callable[..., Any], count: int) -> Path:
    """Phantoms as an archive has them: films, and a CSV of reports."""
    assert cxr("demo", "-o", str(folder), "--studies", str(count), "-q").returncode == 0
    with open(folder / "reports.csv", "w", encoding="utf-8", newline="") as file:
        columns = ("study_id", "patient_id", "study_time", "split", "sex", "age", "view", "image", "report")
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for row in read(folder / "reports.jsonl"):
            writer.writerow({**row, "image": row["images"][0]["path"]})
    return folder / "reports.csv"


# --------------------------------------------------------------------------------------------------------------- arrays


def test_an_array_of_four_is_the_whole(site: Site, cxr: Callable[..., Any]) -> None:
    table = reports(site.folder / "reports.csv", 2)
    for command, source, whole in (("mine", table, "questions"), ("refine", site.folder / "questions.jsonl", "chains")):
        alone = site.folder / f"{whole}.jsonl"
        assert cxr(command, str(source), "-q", "-o", str(alone)).returncode == 0
        given = str(source) if command == "mine" else "questions/"
        site.wait(site.submit("--array=0-3", "slurm/parts.sh", command, given, f"{whole}/"))
        parts = sorted((site.folder / whole).glob("part-*.jsonl"))
        assert [part.name for part in parts] == [f"part-{number:05}.jsonl" for number in range(4)]
        assert all(part.stat().st_size for part in parts)
        assert lines(*parts) == lines(alone)
        joined = site.run("bash", "slurm/join.sh", whole, "4", "joined.jsonl")
        assert joined.returncode == 0, joined.stderr
        assert (site.folder / "joined.jsonl").read_bytes() == b"".join(part.read_bytes() for part in parts)


def test_indices_may_have_steps_and_gaps_and_one_shard_is_made_again(site: Site, cxr: Callable[..., Any]) -> None:
    table = str(reports(site.folder / "reports.csv", 1))
    mine = f". ./activate && srun cxr mine {table} -q -o part-$SLURM_ARRAY_TASK_ID.jsonl"
    alone = site.folder / "alone.jsonl"
    assert cxr("mine", table, "-q", "-o", str(alone)).returncode == 0

    site.wait(site.submit("--array=10-30:10", "--wrap", mine))  # the shards 0/3, 1/3 and 2/3
    stepped = [site.folder / f"part-{number}.jsonl" for number in (10, 20, 30)]
    assert lines(*stepped) == lines(alone)

    # An array with gaps is part of a whole, and so may be a task alone: of how many, Slurm can't know.
    for array in ("1,3", "2"):
        job = site.submit(f"--array={array}", "--output=refused-%a.log", "--wrap", mine)
        wait_for(lambda job=job: set(site.states(job).values()) == {"FAILED"}, 60)
    assert not (site.folder / "part-1.jsonl").exists()
    assert "CXR_SHARDS=8 sbatch --array=1,3,7" in (site.folder / "refused-2.log").read_text()
    for array in ("1,3", "0,2"):
        site.wait(site.submit(f"--array={array}", "--wrap", mine, env={"CXR_SHARDS": "4"}))
    assert lines(*(site.folder / f"part-{number}.jsonl" for number in range(4))) == lines(alone)


def test_a_node_that_leaves_in_mid_array_costs_nothing(site: Site, cxr: Callable[..., Any]) -> None:
    table = reports(site.folder / "reports.csv", 120)
    alone = site.folder / "alone.jsonl"
    # A task a node: the other four wait.
    job = site.submit("--array=0-7", "--nodes=1", "--cpus-per-task=2", "slurm/parts.sh", "mine", str(table), "parts/")

    def nodes() -> dict[str, str]:
        told = site.run("squeue", "-h", "-r", "-t", "R", "-j", job, "-o", "%K %N").stdout
        return dict(line.split() for line in told.splitlines())

    wait_for(lambda: len(nodes()) == 4 and list((site.folder / "parts").glob("*.partial")), 60)
    at_first = nodes()
    drained, lost, *_ = sorted(set(at_first.values()))
    try:
        for node, state in ((drained, "drain"), (lost, "down")):
            done = site.run("scontrol", "update", f"nodename={node}", f"state={state}", "reason=test")
            assert done.returncode == 0, done.stderr
        (task,) = [task for task, node in at_first.items() if node == lost]
        wait_for(
            lambda: site.states(job)[task] in ("PENDING", "COMPLETED") or nodes().get(task) not in (None, lost), 30
        )
        assert cxr("mine", str(table), "-q", "-o", str(alone)).returncode == 0
        site.wait(job)
        assert site.told(f"{job}_{task}", "Restarts") == "1"
        drained_then = site.run("sinfo", "-h", "-p", "cpu", "-n", drained, "-o", "%T").stdout.strip()
        assert drained_then == "drained"
    finally:
        for node in (drained, lost):
            site.run("scontrol", "update", f"nodename={node}", "state=resume")
    parts = sorted((site.folder / "parts").glob("part-*.jsonl"))
    assert len(parts) == 8
    assert lines(*parts) == lines(alone)


# ------------------------------------------------------------------------------------------------------- time is up


def test_what_the_time_limit_stops_goes_on_and_ends_with_the_same(site: Site) -> None:
    """mine, infer and sft, each with a limit that it can't keep, beside the same without one."""
    folder = site.folder
    table = reports(folder / "reports.csv", 230)
    model = str(vision_model(folder / "model"))
    some = chains(folder / "films", 24)
    items = read(some)
    asked = folder / "films" / "asked.jsonl"
    with open(asked, "w", encoding="utf-8") as file:
        for number in range(84):
            file.writelines(json.dumps({**item, "id": f"{item['id']}-{number}"}) + "\n" for item in items)
    mine = ("slurm/parts.sh", "mine", str(table))
    infer = ("slurm/parts.sh", "infer", str(asked))
    how = ("--ckpt", model, "--engine", "transformers", "--max-tokens", "60", "--batch-size", "16")
    train = ("slurm/train.sh", "sft", str(some), "--model", model, *TRAINED)
    train += ("--max-steps", str(STEPS), "--save-every", "1000")

    soon = ("--time=1", "--signal=TERM@10")
    later = ("--time=2", "--signal=B:USR1@15")
    one = {"CXR_SHARDS": "1"}
    stopped = [
        site.submit("--array=0", *soon, *mine, "mine-stopped/", env=one),
        site.submit("--array=0", "--time=2", "--signal=TERM@10", *infer, "infer-stopped/", *how, env=one),
        site.submit(*later, *train, "-o", "sft-stopped"),
    ]
    whole = [
        site.submit("--array=0", *mine, "mine-whole/", env=one),
        site.submit("--array=0", *infer, "infer-whole/", *how, env=one),
        site.submit(*train, "-o", "sft-whole"),
    ]
    site.wait(*stopped, *whole, seconds=420)
    assert all(int(site.told(job, "Restarts")) >= 1 for job in stopped), site.logs()
    for name in ("mine", "infer"):
        parts = [folder / f"{name}-{kind}" / "part-00000.jsonl" for kind in ("stopped", "whole")]
        assert parts[0].read_bytes() == parts[1].read_bytes()
    curves = [read(folder / f"sft-{kind}" / "metrics.jsonl") for kind in ("stopped", "whole")]
    assert len(curves[0]) == STEPS
    assert curves[0] == curves[1]
    ours, theirs = weights(folder / "sft-stopped"), weights(folder / "sft-whole")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


# ------------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, chains with films, and a run of one process on them."""
    folder = tmp_path_factory.mktemp("trained")
    vision_model(folder / "model")
    chains(folder / "films", 24)
    done = subprocess.run(
        [sys.executable, "-m", "cxr_reason", *sft(folder, folder / "alone")], env=environment(), capture_output=True,
        encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def sft(folder: Path, out: Path) -> tuple[str, ...]:
    source = str(folder / "films" / "chains.jsonl")
    return ("sft", source, "--model", str(folder / "model"), *TRAINED, "--max-steps", "4", "-o", str(out))


def same(one: Path, other: Path) -> bool:
    ours, theirs = read(one / "metrics.jsonl"), read(other / "metrics.jsonl")
    told = [[row["loss"] for row in rows if "loss" in row] for rows in (ours, theirs)]
    assert told[0] == pytest.approx(told[1], abs=1e-3)
    assert len(told[0]) == 4
    return all(abs(value - weights(other)[name]).max() < 1e-3 for name, value in weights(one).items())


def test_two_tasks_of_srun_train_as_one_process(site: Site, trained: Path) -> None:
    command = " ".join(sft(trained, site.folder / "out"))
    site.wait(site.submit("--ntasks=2", "--output=two.log", "--wrap", f". ./activate && srun cxr {command}"))
    assert same(site.folder / "out", trained / "alone")
    log = (site.folder / "two.log").read_text()
    assert log.count('{"checkpoint"') == 1  # the first process alone speaks


def test_two_nodes_train_as_one_process(site: Site, trained: Path) -> None:
    job = site.submit("--nodes=2", "--output=nodes.log", "slurm/train.sh", *sft(trained, site.folder / "out"))
    site.wait(job)
    assert site.told(job, "NumNodes") == "2"
    assert same(site.folder / "out", trained / "alone")
    assert (site.folder / "nodes.log").read_text().count('{"checkpoint"') == 1


def test_two_machines_train_as_one_process(trained: Path, tmp_path: Path) -> None:
    """Machines with nothing in common but a wire: two network namespaces."""
    names, addresses = ("cxr-one", "cxr-two"), ("10.231.7.1", "10.231.7.2")

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cxr0", "netns", names[0], "type", "veth", "peer", "name", "cxr0", "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cxr0")
            ip("-n", name, "link", "set", "cxr0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        launched = [
            subprocess.Popen(
                [
                    *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes=2"),
                    *("--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={addresses[0]}:29501"),
                    # Both are called what this machine is called, so they can't tell by its name whose address it is.
                    f"--rdzv-conf=is_host={int(address == addresses[0])}",
                    *(f"--rdzv-id={tmp_path.name}", f"--local-addr={address}", "-m", "cxr_reason"),
                    *sft(trained, tmp_path / "out"),
                ],
                env=environment(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="cxr0"),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            )
            for name, address in zip(names, addresses, strict=True)
        ]  # fmt: skip
        told = [process.communicate(timeout=200) for process in launched]
        assert [process.returncode for process in launched] == [0, 0], told
        assert sum(bool(stdout.strip()) for stdout, _ in told) == 1
        assert same(tmp_path / "out", trained / "alone")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


# ------------------------------------------------------------------------------------------------------- the whole road


def test_the_pipeline_goes_from_reports_to_scores_and_mends_what_failed(site: Site, cxr: Callable[..., Any]) -> None:
    table = phantoms(site.folder / "archive", cxr, 120)
    choices = site.folder / "choices.sh"
    choices.write_text(
        "GPU=(--partition=gpu) INFER=(--partition=gpu) PARTS=4\n"
        "SFT=(--model tiny --recipe tiny --max-steps 3 --eval-every 0)\n"
        "RL=(--recipe tiny --max-steps 1 --eval-every 0 --max-tokens 16 --reward accuracy=1)\n"
        "ANSWER=(--engine transformers --max-tokens 16)\n"
    )

    def pipeline() -> dict[str, str]:
        """What is submitted: a job's number by its name."""
        done = site.run("slurm/pipeline.sh", str(table), "work", env={"CXR_PIPELINE": str(choices)})
        assert done.returncode == 0, done.stderr
        told = (re.match(r"(\d+)  ([a-z-]+)", line) for line in done.stdout.splitlines())
        return {found[2]: found[1] for found in told if found}

    work = site.folder / "work"
    (work / "questions" / "part-00002.jsonl.partial").mkdir(parents=True)  # one shard can't be written
    jobs = pipeline()
    assert list(jobs) == [
        *("questions", "chains", "join", "test-questions", "test-chains", "test-join", "sft", "rl", "predictions"),
        "score",
    ]
    again = site.run("slurm/pipeline.sh", str(table), "work", env={"CXR_PIPELINE": str(choices)})
    assert again.stdout.startswith("still under way:")
    wait_for(lambda: not site.run("squeue", "-h").stdout.strip(), 120)
    assert site.states(jobs["questions"]) == {"0": "COMPLETED", "1": "COMPLETED", "2": "FAILED", "3": "COMPLETED"}
    assert "there is no 2. " in (work / "logs" / "join.log").read_text()
    assert "CXR_SHARDS=4 and --array=2" in (work / "logs" / "join.log").read_text()
    assert (work / "test.jsonl").exists()
    assert not (work / "sft").exists()

    (work / "questions" / "part-00002.jsonl.partial").rmdir()
    before = {part: part.stat().st_mtime_ns for part in (work / "questions").glob("part-*.jsonl")}
    assert len(before) == 3
    jobs = pipeline()
    assert list(jobs) == ["questions", "chains", "join", "sft", "rl", "predictions", "score"]
    wait_for(lambda: not site.run("squeue", "-h").stdout.strip(), 200)
    assert site.states(jobs["questions"]) == {"2": "COMPLETED"}
    assert {part: part.stat().st_mtime_ns for part in before} == before
    assert "floor: all-negative litany" in (work / "predictions.txt").read_text(), site.logs()
    assert (work / "predictions.html").exists()
    assert not pipeline()  # nothing is left to do

    alone = site.folder / "alone.jsonl"
    assert cxr("mine", str(table), "--tasks", "binary,anomaly", "-q", "-o", str(alone)).returncode == 0
    questions = {json.loads(line)["id"] for line in lines(alone)}
    assert {json.loads(line)["id"] for line in lines(work / "chains.jsonl")} <= questions
    # Other reports don't mix with these.
    with open(table, "a", encoding="utf-8") as file:
        file.write("\n")
    other = site.run("slurm/pipeline.sh", str(table), "work", env={"CXR_PIPELINE": str(choices)})
    assert other.returncode == 1
    assert "give a new folder" in other.stderr
