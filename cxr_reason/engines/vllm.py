"""vLLM in this process and its children: the quickest way to complete many prompts.

Requests enter one by one as earlier ones finish, so that the device is never idle, results come in order as they are
done, and memory doesn't grow with the number of prompts. `LLM.enqueue` and `LLMEngine.step` are what `LLM.generate` is
made of; it would hold all prompts and give nothing before the last.
"""

from __future__ import annotations

import gc
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cxr_reason import console, environment
from cxr_reason.engines import leftovers, models
from cxr_reason.engines.base import Completion, Prompt, Sampling, seed_of
from cxr_reason.engines.chat import Chat
from cxr_reason.errors import CxrError

# Requests that are given out and not returned, as a multiple of those that run at once: a reserve that is ready when
# others finish, and results that wait for an earlier one.
RESERVE, WAITING = 1.0, 4
MAX_IMAGES = 16  # of one prompt
# One study has many questions, which follow on each other: a small cache of prepared images serves them. vLLM's own
# default is 4 GiB, twice.
IMAGE_CACHE_GIB = 0.5
# Of a CPU's memory, which others use too; of a GPU's, vLLM takes what it always does.
CPU_MEMORY = 0.3


@dataclass(slots=True)
class _Slot:
    """A prompt on its way, in the order of the input."""

    completion: Completion | None = None


class VllmEngine:
    """See `cxr_reason.engines.base.Engine`."""

    name = "vllm"

    def __init__(
        self,
        checkpoint: models.Checkpoint,
        *,
        batch_size: int | None = None,
        dtype: str = "auto",
        tensor_parallel: int = 1,
        trust_remote_code: bool = False,
    ) -> None:
        set_up()
        self.model = checkpoint.name
        self.chat = Chat(checkpoint, trust_remote_code=trust_remote_code)
        on_gpu = bool(environment.gpus())
        options: dict[str, Any] = {
            "model": str(checkpoint.path),
            "tokenizer": str(checkpoint.texts),
            "load_format": "safetensors",
            "dtype": models.dtype_of(checkpoint) if dtype == "auto" else dtype,
            "trust_remote_code": trust_remote_code,
            "tensor_parallel_size": tensor_parallel,
            "max_model_len": -1,  # what the model can and the memory holds
            "enable_prefix_caching": True,
            "enforce_eager": not on_gpu,  # compiling for a CPU takes minutes and gains little
            "seed": 0,
            "use_tqdm_on_load": console.is_verbose(),
        }
        if batch_size:
            options["max_num_seqs"] = batch_size
        if not on_gpu:
            options["gpu_memory_utilization"] = CPU_MEMORY
        if self.chat.sees:
            options |= {
                "limit_mm_per_prompt": {"image": MAX_IMAGES, "video": 0},
                "mm_processor_cache_gb": IMAGE_CACHE_GIB,
            }
        if checkpoint.adapter:
            options |= _lora(checkpoint)
        leftovers.watch_over_us()
        try:
            import vllm

            self._llm: Any = vllm.LLM(**options)
        except (RuntimeError, ValueError, OSError, ImportError) as error:
            raise models.explain(error, checkpoint) from error
        self._adapter = None
        if checkpoint.adapter:
            from vllm.lora.request import LoRARequest

            self._adapter = LoRARequest("adapter", 1, str(checkpoint.adapter))
        config = self._llm.llm_engine.vllm_config
        self._context: int = config.model_config.max_model_len
        self._running: int = config.scheduler_config.max_num_seqs

    def complete(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        source = iter(prompts)
        order: deque[_Slot] = deque()
        under_way: dict[str, _Slot] = {}
        most = max(self._running // sampling.count, 1)
        open_to = most + max(int(most * RESERVE), 8)
        more = True
        try:
            while more or order:
                while more and len(under_way) < open_to and len(order) < WAITING * open_to:
                    prompt = next(source, None)
                    if prompt is None:
                        more = False
                        break
                    order.append(slot := _Slot())
                    self._start(prompt, sampling, slot, under_way)
                while order and order[0].completion is not None:
                    yield order.popleft().completion  # type: ignore[misc]
                if under_way:
                    self._step(under_way)
        finally:
            # Whoever asks no further must not leave work behind for the next one who asks.
            if under_way:
                self._llm.llm_engine.abort_request(list(under_way))

    def _start(self, prompt: Prompt, sampling: Sampling, slot: _Slot, under_way: dict[str, _Slot]) -> None:
        tokens = self.chat.tokens(self.chat.text(prompt))
        request: dict[str, Any] = {"prompt_token_ids": tokens}
        if prompt.images:
            request["multi_modal_data"] = {"image": list(prompt.images)}
        parameters = self._parameters(prompt, sampling)
        try:
            (name,) = self._llm.enqueue([request], [parameters], lora_request=self._adapter, use_tqdm=False)
        except Exception as error:  # of classes that change from version to version; a dead engine shows in `_step`
            slot.completion = Completion(error=self._refused(error, prompt))
        else:
            under_way[_public(name)] = slot

    def _refused(self, error: Exception, prompt: Prompt) -> str:
        if len(prompt.images) > MAX_IMAGES:
            return f"it has {len(prompt.images)} films, and at most {MAX_IMAGES} are taken"
        # The message may quote the prompt.
        return (
            f"vLLM refused it ({type(error).__name__}); most often a prompt is longer than the model's context of "
            f"{self._context:,} tokens"
        )

    def _parameters(self, prompt: Prompt, sampling: Sampling) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        drawn = sampling.drawn
        return SamplingParams(
            n=sampling.count,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p if drawn else 1.0,
            top_k=(sampling.top_k or 0) if drawn else 0,
            repetition_penalty=sampling.repetition_penalty,
            stop=list(sampling.stop),
            seed=seed_of(prompt, sampling) if drawn else None,
            structured_outputs=StructuredOutputsParams(json=dict(prompt.schema)) if prompt.schema else None,
        )

    def _step(self, under_way: dict[str, _Slot]) -> None:
        try:
            outputs = self._llm.llm_engine.step()
        except Exception as error:
            raise CxrError(
                f"vLLM ended in mid-run ({type(error).__name__})",
                where=self.model,
                hint="What it said stands above (all of it with -v). Where memory ran out, try a smaller --batch-size.",
            ) from error
        for output in outputs:
            if output.finished:
                slot = under_way.pop(output.request_id, None)
                if slot is not None:
                    slot.completion = _completion(output)

    def close(self) -> None:
        engine = getattr(self, "_llm", None)
        if engine is not None:
            engine.llm_engine.engine_core.shutdown()
            del self._llm
            gc.collect()


def _public(name: str) -> str:
    """The name by which a request comes back. vLLM gives requests a second name, ``7-3f1a…``, when they come in."""
    return name.partition("-")[0]


def _completion(output: Any) -> Completion:
    told = sorted(output.outputs, key=lambda one: one.index)
    return Completion(
        texts=tuple(one.text for one in told),
        ends=tuple("length" if one.finish_reason == "length" else "stop" for one in told),
        prompt_tokens=len(output.prompt_token_ids or ()),
        tokens=sum(len(one.token_ids) for one in told),
    )


def set_up() -> None:
    """What vLLM and its children read of the environment: no reports home, logs to stderr, and few of them."""
    settings = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "TOKENIZERS_PARALLELISM": "false",  # it warns of the processes that vLLM forks
    }
    if not console.is_verbose():
        settings |= {"VLLM_LOGGING_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        logging.getLogger("vllm").setLevel(logging.ERROR)  # until it has read its own setting
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _lora(checkpoint: models.Checkpoint) -> dict[str, Any]:
    assert checkpoint.adapter
    told = models.adapter_config(checkpoint)
    for setting, what in (("modules_to_save", "whole modules beside it"), ("use_dora", "DoRA")):
        if told.get(setting):
            raise CxrError(
                f"vLLM can't load a LoRA with {what} ({setting})",
                where=str(checkpoint.adapter),
                hint="Take --engine transformers, or merge it into its base model first.",
            )
    # vLLM takes ranks of some sizes only, and each adapter in the next larger.
    ranks = [rank for rank in (8, 16, 32, 64, 128, 256, 320, 512) if rank >= int(told.get("r", 8))]
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": ranks[0] if ranks else 512}
