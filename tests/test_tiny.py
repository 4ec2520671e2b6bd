"""The shipped model as others load it: transformers, TRL's way with conversations, vLLM. Nothing here trains it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, environment

from cxr_reason import phantoms, tiny

# Libraries below warn of their own affairs; whoever runs models in this suite runs one at a time.
pytestmark = [pytest.mark.xdist_group("models"), pytest.mark.filterwarnings("ignore")]

QUESTION = "Is a pleural effusion present on this film?"
FILMS, TOKENS = 4, 24


@pytest.fixture(scope="module", autouse=True)
def _no_network() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # not undone: huggingface_hub reads it once


@pytest.fixture(scope="module")
def processor() -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(tiny.path())


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(tiny.path())


def asked(*, answer: str | None = None) -> list[dict[str, Any]]:
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    answered = [{"role": "assistant", "content": [{"type": "text", "text": answer}]}] if answer else []
    return [{"role": "user", "content": content}, *answered]


def film(case: Any) -> Any:
    from PIL import Image

    return Image.fromarray(case.film()).convert("RGB")


def films(count: int) -> list[Any]:
    return [film(case) for case in phantoms.cases(1, count)]


@pytest.fixture(scope="module")
def greedy(model: Any, processor: Any) -> list[str]:
    """What transformers makes of a few films."""
    prompt = processor.apply_chat_template(asked(), add_generation_prompt=True)
    inputs = processor(text=[prompt] * FILMS, images=films(FILMS), return_tensors="pt", padding=True)
    written = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    return processor.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


# ------------------------------------------------------------------------------------------------------------ the files


def test_it_is_small_and_computes_in_float32(model: Any) -> None:
    import torch

    assert sum(file.stat().st_size for file in tiny.path().iterdir()) <= 8_000_000
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert 1e6 <= sum(parameter.numel() for parameter in model.parameters()) <= 5e6
    assert json.loads((tiny.path() / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"


def test_asking_where_it_lies_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'tokenizers', 'numpy'}"
    code = f"import sys; from cxr_reason import tiny; tiny.path(); print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment())
    assert done.stdout == "set()\n", done.stderr


def test_the_tokenizer_can_be_made_again(tmp_path: Path) -> None:
    counts = json.loads((ROOT / "tools" / "tiny_words.json").read_text(encoding="utf-8"))
    tiny.train_tokenizer(counts).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (tiny.path() / "tokenizer.json").read_bytes()


def test_the_chat_template_is_the_module_s(processor: Any) -> None:
    assert processor.chat_template == tiny.CHAT_TEMPLATE


# ---------------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    "text",
    [
        "  Two  spaces,\ttabs\r\n\n and no end ",
        "\u00e9 and e\u0301, \u212b and \u00c5, \ufb01",  # composed and not: nothing is normalised
        "\u80f8\u90e8 \U0001f600\u200d \u0645\u0644\u0641 \x00\x7f\ufffd\u2028",
        "<think>\n1. 14 mm nodule.</think><answer>B</answer>",
    ],
)
def test_any_text_comes_back(processor: Any, text: str) -> None:
    ids = processor.tokenizer(text).input_ids
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text
    assert max(ids) < tiny.VOCABULARY


def test_tags_are_text_and_cheap(processor: Any) -> None:
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        ids = processor.tokenizer(tag).input_ids
        assert len(ids) <= 3
        assert not set(ids) & set(processor.tokenizer.all_special_ids)
    assert processor.tokenizer.all_special_ids != []


def test_our_own_text_takes_few_tokens(processor: Any) -> None:
    step = "The film shows a small left pleural effusion."
    assert len(processor.tokenizer(step).input_ids) <= len(step.split()) + 1


def test_the_template_places_films_and_marks_what_is_generated(processor: Any) -> None:
    text = processor.apply_chat_template(asked(answer="It is."), tokenize=False)
    assert text == (
        f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\nIt is.<|im_end|>\n"
    )
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Yes?"}]
    start = processor.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    assert start == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nYes?<|im_end|>\n<|im_start|>assistant\n"
    )
    marked = processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Yes?"}, {"role": "assistant", "content": "No."}],
        chat_template=tiny.CHAT_TEMPLATE,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    said = [t for t, mine in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if mine]
    assert processor.tokenizer.decode(said) == "No.<|im_end|>"


@pytest.mark.parametrize(("size", "tokens"), [((224, 224), 16), ((448, 448), 16), ((100, 100), 16), ((2000, 1500), 12)])
def test_films_of_any_size_become_few_tokens(processor: Any, size: tuple[int, int], tokens: int) -> None:
    from PIL import Image

    inputs = processor(text=["<|image_pad|>"], images=[Image.new("L", size)], return_tensors="pt")
    assert int((inputs["input_ids"] == tiny.IMAGE).sum()) == tokens


# --------------------------------------------------------------------------------------------------------------- models


def test_it_sees(model: Any, processor: Any) -> None:
    """Large effusions and films without: its word after "Pleural effusion:" is "none" for the latter alone."""
    chosen: dict[bool, list[Any]] = {True: [], False: []}
    for case in phantoms.cases(1, 150):
        of_it = [entry for entry in case.truth if entry["name"] == "pleural effusion"]
        chosen[True] += [case] * any(entry.get("severity") == "severe" for entry in of_it)
        chosen[False] += [case] * (of_it[0]["status"] == "absent")
    cases = [*chosen[True][:8], *chosen[False][:8]]
    start = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}]}], add_generation_prompt=True, tokenize=False
    )
    texts = [f"{start}Pleural effusion:"] * len(cases)
    inputs = processor(text=texts, images=[film(case) for case in cases], return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=1, do_sample=False)[:, -1:]
    told = [word != " none" for word in processor.batch_decode(written)]
    right = sum(said == (case in chosen[True]) for said, case in zip(told, cases, strict=True))
    assert right >= 14, told


def test_an_untrained_one_of_another_size(tmp_path: Path, processor: Any) -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    shape = tiny.Shape(hidden=64, layers=1, heads=2, feed_forward=64, vision_hidden=64, vision_layers=1, vision_heads=2)
    first, second = (tiny.build(tmp_path / name, shape=shape, seed=3) for name in ("a", "b"))
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert AutoProcessor.from_pretrained(first).tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    model = AutoModelForImageTextToText.from_pretrained(first)
    text = processor.apply_chat_template(asked(), add_generation_prompt=True)
    inputs = processor(text=[text], images=films(1), return_tensors="pt")
    with torch.no_grad():
        assert model(**inputs).logits.shape == (1, inputs["input_ids"].shape[1], tiny.VOCABULARY)


VLLM = """
import json, sys
from PIL import Image
from vllm import LLM, SamplingParams

folder, films, question, tokens, out = sys.argv[1:]
if __name__ == "__main__":
    llm = LLM(folder, dtype="float32", enforce_eager=True, gpu_memory_utilization=0.3, max_model_len=512)
    part = {"type": "text", "text": question}
    talks = [
        [{"role": "user", "content": [{"type": "image_pil", "image_pil": Image.open(f)}, part]}] for f in films.split()
    ]
    done = llm.chat(talks, SamplingParams(temperature=0, max_tokens=int(tokens)), use_tqdm=False)
    with open(out, "w") as file:
        json.dump([item.outputs[0].text for item in done], file)
"""


@pytest.mark.vllm
def test_vllm_writes_the_same(tmp_path: Path, greedy: list[str]) -> None:
    paths = [str(tmp_path / f"{number}.png") for number in range(FILMS)]
    for film, path in zip(films(FILMS), paths, strict=True):
        film.save(path)
    script, out = tmp_path / "generate.py", tmp_path / "out.json"
    script.write_text(VLLM, encoding="utf-8")
    words = [sys.executable, str(script), str(tiny.path()), " ".join(paths), QUESTION, str(TOKENS), str(out)]
    env = environment(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1")
    done = subprocess.run(words, capture_output=True, encoding="utf-8", env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(out.read_text(encoding="utf-8")) == greedy
