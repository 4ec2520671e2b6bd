"""What a model is asked and what it should answer: one wording for training, inference and rewards.

The question stands as RadRBench-CXR has it, options and all, after the films; the instruction follows. A model that was
trained on other words reads these worse, so they are the published model's in all but detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cxr_reason import radrbench
from cxr_reason.engines.base import Message, Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

THINK = (
    "Let's think step by step. Enclose the reasoning within <think></think> and the answer within <answer></answer>."
)
ANSWER = "Enclose the answer within <answer></answer>, and write nothing else."
BETWEEN_STEPS = "\n\n"
"""What parts the steps of a chain: a paragraph each, which is how a model's own are read too."""


def prompt_of(
    record: Mapping[str, Any], *, images: Sequence[Image] = (), think: bool = True, instruction: str | None = None
) -> Prompt:
    """What is asked of `record`: its question and options, then `instruction` (default: think, then answer).

    `think` False asks for the answer alone. `images` are the record's, ready to be looked at, those of the prior study
    first (`radrbench.prior_first`). Raises ValueError where
    there is no question.
    """
    question = record.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("a record without a question can't be asked")
    asked = radrbench.asked(question.strip(), record.get("options") or [])
    told = instruction if instruction is not None else THINK if think else ANSWER
    text = f"{asked}\n{told}" if told else asked
    return Prompt((Message("user", text),), tuple(images), key=str(record.get("id") or ""))


def completion_of(record: Mapping[str, Any], *, think: bool = True) -> str:
    """What a model should write for `record`: its steps between ``<think>`` tags, then its answer between its own.

    Raises ValueError where there is no answer, or a chain is wanted and there is none.
    """
    answer = record.get("answer")
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError("a record without an answer is no example")
    tagged = f"<answer>{answer.strip()}</answer>"
    if not think:
        return tagged
    steps = [text for step in record.get("steps") or () if (text := str(step["text"]).strip())]
    if not steps:
        raise ValueError("a record without steps is no example of reasoning")
    return f"<think>{BETWEEN_STEPS.join(steps)}</think>\n{tagged}"
