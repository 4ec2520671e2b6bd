"""What ``--model`` and ``--ckpt`` name: a folder, a model of the hub, a LoRA on either, or ``tiny``.

Weights are read from safetensors alone: a pickle can run any code when it is loaded, so a checkpoint that has nothing
else is refused by name. The hub is asked only for a name of its own form, ``owner/name``, that is no path here; with a
folder the hub is switched off for the whole process, so that no library asks it on its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_reason import tiny
from cxr_reason.errors import CxrError, InputError

TINY = "tiny"
ADAPTER = "adapter_config.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_OF_THE_HUB = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"]
# Weights are known by samples: hashing hundreds of gigabytes would take longer than many runs.
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on this disk."""

    name: str
    """As the user named it."""
    path: Path
    """The folder of the model; where there is an adapter, of its base."""
    adapter: Path | None = None
    """The folder of a LoRA."""

    @property
    def texts(self) -> Path:
        """The folder of the tokenizer and the chat template: the adapter's own where it was saved with one."""
        return self.adapter if self.adapter and (self.adapter / "tokenizer_config.json").is_file() else self.path


def resolve(name: str, *, lora: str | None = None, trust_remote_code: bool = False) -> Checkpoint:
    """The checkpoint that `name` means, from the hub if need be, with the adapter `lora` on it.

    Raises InputError where there is none, or none that may be read: see the module.
    """
    found = _resolve(name, trust_remote_code)
    if lora is None:
        return found
    if found.adapter:
        raise InputError("this is a LoRA already", where=name, hint="Name its base model beside --lora.")
    adapter = _folder(lora, trust_remote_code)
    if not (adapter / ADAPTER).is_file():
        raise InputError(f"there is no {ADAPTER} in it, so it is no LoRA", where=lora)
    _check_weights(adapter, lora)
    return Checkpoint(f"{name} + {lora}", found.path, adapter)


def _resolve(name: str, trust_remote_code: bool) -> Checkpoint:
    path = _folder(name, trust_remote_code)
    if (path / ADAPTER).is_file():
        base = _json(path / ADAPTER).get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            raise InputError("the LoRA doesn't say which model it is for", where=str(path / ADAPTER))
        _check_weights(path, name)
        # A path in it may be meant from here or from the folder itself, as where both were moved together.
        beside = path / base
        found = _resolve(str(beside) if not Path(base).exists() and beside.is_dir() else base, trust_remote_code)
        if found.adapter:
            raise InputError("it is a LoRA on a LoRA, which no engine loads", where=name)
        return Checkpoint(name, found.path, path)
    if not (path / "config.json").is_file():
        raise InputError(
            "there is no config.json in it, so it is no model",
            where=name,
            hint="Name the folder that the model was saved to (a trainer's is often one of its checkpoint-N).",
        )
    _check_weights(path, name)
    return Checkpoint(name, path)


def _folder(name: str, trust_remote_code: bool) -> Path:
    if Path(name).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        return Path(name).resolve()
    if name == TINY:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        return tiny.path()
    if Path(name).exists():
        raise InputError("a model is a folder, and this is a file", where=name)
    # "sft/best" beside a folder sft is a slip of the pen, and nobody else's business.
    if not _HUB_NAME.fullmatch(name) or Path(name).parent.is_dir():
        raise InputError(
            "there is no such folder", where=name, hint="Name a folder, or a model of the hub: owner/name."
        )
    return _downloaded(name, trust_remote_code)


def _downloaded(name: str, trust_remote_code: bool) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download  # type: ignore[import-not-found, unused-ignore]

    try:
        patterns = [*_OF_THE_HUB, "*.py"] if trust_remote_code else _OF_THE_HUB
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # dozens of kinds, over several libraries
        raise InputError(
            f"there is no such folder, and the hub doesn't give a model of that name ({type(error).__name__})",
            where=name,
            hint="On a machine without a network, copy the model to a folder and name that.",
        ) from error


def _check_weights(path: Path, name: str) -> None:
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(found.name for pattern in _PICKLES for found in path.glob(pattern))
    if pickles:
        raise InputError(
            f"its weights are in {pickles[0]}, a pickle, which can run any code when it is loaded",
            where=name,
            hint="Only safetensors are read. Save it again with save_pretrained, on a machine that trusts it.",
        )
    raise InputError("there are no *.safetensors in it", where=name)


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("it can't be read", where=str(path)) from error
    return told if isinstance(told, dict) else {}


def adapter_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of its LoRA."""
    assert checkpoint.adapter
    return _json(checkpoint.adapter / ADAPTER)


def dtype_of(checkpoint: Checkpoint) -> str:
    """The type of a checkpoint's numbers (``bfloat16``): what its config says, else what its weights are.

    vLLM by itself would run float32 in bfloat16.
    """
    config = _json(checkpoint.path / "config.json")
    for part in (config, config.get("text_config") or {}):
        told = part.get("dtype") or part.get("torch_dtype")
        if isinstance(told, str) and told != "auto":
            return told.removeprefix("torch.")
    kinds = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    for path in sorted(checkpoint.path.glob("*.safetensors")):
        for tensor in _header(path).values():
            if isinstance(tensor, dict) and tensor.get("dtype") in kinds:
                return kinds[tensor["dtype"]]
    return "float32"


def _header(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return header if isinstance(header, dict) else {}


def fingerprint(checkpoint: Checkpoint) -> str:
    """16 hex digits that change with a checkpoint's weights and settings, and not with its place or its dates."""
    digest = hashlib.blake2b(digest_size=8)
    for folder in filter(None, (checkpoint.path, checkpoint.adapter)):
        for path in sorted(folder.iterdir()):
            if path.suffix in (".json", ".jinja", ".model", ".txt", ".py", ".safetensors") and path.is_file():
                digest.update(f"{path.name} {path.stat().st_size}\n".encode())
                _add_samples(digest, path)
    return digest.hexdigest()


def _add_samples(digest: Any, path: Path) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(file.read())
            return
        for number in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))


def explain(error: Exception, checkpoint: Checkpoint) -> CxrError:
    """What a library says when it can't load a checkpoint, as an error of ours."""
    told = str(error)
    if "trust_remote_code" in told:
        return CxrError(
            "this model comes with code of its own, which would run here",
            where=checkpoint.name,
            hint="Add --trust-remote-code if you trust whoever wrote it.",
        )
    first = told.strip().splitlines()[0][:300] if told.strip() else type(error).__name__
    return CxrError(f"the model can't be loaded: {first}", where=checkpoint.name)
