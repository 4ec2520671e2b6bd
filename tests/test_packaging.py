"""The sdist, the wheel that is built from it, and a checkout without installation all give a working `cxr`.

Nothing is downloaded: the wheel goes into a fresh environment that borrows click and rich from this one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from cxr_reason import __version__

pytestmark = pytest.mark.xdist_group("packaging")  # one worker builds, once


def call(*words: str | Path, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(words, capture_output=True, encoding="utf-8", cwd=cwd, env=env, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree, so that building leaves nothing behind here."""
    copy = tmp_path_factory.mktemp("checkout") / "cxr"
    left_out = shutil.ignore_patterns(".venv", ".git", "__pycache__", "*.egg-info", "build", "dist", "demo", ".*_cache")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    call(sys.executable, "-m", "build", "--no-isolation", cwd=checkout)  # the wheel from the sdist
    assert list((checkout / "dist").glob("cxr_reason-*.tar.gz"))
    (built,) = (checkout / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has this one's libraries on its path, but not its cxr."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # A folder that a .pth file names has its own .pth files ignored: an editable cxr stays behind.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin"


def test_a_checkout_runs_without_installation(checkout: Path, fresh: Path) -> None:
    assert call(fresh / "python", "-m", "cxr_reason", "--version", cwd=checkout) == f"cxr {__version__}\n"
    call(fresh / "python", "-m", "cxr_reason", "doctor", cwd=checkout)


def test_the_wheel_has_every_module_and_file_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = f"cxr_reason-{__version__}"
    assert {name.split("/")[0] for name in names} == {"cxr_reason", f"{ours}.dist-info", f"{ours}.data"}
    manual = {path.name for path in (ROOT / "docs" / "man").iterdir()}
    assert {name for name in names if name.startswith(f"{ours}.data/")} == {
        f"{ours}.data/data/share/man/man1/{page}" for page in manual
    }
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cxr_reason").rglob("*")
        if path.suffix not in (".pyc", "") and path.parent != ROOT / "cxr_reason" / "commands"
    } | {f"cxr_reason/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "commands").glob("*.py")}
    assert {name for name in names if name.startswith("cxr_reason/")} == expected
    assert f"cxr_reason-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_installed_wheel_works(wheel: Path, fresh: Path, tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--python", fresh / "python", "--quiet")
    call(*pip, "install", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    assert call(fresh / "cxr", "--help", cwd=tmp_path).startswith("Usage: cxr ")
    assert '"tried": "==2.13.0"' in call(fresh / "cxr", "doctor", "--json", cwd=tmp_path)
    found = call(fresh / "python", "-c", "import cxr_reason.commands as c; print(c.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(fresh.parent)
    with pytest.raises(AssertionError, match="No module named 'commands'"):
        call(fresh / "python", "-c", "import commands", cwd=tmp_path)
    pipe = 'set -o pipefail; "$1" mine "$2" | "$1" refine'
    chains = call("bash", "-c", pipe, "bash", fresh / "cxr", ROOT / "examples" / "reports.csv", cwd=tmp_path)
    assert len(chains.splitlines()) > 100
    assert all(json.loads(line)["steps"] for line in chains.splitlines())
