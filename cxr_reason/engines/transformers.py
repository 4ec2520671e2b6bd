"""transformers' own `generate`: slower than vLLM, on any machine and with any model that it knows.

Prompts are padded on the left and completed in batches. Where memory runs out the batch is halved, for good. A drawn
token depends on its own prompt's seed and not on what else is in the batch: each completion has random numbers of its
own, by which its tokens are picked from the distribution (inverse transform sampling).
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from cxr_reason import console
from cxr_reason.engines import models
from cxr_reason.engines.base import Completion, Prompt, Sampling, seed_of
from cxr_reason.engines.chat import Chat
from cxr_reason.errors import CxrError

if TYPE_CHECKING:
    import torch

BATCH = 8
End = Literal["stop", "length"]


@dataclass(slots=True)
class _Wanted:
    """One completion that is wanted: `n` of each prompt."""

    prompt: Prompt
    number: int
    text: str


@dataclass(slots=True)
class _Written:
    text: str = ""
    end: End = "stop"
    prompt_tokens: int = 0
    tokens: int = 0
    error: str | None = None


class TransformersEngine:
    """See `cxr_reason.engines.base.Engine`."""

    name = "transformers"
    _synced = False

    def __init__(
        self,
        checkpoint: models.Checkpoint,
        *,
        batch_size: int | None = None,
        dtype: str = "auto",
        tensor_parallel: int = 1,
        trust_remote_code: bool = False,
    ) -> None:
        import torch
        import transformers

        if not console.is_verbose():
            transformers.utils.logging.set_verbosity_error()
            transformers.utils.logging.disable_progress_bar()
        self.model = checkpoint.name
        self.chat = Chat(checkpoint, trust_remote_code=trust_remote_code)
        kind = transformers.AutoModelForImageTextToText if self.chat.sees else transformers.AutoModelForCausalLM
        options: dict[str, Any] = {
            "dtype": models.dtype_of(checkpoint) if dtype == "auto" else dtype,
            "use_safetensors": True,
            "trust_remote_code": trust_remote_code,
        }
        if tensor_parallel > 1:
            options["device_map"] = "auto"  # layer by layer over the devices
        try:
            model: Any = kind.from_pretrained(checkpoint.path, **options)
            if checkpoint.adapter:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, checkpoint.adapter)
            if tensor_parallel == 1:
                model = model.to(_device(torch))
        except (RuntimeError, ValueError, OSError, ImportError) as error:
            raise models.explain(error, checkpoint) from error
        self._take(model.eval(), batch_size)

    @classmethod
    def around(
        cls, model: Any, chat: Chat, *, batch_size: int | None = None, name: str = "", synced: bool = False
    ) -> TransformersEngine:
        """An engine on a model that is somebody else's, such as a trainer's in mid-run, and is left as it was.

        `chat` must not be shared with whoever trains: its padding is set to the left. `synced` where the weights are
        spread over processes, which then must all ask for as many prompts.
        """
        engine = cls.__new__(cls)
        engine.model = name or chat.checkpoint.name
        engine.chat = chat
        engine._synced = synced
        engine._take(model, batch_size)
        return engine

    def _take(self, model: Any, batch_size: int | None) -> None:
        import transformers

        self.chat.tokenizer.padding_side = "left"
        if self.chat.tokenizer.pad_token_id is None:
            self.chat.tokenizer.pad_token = self.chat.tokenizer.eos_token
        self._model = model
        self._size = batch_size or BATCH
        self._told_of_schemas = False
        own = self._model.generation_config
        self._ends = _ids(own.eos_token_id) | _ids(self.chat.tokenizer.eos_token_id)
        # A checkpoint's own sampling (Qwen2-VL penalises repetitions) would slip in where we leave a setting out.
        self._defaults = transformers.GenerationConfig(
            eos_token_id=sorted(self._ends),
            pad_token_id=self.chat.tokenizer.pad_token_id,
            bos_token_id=own.bos_token_id,
        )
        text = self.chat.config.get_text_config()
        self._context: int | None = getattr(text, "max_position_embeddings", None)

    def complete(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        wanted = self._wanted(prompts, sampling)
        held: list[_Wanted] = []
        written: list[_Written] = []  # of the next prompt
        n = sampling.count
        while batch := self._batch(wanted, held):
            done = self._halving(batch, sampling)
            held = batch[len(done) :] + held
            for one in done:
                written.append(one)
                if len(written) == n:
                    yield _completion(written)
                    written = []

    def _wanted(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[_Wanted]:
        for prompt in prompts:
            if prompt.schema and not self._told_of_schemas:
                self._told_of_schemas = True
                console.note("transformers can't hold a model to a schema while it writes; vLLM and endpoints can")
            text = self.chat.text(prompt)
            yield from (_Wanted(prompt, number, text) for number in range(sampling.count))

    def _batch(self, wanted: Iterator[_Wanted], held: list[_Wanted]) -> list[_Wanted]:
        """The next prompts, as many as fit and alike in whether they have films; what is taken too much is `held`."""
        held += islice(wanted, max(self._size - len(held), 0))
        size = next(
            (i for i, one in enumerate(held) if bool(one.prompt.images) != bool(held[0].prompt.images)), len(held)
        )
        size = min(size, self._size)
        batch = held[:size]
        del held[:size]
        return batch

    def _halving(self, batch: list[_Wanted], sampling: Sampling) -> list[_Written]:
        """What was written for the first of `batch`, as many as memory allows."""
        while True:
            try:
                return self._write(batch[: self._size], sampling)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                short = len(batch[: self._size])
            # Here the error, and with it all that its frames hold, is gone.
            self._free()
            if short == 1:
                raise CxrError(
                    "there is not enough memory for a single question",
                    where=self.model,
                    hint="Take a smaller --max-pixels or --max-tokens, --dtype bfloat16, or a device with more memory.",
                )
            self._size = short // 2
            console.warn(f"out of memory with {short} completions at once: going on with {self._size}")

    def _write(self, batch: Sequence[_Wanted], sampling: Sampling) -> list[_Written]:
        import torch
        import transformers

        if not batch:
            return []
        inputs = self._inputs(batch)
        lengths = inputs["attention_mask"].sum(1).tolist()
        if self._context and (long := [length >= self._context for length in lengths]) and any(long):
            told = f"the prompt is longer than the model's context of {self._context:,} tokens"
            fits = iter(self._write([one for one, is_long in zip(batch, long, strict=True) if not is_long], sampling))
            return [_Written(error=told) if is_long else next(fits) for is_long in long]
        steps = transformers.LogitsProcessorList()
        if sampling.drawn:
            steps += _warpers(transformers, sampling)
            steps.append(_Draw([random.Random(seed_of(one.prompt, sampling, one.number)) for one in batch]))
        config = transformers.GenerationConfig(
            **self._defaults.to_diff_dict()
            | {
                "max_new_tokens": sampling.max_tokens,
                "do_sample": False,  # `_Draw` has drawn
                "repetition_penalty": sampling.repetition_penalty,
                "stop_strings": list(sampling.stop) or None,
            }
        )
        own, self._model.generation_config = self._model.generation_config, self._defaults
        try:
            with torch.no_grad():  # not inference_mode: what a model in training keeps of this must allow gradients
                tokens = self._model.generate(
                    **inputs,
                    generation_config=config,
                    logits_processor=steps,
                    tokenizer=self.chat.tokenizer,
                    synced_gpus=self._synced,
                )
        finally:
            self._model.generation_config = own
        new = tokens[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._read(row, length, sampling) for row, length in zip(new, lengths, strict=True)]

    def _inputs(self, batch: Sequence[_Wanted]) -> Any:
        texts = [one.text for one in batch]
        # The text has its special tokens already.
        told = {"padding": True, "return_tensors": "pt", "add_special_tokens": False}
        if batch[0].prompt.images:
            images = [list(one.prompt.images) for one in batch]
            return self.chat.processor(text=texts, images=images, **told).to(self._model.device)
        return self.chat.tokenizer(texts, **told).to(self._model.device)

    def _read(self, row: list[int], prompt_tokens: int, sampling: Sampling) -> _Written:
        """What a row of new tokens says, without what follows its end."""
        ends = self._ends | {self.chat.tokenizer.pad_token_id}  # padding follows a stop string
        at = next((i for i, token in enumerate(row) if token in ends), None)
        end: End = "length" if at is None else "stop"
        tokens = len(row) if at is None else at + 1
        text = self.chat.tokenizer.decode(row[:tokens], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        stops = [found for stop in sampling.stop if (found := text.find(stop)) >= 0]
        if stops:
            text, end = text[: min(stops)], "stop"
        return _Written(text, end, prompt_tokens, tokens)

    def _free(self) -> None:
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def close(self) -> None:
        if hasattr(self, "_model"):
            del self._model
            self._free()


def _completion(written: Sequence[_Written]) -> Completion:
    if error := next((one.error for one in written if one.error), None):
        return Completion(error=error)
    return Completion(
        texts=tuple(one.text for one in written),
        ends=tuple(one.end for one in written),
        prompt_tokens=written[0].prompt_tokens,
        tokens=sum(one.tokens for one in written),
    )


def _device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _ids(told: int | list[int] | None) -> set[int]:
    return set() if told is None else {told} if isinstance(told, int) else set(told)


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA has a class for it; CPUs and other devices raise a RuntimeError that says so."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in told or "not enough memory" in told


def _warpers(transformers: Any, sampling: Sampling) -> list[Any]:
    steps = [transformers.TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        steps.append(transformers.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(transformers.TopPLogitsWarper(sampling.top_p))
    return steps


class _Draw:
    """Leaves of each row's logits the one token that its own random number picks. (rows, vocabulary) in and out."""

    def __init__(self, sources: Sequence[random.Random]) -> None:
        self._draw: list[Callable[[], float]] = [source.random for source in sources]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        heights = scores.double().softmax(-1).cumsum(-1)
        drawn = torch.tensor([[draw()] for draw in self._draw], dtype=heights.dtype, device=heights.device)
        # Rounding may leave the last height below 1.
        chosen = torch.searchsorted(heights, drawn * heights[:, -1:], right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, float("-inf")).scatter(1, chosen, 0.0)
