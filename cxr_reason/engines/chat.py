"""A conversation as the text and the tokens that a model was trained to read, the same for every local engine."""

from __future__ import annotations

from typing import Any

from cxr_reason.engines import models
from cxr_reason.engines.base import Prompt
from cxr_reason.errors import CxrError, InputError


class Chat:
    """The tokenizer of a checkpoint, its chat template and, where it takes images, its processor."""

    def __init__(self, checkpoint: models.Checkpoint, *, trust_remote_code: bool = False) -> None:
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

        self.checkpoint = checkpoint
        own = {"trust_remote_code": trust_remote_code}
        try:
            self.config: Any = AutoConfig.from_pretrained(checkpoint.path, **own)
            self.sees = type(self.config) in AutoModelForImageTextToText._model_mapping
            """Whether it takes images."""
            reader: Any = AutoProcessor if self.sees else AutoTokenizer
            # Of a vision model the processor, of a language model the tokenizer.
            self.processor: Any = reader.from_pretrained(checkpoint.texts, **own)
            self.tokenizer: Any = self.processor.tokenizer if self.sees else self.processor
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise models.explain(error, checkpoint) from error
        # Processors of some checkpoints leave the template to the tokenizer.
        self._template: Any = self.processor if self.processor.chat_template else self.tokenizer
        if not self._template.chat_template:
            raise InputError(
                "it has no chat template, so it is no model that was taught to answer",
                where=checkpoint.name,
                hint="Take the instruction-tuned model of that name.",
            )

    @property
    def template(self) -> str:
        """The chat template, as Jinja has it."""
        return str(self._template.chat_template)

    def text(self, prompt: Prompt) -> str:
        """The prompt as text, one placeholder an image. Raises CxrError where the model can't be asked so."""
        if prompt.images and not self.sees:
            raise CxrError(
                "this is a language model, and the questions come with films",
                where=self.checkpoint.name,
                hint="Name a vision-language model.",
            )
        turns: list[dict[str, Any]] = [{"role": turn.role, "content": turn.text} for turn in prompt.messages]
        if self.sees:
            images = [{"type": "image"}] * len(prompt.images)
            for turn in turns:
                turn["content"] = [
                    *(images if turn["role"] == "user" else ()),
                    {"type": "text", "text": turn["content"]},
                ]
                if turn["role"] == "user":
                    images = []
        try:
            return str(self._template.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a template is a program and may raise anything
            raise CxrError(
                f"its chat template doesn't take this conversation ({type(error).__name__})",
                where=self.checkpoint.name,
            ) from error

    def tokens(self, text: str) -> list[int]:
        """The tokens of a `text`, which has its special tokens already."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
