"""What tests of training share: phantoms with chains, a model of a few thousand weights, and `cxr sft` or `rl` as a
process.

Processes are forked from a server that has imported the training stack already: real ones, that can be killed, without
five seconds of imports each.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import environment

SIZE = 56
STACK = [
    "trl.trainer.sft_trainer",
    "trl.trainer.grpo_trainer",
    "transformers.models.qwen2_vl.modeling_qwen2_vl",
    "peft",
    "datasets",
]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*STACK, "cxr_reason.training.sft", "cxr_reason.training.rl"])


@dataclass(frozen=True)
class Done:
    code: int | None
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        (line,) = self.stdout.splitlines()
        told: dict[str, Any] = json.loads(line)
        return told


class Training:
    """`cxr COMMAND ARGUMENTS` as a process, its output in files below `folder`."""

    def __init__(self, folder: Path, *arguments: str, command: str = "sft", **variables: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [folder / "stdout", folder / "stderr"]
        for file in self._files:
            file.write_text("")
        named = [os.fspath(file) for file in self._files]
        self.process = _context.Process(target=_run, args=([command, *arguments], *named, environment(**variables)))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    def wait(self, seconds: float = 120) -> Done:
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"still running after {seconds} s: {self._files[1].read_text()}")
        return Done(self.process.exitcode, *(file.read_text(encoding="utf-8") for file in self._files))

    def when(self, condition: Callable[[], object], *, kill: int, delay: float = 0, seconds: float = 120) -> Done:
        """Send the signal `kill` some seconds after `condition` holds, and wait for the end."""
        deadline = time.monotonic() + seconds
        while self.process.is_alive() and not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.002)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, kill)
        return self.wait()


def _run(arguments: Sequence[str], stdout: str, stderr: str, variables: dict[str, str]) -> None:
    for descriptor, name in ((1, stdout), (2, stderr)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    import torch

    from cxr_reason.cli import main

    torch.set_num_threads(1)
    main(list(arguments), prog_name="cxr")


def torchrun(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`cxr ARGUMENTS` as two processes of one run, with torchrun."""
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0",
        "--rdzv-backend", "c10d", "-m", "cxr_reason",
    ]  # fmt: skip
    return subprocess.run(
        [*launcher, *arguments], capture_output=True, encoding="utf-8", timeout=300,
        env=environment(OMP_NUM_THREADS="1", **variables),
    )  # fmt: skip


def chains(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Refined chains on `count` phantoms, with their films, in ``folder/chains.jsonl``."""
    from click.testing import CliRunner
    from PIL import Image

    from cxr_reason import phantoms
    from cxr_reason.cli import main

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "reports.jsonl", "w", encoding="utf-8") as file:
        for index in range(count):
            study = phantoms.study(seed, index, size=SIZE)
            Image.fromarray(study.image).save(folder / f"{index}.png")
            told = {name: getattr(study, name) for name in ("study_id", "patient_id", "split", "report")}
            file.write(json.dumps({**told, "images": [f"{index}.png"]}) + "\n")
    for command, source, target in (("mine", "reports", "questions"), ("refine", "questions", "chains")):
        names = [str(folder / f"{name}.jsonl") for name in (source, target)]
        done = CliRunner().invoke(main, [command, "-q", names[0], "-o", names[1]])
        assert done.exit_code == 0, done.stderr
    return folder / "chains.jsonl"


def weights(folder: Path) -> dict[str, Any]:
    """The tensors of the one safetensors file in `folder`, by name."""
    from safetensors.numpy import load_file

    (file,) = folder.glob("*.safetensors")
    return dict(load_file(file))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
