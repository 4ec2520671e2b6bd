"""Prompts in, completions out, in order: what `cxr infer`, chains by a language model and the `llm` judge run on.

Nothing heavy is imported here. An engine is made by `cxr_reason.engines.load` and closed by whoever made it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cxr_reason.streams import stable_hash

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as plain text."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked: a conversation, and the films that its first user turn begins with."""

    messages: tuple[Message, ...]
    images: tuple[Image, ...] = ()
    """RGB, already of the size that the model shall see (`cxr_reason.films`)."""
    schema: Mapping[str, Any] | None = None
    """A JSON schema that the completion has to meet; engines that can enforce it while they write do so."""
    key: str = ""
    """What makes sampling its own: with the same key, prompt, sampling and engine the same text comes, whatever else is
    asked beside it. Usually the record's id."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. Greedy by default, where the rest but `max_tokens` has no say."""

    max_tokens: int = 2048
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    n: int = 1
    """Completions of one prompt, where they are drawn: greedy there is only one."""
    seed: int = 0

    @property
    def drawn(self) -> bool:
        return self.temperature > 0

    @property
    def count(self) -> int:
        """How many texts a completion has."""
        return self.n if self.drawn else 1


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of one prompt: `Sampling.count` texts, or the reason why there is none."""

    texts: tuple[str, ...] = ()
    """Special tokens left out; ``<think>`` and ``<answer>`` are none and stand in them."""
    ends: tuple[Literal["stop", "length"], ...] = ()
    """How each text ended; ``length`` is cut off by `Sampling.max_tokens`."""
    prompt_tokens: int = 0
    """Image tokens included."""
    tokens: int = 0
    """Of all texts together."""
    error: str | None = None
    """A sentence for a colleague, without a word of the prompt."""


def seed_of(prompt: Prompt, sampling: Sampling, number: int = 0) -> int:
    """The seed of the completion `number` of `prompt`, in [0, 2**63): a function of these alone."""
    return stable_hash("sampling", str(sampling.seed), prompt.key, str(number)) >> 1


class Engine(Protocol):
    """Something that completes prompts."""

    name: str
    """As ``--engine`` has it: vllm, transformers, endpoint."""
    model: str
    """As the user named it."""

    def complete(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """A completion for each prompt, in their order, as they are done.

        Takes prompts ahead of what it has given, and no more than it needs to be busy: memory is bounded however many
        there are. They are taken in the thread that asks for completions. A prompt that can't be completed (too long, a
        request refused) is a Completion with an `error`; CxrError is raised for what ends the run (no memory for one
        prompt, a server gone for good).
        """

    def close(self) -> None:
        """Free the device and end what was started."""
