"""Checkpoints: plain Hugging Face folders that appear whole or not at all, and say what they are in ``cxr.json``.

A checkpoint is written to ``OUT/.saving/``, its ``cxr.json`` last, and then renamed to ``OUT/checkpoint-N``: a kill
leaves the ones before as they are. `newest` finds the newest whose files are all there in the sizes that ``cxr.json``
tells; others are named and passed over. `publish` makes the output folder itself a model, for ``from_pretrained``, vLLM
and TRL. Weights are safetensors; no pickle is left in a folder but the optimizer's state, which torch reads as plain
tensors (``weights_only``).

`Saving` is what a trainer of TRL needs to save so; `cxr sft` and `cxr rl` share it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_reason import __version__, console, environment
from cxr_reason.sinks import whole

FILE = "cxr.json"
METRICS = "metrics.jsonl"
COMPLETIONS = "completions"
SAVING = ".saving"
_NUMBERED = re.compile(r"checkpoint-(\d+)")
# What continues a run and is no part of a model. `training_args.bin` is a pickle that nobody reads.
_OF_THE_RUN = re.compile(
    r"optimizer.*|scheduler\.pt|scaler\.pt|rng_state.*|trainer_state\.json|global_step.*|zero_.*|latest"
)
# Weights, and what decides how they are read.
_MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json")
_UNWANTED = ("training_args.bin",)
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that is whole."""

    path: Path
    step: int
    told: Mapping[str, Any]
    """Its ``cxr.json``."""


def describe(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """What ``cxr.json`` says of `folder`: `about`, the versions of what made it, and its files with their sizes."""
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != FILE
    }
    versions = {"cxr": __version__} | {name: environment.installed(name) for name in PACKAGES}
    return {**about, "versions": versions, "files": files}


def seal(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the ``cxr.json`` of a folder that is complete but for it."""
    for name in _UNWANTED:
        (folder / name).unlink(missing_ok=True)
    _write(folder / FILE, describe(folder, about))


def _write(path: Path, told: Mapping[str, Any]) -> None:
    with whole(path, sync=True) as file:
        file.write(json.dumps(told, indent=1, ensure_ascii=False).encode() + b"\n")


def read(folder: Path) -> dict[str, Any] | None:
    """The ``cxr.json`` of `folder`; None where there is none that can be read."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def fault(folder: Path) -> str | None:
    """Why `folder` is no whole checkpoint, in a few words; None where it is one."""
    told = read(folder)
    if told is None:
        return f"it has no {FILE}"
    files = told.get("files")
    if not isinstance(files, dict) or not files:
        return f"its {FILE} lists no files"
    for name, size in files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found:,} bytes and should have {size:,}"
    return None


def numbered(out: Path) -> list[tuple[int, Path]]:
    """The checkpoints below `out` by their step, whole or not, the newest first."""
    found = []
    for path in out.glob("checkpoint-*"):
        if (match := _NUMBERED.fullmatch(path.name)) and path.is_dir():
            found.append((int(match[1]), path))
    return sorted(found, reverse=True)


def newest(out: Path) -> Saved | None:
    """The newest whole checkpoint below `out`; what is broken is said."""
    for step, path in numbered(out):
        told = fault(path)
        if told is None:
            return Saved(path, step, read(path) or {})
        console.warn(f"{path}: {told}: passed over", kind="broken checkpoints")
    return None


def rotate(out: Path, *, keep: int, best: int | None) -> None:
    """Delete all but the `keep` newest checkpoints and the one of the step `best`."""
    for step, path in numbered(out)[keep:]:
        if step != best:
            # Renamed first: one that is half deleted must not look like a checkpoint.
            gone = path.with_name(f".gone-{step}")
            shutil.rmtree(gone, ignore_errors=True)
            os.replace(path, gone)
            shutil.rmtree(gone, ignore_errors=True)


def publish(checkpoint: Path, out: Path, about: Mapping[str, Any]) -> None:
    """Make `out` the model of `checkpoint`: its files but for those that continue a run, ``cxr.json`` last.

    Files are linked where the disk can, so a model isn't stored twice. Those of a model that was there before go:
    an adapter's settings beside whole weights would be taken for the model.
    """
    names = [
        file.name
        for file in sorted(checkpoint.iterdir())
        if file.is_file() and file.name != FILE and not _OF_THE_RUN.fullmatch(file.name)
    ]
    withdraw(out)
    for name in names:
        partial = out / f"{name}.partial"
        partial.unlink(missing_ok=True)
        try:
            os.link(checkpoint / name, partial)
        except OSError:
            shutil.copyfile(checkpoint / name, partial)
        os.replace(partial, out / name)
    told = describe(checkpoint, about)
    _write(out / FILE, {**told, "files": {name: size for name, size in told["files"].items() if name in names}})


def holds_model(folder: Path) -> bool:
    """Whether a model lies in `folder` itself, or some files of one."""
    return any(any(folder.glob(pattern)) for pattern in _MODEL_FILES)


def withdraw(out: Path) -> None:
    """Delete the model that `publish` made of a checkpoint; the checkpoints stay."""
    listed = (read(out) or {}).get("files")
    (out / FILE).unlink(missing_ok=True)
    stray = [path.name for pattern in _MODEL_FILES for path in out.glob(pattern)]  # of a publication that was killed
    for name in [*(listed if isinstance(listed, dict) else ()), *stray]:
        if Path(name).name == name:
            (out / name).unlink(missing_ok=True)


def sweep(out: Path) -> None:
    """Delete what a killed run left half done."""
    for path in (out / SAVING, *out.glob(".gone-*")):
        shutil.rmtree(path, ignore_errors=True)
    for path in out.glob("*.partial"):
        with contextlib.suppress(OSError):
            path.unlink()


class Saving:
    """Mixed into a trainer of transformers, in front of it: saves to ``.saving``, seals, renames and rotates.

    `about` tells what the next checkpoint's ``cxr.json`` says, `keep` how many stay.
    """

    about: Callable[[], Mapping[str, Any]]
    keep: int = 2
    _staging = False

    def _get_output_dir(self, trial: Any) -> str:
        out: str = self.args.output_dir  # type: ignore[attr-defined]
        return os.path.join(out, SAVING) if self._staging else out

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        from transformers import Trainer

        args, state = self.args, self.state  # type: ignore[attr-defined]
        out = Path(args.output_dir)
        name = f"checkpoint-{state.global_step}"
        if args.should_save:
            shutil.rmtree(out / SAVING, ignore_errors=True)
        self._wait()
        self._staging = True
        try:
            # Not TRL's own, which writes a model card into the output folder before anything else.
            Trainer._save_checkpoint(self, model, trial)
        finally:
            self._staging = False
        self._wait()
        if args.should_save:
            state.best_model_checkpoint = None  # a path, which means nothing where the folder is moved
            seal(out / SAVING / name, self.about())
            shutil.rmtree(out / name, ignore_errors=True)  # a broken one, or the step was saved already
            os.replace(out / SAVING / name, out / name)
            shutil.rmtree(out / SAVING, ignore_errors=True)
            rotate(out, keep=self.keep, best=state.best_global_step)
        self._wait()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a whole model's weights by ``from_pretrained``, which knows the names that they were saved under.

        Trainer's own way compares the file's names with the model's, and since transformers 5 those of Qwen2-VL and its
        kin differ: it loads nothing, logs a warning, and a run that goes on starts from the base model.
        """
        given = model if model is not None else self.model  # type: ignore[attr-defined]
        if hasattr(given, "peft_config") or self.is_fsdp_enabled:  # type: ignore[attr-defined]
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = type(given).from_pretrained(resume_from_checkpoint, dtype=given.dtype, use_safetensors=True)
        given.load_state_dict(saved.state_dict())

    def _wait(self) -> None:
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
