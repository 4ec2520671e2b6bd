"""`cxr doctor` tells the truth about packages, GPUs and Slurm, from constraints.txt and without heavy imports."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT, Run

from cxr_reason import environment
from cxr_reason.cli import COMMANDS, main


@pytest.fixture
def without_jsonlines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = environment.installed
    monkeypatch.setattr(environment, "installed", lambda name: None if name == "jsonlines" else real(name))
    environment.packages.cache_clear()
    yield
    environment.packages.cache_clear()


@pytest.mark.parametrize(
    ("version", "specifiers", "expected"),
    [
        ("2.13.0", "==2.13.0", True),
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13", "==2.13.0", True),
        ("2.14.0", "==2.13.0", False),
        ("5.17.0", ">=5.16.1,<5.18", True),
        ("5.16.0", ">=5.16.1,<5.18", False),
        ("5.18.0", ">=5.16.1,<5.18", False),
        ("5.9", ">=5.16.1,<5.18", False),  # numbers, not text
        ("14.1.0", ">=13.7,<16", True),
        ("1.16.0rc1", ">=1.16,<1.17", True),
    ],
)
def test_satisfies(version: str, specifiers: str, expected: bool) -> None:
    assert environment.satisfies(version, specifiers) is expected


def test_constraints_are_one_list() -> None:
    """The shipped list is the checkout's, and it knows every package that pyproject.toml asks for, in its group."""
    assert environment.CONSTRAINTS.read_bytes() == (ROOT / "constraints.txt").read_bytes()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {"base": project["dependencies"], **project["optional-dependencies"]}
    del asked["all"]
    listed = {package.name for package in environment.packages()}
    assert {package.group for package in environment.packages()} == set(asked)
    for requirements in asked.values():
        others = {requirement for requirement in requirements if requirement.startswith("cxr-reason[")}
        assert {re.split("[>;]", requirement)[0] for requirement in set(requirements) - others} <= listed


def test_every_need_is_a_group_of_the_constraints() -> None:
    groups = {package.group for package in environment.packages()}
    asked = {group for known in COMMANDS.values() for need in known.needs for group in need.split("|")}
    assert asked <= groups


def test_json_is_one_object_and_compares_versions(cxr: Run) -> None:
    done = cxr("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert set(facts) == {"cxr", "commands", "packages", "machine"}
    assert facts["commands"].keys() == COMMANDS.keys()
    assert all(known["ready"] for known in facts["commands"].values())
    click = next(package for package in facts["packages"] if package["name"] == "click")
    assert (click["group"], click["state"]) == ("base", "ok")
    assert not any(package["group"] == "dev" for package in facts["packages"])
    assert facts["machine"]["processors"] >= 1
    assert 0 < facts["machine"]["memory_gib"] < 100_000


def test_tables_are_plain_text_off_a_terminal(cxr: Run) -> None:
    done = cxr("doctor")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert done.stdout.isascii()
    assert all(name in done.stdout for name in (*COMMANDS, "click", "torch", "python"))


@pytest.mark.usefixtures("without_jsonlines")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_lack_is_named_with_what_mends_it(command: str) -> None:
    done = CliRunner().invoke(main, ["doctor", command])
    assert done.exit_code == 1
    mend = next(line for line in done.output.splitlines() if " pip install " in line)
    words = shlex.split(mend)
    assert words[-1] == "jsonlines"
    assert Path(words[words.index("-c") + 1]).read_bytes() == (ROOT / "constraints.txt").read_bytes()


@pytest.mark.usefixtures("without_jsonlines")
def test_without_a_command_a_lack_is_no_failure() -> None:
    done = CliRunner().invoke(main, ["doctor", "--json"])
    assert done.exit_code == 0
    facts = json.loads(done.stdout)["commands"]
    assert {name: known["lacks"] for name, known in facts.items()} == {name: ["jsonlines"] for name in COMMANDS}


def test_a_command_narrows_the_packages(cxr: Run) -> None:
    facts = json.loads(cxr("doctor", "doctor", "--json").stdout)
    assert set(facts["commands"]) == {"doctor"}
    assert {package["group"] for package in facts["packages"]} == {"base"}


def test_gpus_and_slurm_are_asked_by_their_own_tools(cxr: Run, tmp_path: Path) -> None:
    tools = {
        "nvidia-smi": "echo 'Card A, 81920 MiB, 600.1'; echo 'Card B, 81920 MiB, 600.1'",
        "sbatch": "echo slurm 22",
    }
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    done = cxr("doctor", "--json", env={"PATH": str(tmp_path), "SLURM_JOB_ID": "17"})
    machine = json.loads(done.stdout)["machine"]
    assert machine["gpus"] == ["Card A, 81920 MiB, 600.1", "Card B, 81920 MiB, 600.1"]
    assert machine["slurm"] == "slurm 22, in job 17"


def test_a_broken_driver_is_no_gpu(cxr: Run, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'no driver'; exit 9\n", encoding="utf-8")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert json.loads(cxr("doctor", "--json", env={"PATH": str(tmp_path)}).stdout)["machine"]["gpus"] == []
