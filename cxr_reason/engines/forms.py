"""Prompts as data: a form is a system text and a user text with slots, and the JSON schema of its answer.

What fills a slot was written by others: reports, questions, a model's own earlier answers. It goes in as data and can't
get out of its place: `harmless` breaks up whatever could close its tag, open a turn of the conversation, or be read as
one of a tokenizer's special tokens. Whether the text gives orders is for the model not to mind, and the system texts
say so; that an answer has the right shape and claims nothing that its report doesn't bear out is checked afterwards,
whoever gave the orders.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from cxr_reason.engines.base import Message, Prompt

# <|im_end|>, </report>, <s>, <<SYS>>, <start_of_turn>; "<5 mm" and "< 1 cm" are left alone.
_TAG = re.compile(r"<(?=[^\s\d=.])")
# [INST], [/INST], [TOOL_CALLS]; not [**name**].
_BRACKET = re.compile(r"\[(?=/?[A-Z_]{2,}\])")
_UNSEEN = re.compile(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_BLANKS = re.compile(r" {2,}")


def harmless(text: str) -> str:
    """`text` without anything that a template or a tokenizer would take for its own, and without unseen characters."""
    text = _UNSEEN.sub(" ", text.encode("utf-8", "replace").decode())
    return _BLANKS.sub(" ", _BRACKET.sub("[ ", _TAG.sub("< ", text))).strip()


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of prompt."""

    system: str
    user: str
    """With slots: ``{report}`` between tags of that name."""
    schema: Mapping[str, Any]
    parts: Mapping[str, str]
    """Texts of its own for slots that aren't always filled."""

    def filled(
        self,
        slots: Mapping[str, str | Sequence[str]],
        *,
        key: str,
        schema: Mapping[str, Any] | None = None,
        parts: Collection[str] = (),
    ) -> Prompt:
        """The prompt with its `slots`; a sequence becomes numbered lines. Of its `parts` those named are in it.

        `schema` replaces the form's own.
        """
        texts = {name: _as_text(value) for name, value in slots.items()}
        texts |= {name: text.format(**texts) if name in parts else "" for name, text in self.parts.items()}
        messages = (Message("system", self.system), Message("user", self.user.format(**texts)))
        return Prompt(messages, schema=self.schema if schema is None else schema, key=key)


def load(package: str, name: str = "prompts.toml") -> dict[str, Form]:
    """The forms of a package's prompt file: a table each, with ``user``, ``schema`` and parts; ``system`` is shared."""
    tables = tomllib.loads(files(package).joinpath(name).read_text(encoding="utf-8"))
    system = tables.pop("system").strip()
    return {
        name: Form(system, told.pop("user").strip(), json.loads(told.pop("schema", "{}")), told)
        for name, told in tables.items()
    }


def fingerprint(forms: Mapping[str, Form]) -> str:
    """12 hex digits that change with any word of `forms`."""
    told = json.dumps([[name, form.system, form.user, form.schema, form.parts] for name, form in forms.items()])
    return hashlib.blake2b(told.encode(), digest_size=6).hexdigest()


_AGAIN = "/again"


def again(prompt: Prompt, answer: str | None, faults: Sequence[str]) -> Prompt:
    """`prompt`, asked once more: with the `answer` that it got, where that could be read, and what is wrong with it."""
    told = "\n".join(f"- {harmless(fault)}" for fault in faults)
    said = () if answer is None else (Message("assistant", harmless(answer)),)
    what = "Your last answer can't be used:" if answer is None else "This answer doesn't hold:"
    wish = "Answer once more with the whole JSON object. Mend what is named, or leave it out; keep what is right."
    turns = (*prompt.messages, *said, Message("user", f"{what}\n{told}\n{wish}"))
    return replace(prompt, messages=turns, key=prompt.key + _AGAIN)


def is_again(prompt: Prompt) -> bool:
    """Whether `prompt` asks once more."""
    return prompt.key.endswith(_AGAIN)


def _as_text(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return harmless(value)
    lines = (" ".join(harmless(line).split()) for line in value)
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1)) or "(nothing)"
