"""Items measured in tokens, films included, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cxr_reason.engines import Message, Prompt
from cxr_reason.engines.chat import Chat
from cxr_reason.training.refusals import Refusals


class Ruler:
    """Measures items in tokens, films included, without reading a film's pixels twice.

    What a film takes depends on its size alone, so each size is asked of the processor once. Notes the refusal
    ``template`` where films leave no trace in the text.
    """

    MOST_SIZES = 10_000

    def __init__(self, chat: Chat, refusals: Refusals) -> None:
        self._chat = chat
        self._refusals = refusals
        self._sizes: dict[tuple[int, int], int] = {}
        self._checked = False

    def __call__(self, messages: list[dict[str, Any]], completion: str, images: Sequence[Any]) -> int:
        """The tokens of a conversation that ends with `completion`."""
        from trl.data_utils import apply_chat_template, prepare_multimodal_messages

        example = {
            "prompt": prepare_multimodal_messages(messages, images=list(images)),
            "completion": prepare_multimodal_messages([{"role": "assistant", "content": completion}]),
        }
        text = apply_chat_template(example, self._chat.processor)
        if images and not self._checked:
            self._checked = True
            blind = apply_chat_template(
                {**example, "prompt": prepare_multimodal_messages(messages)}, self._chat.processor
            )
            if blind["prompt"] == text["prompt"]:
                self._refusals.note("template", "")
        tokens = len(self._chat.tokens(text["prompt"])) + len(self._chat.tokens(text["completion"]))
        return tokens + sum(map(self._film, images))

    def _film(self, image: Any) -> int:
        """The tokens that a film adds to its placeholder."""
        if image.size not in self._sizes:
            if len(self._sizes) >= self.MOST_SIZES:
                self._sizes.clear()
            self._sizes[image.size] = self._asked(image)
        return self._sizes[image.size]

    def _asked(self, image: Any) -> int:
        text = self._chat.text(Prompt((Message("user", ""),), images=(image,)))
        try:
            whole = self._chat.processor(text=[text], images=[[image]], add_special_tokens=False)["input_ids"][0]
        except ValueError:  # it found no placeholder for the film
            return 0
        return len(whole) - len(self._chat.tokens(text))
