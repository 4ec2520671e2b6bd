#!/usr/bin/env python3
"""Make `tiny`, the model that cxr ships (cxr_reason/weights/tiny), from nothing but this project's own films and text.

    python tools/pretrain_tiny.py              # all of it; about 15 minutes on two cores
    python tools/pretrain_tiny.py --measure    # only the figures of docs/models.md
    python tools/pretrain_tiny.py --words      # only tools/tiny_words.json and the tokenizer: then make all of it

1. Tokenizer: pieces of phantom reports, of chains mined from them, of examples/reports.csv and of the words that
   questions are asked in, counted in tools/tiny_words.json. That file is kept, so that the tokenizer stays the same
   when wording changes elsewhere, and can be made again in a second.
2. Vision: films are drawn and resized as the processor does it. From the mean of a film's tokens, behind the merger, a
   linear layer says what is drawn, with side, site and degree; that layer is thrown away.
3. Language: shown a film in a user's turn without a word, the model writes its report, or what is drawn, name by name.
   Vision goes on learning, slowly. No question, no answer, no chain, no ``<think>``.

All is seeded: with the same libraries and threads on the same kind of machine the same weights come out. Weights are
rounded to float16 on disk, which halves the file; the configuration says float32, and so they are computed with.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision  # noqa: E402

from cxr_reason import phantoms, tiny  # noqa: E402

WORDS = ROOT / "tools" / "tiny_words.json"
SEED = 20_000
"""The world of the films that it learns from; `SEED` + 1 is that of the films it is measured on."""
FILMS, HELD_OUT = 20_000, 1_000
GRID = math.isqrt(tiny.MAX_PIXELS) // tiny.PATCH
"""Patches along a side of a square film."""

# ------------------------------------------------------------------------------------------------------------ tokenizer

CHAINS_OF = 1_500
"""Phantom reports that words are counted in."""
RARE = 2
"""A piece of our texts that occurs less often is not kept in the list."""
TAGS_WEIGHT = 2_000
"""How often the frame counts: what stands in every prompt and completion should cost few tokens."""
FRAME = (
    "<think>\n\n</think>\n<answer>A</answer>\n\nA. Yes\nB. No\nC.\nD.\nA: B: C: D: (A) (B) (C) (D)\n"
    "Let's think step by step. Enclose the reasoning within <think></think> and the answer within <answer></answer>. "
    "Enclose the answer within <answer></answer>, and write nothing else."
)


def words() -> dict[str, int]:
    """Pieces of all our texts and how often each occurs."""
    counts: collections.Counter[str] = collections.Counter()
    for text in _texts():
        counts.update(tiny.pieces(text))
    for piece in tiny.pieces(FRAME):
        counts[piece] += TAGS_WEIGHT
    return {piece: count for piece, count in sorted(counts.items()) if count >= RARE}


def _texts() -> Iterator[str]:
    cases = list(phantoms.cases(SEED + 2, CHAINS_OF))
    for case in cases:
        yield case.report
        yield drawn_text(case, random.Random(case.index))
    with open(ROOT / "examples" / "reports.csv", encoding="utf-8", newline="") as file:
        rows = [row["report"] for row in csv.DictReader(file) if row.get("report")]
    yield from rows
    given = [{"study_id": case.study_id, "report": case.report} for case in cases]
    given += [{"study_id": f"example {number}", "report": report} for number, report in enumerate(rows)]
    for chain in _chains(given):
        yield chain["question"]
        yield from chain["options"] or ()
        for step in chain["steps"]:
            yield step["text"]


def _chains(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for stage in ("mine", "refine"):
        command = [sys.executable, "-m", "cxr_reason", stage, "-q"]
        lines = subprocess.run(command, input=lines, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
    return map(json.loads, lines.splitlines())


# ---------------------------------------------------------------------------------------------------------------- films


def films(seed: int, count: int) -> NDArray[np.uint8]:
    """The first `count` films of the world `seed`, as the processor resizes them: (count, side, side)."""
    side = GRID * tiny.PATCH
    out = np.empty((count, side, side), np.uint8)
    parts = [(seed, start, min(start + 100, count)) for start in range(0, count, 100)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for (_, start, stop), drawn in zip(parts, pool.map(_draw, parts), strict=True):
            out[start:stop] = drawn
    return out


def _draw(part: tuple[int, int, int]) -> NDArray[np.uint8]:
    from torchvision.transforms.v2 import functional as resizing

    torch.set_num_threads(1)
    seed, start, stop = part
    drawn = np.stack([phantoms.case(seed, index).film() for index in range(start, stop)])
    bicubic = resizing.InterpolationMode.BICUBIC
    side = [GRID * tiny.PATCH] * 2
    return resizing.resize(torch.from_numpy(drawn), side, interpolation=bicubic, antialias=True).numpy()


def varied(images: Tensor, dice: torch.Generator) -> Tensor:
    """`images` (n, side, side) a little turned, moved, larger or smaller, brighter or darker. Never mirrored."""
    count, side = images.shape[0], images.shape[-1]
    turn, scale, right, down, contrast, light = ((torch.rand(6, count, generator=dice) - 0.5) * 2).unbind()
    turn, scale = turn * 0.05, 1 + scale * 0.06
    cosine, sine = scale * turn.cos(), scale * turn.sin()
    rows = (torch.stack([cosine, -sine, right * 0.06], 1), torch.stack([sine, cosine, down * 0.06], 1))
    grid = F.affine_grid(torch.stack(rows, 1), [count, 1, side, side], align_corners=False)
    moved = F.grid_sample(images.float()[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    shown = (moved - 128) * (1 + 0.15 * contrast)[:, None, None] + 128 + (20 * light)[:, None, None]
    return shown.clamp(0, 255)


# --------------------------------------------------------------------------------------------------------------- vision

VISION_STEPS, VISION_BATCH, VISION_RATE = 2_800, 32, 1.2e-3
LEAST = 0.004
"""A fact that is true of a smaller share of the films is not asked for."""
UNKNOWN = -1.0


class Eyes(nn.Module):
    """The model's own vision tower and merger for square films of one size, three times as fast on a CPU: patches are
    embedded by a matrix, since a film is grey and stands still, and all films are attended to at once."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        along = torch.arange(GRID // tiny.MERGE)
        inner = torch.arange(tiny.MERGE)
        row, column, down, right = torch.meshgrid(along, along, inner, inner, indexing="ij")
        places = torch.stack([row * tiny.MERGE + down, column * tiny.MERGE + right], -1).view(-1, 2)
        cosine, sine = tower.rotary_pos_emb(torch.zeros(1), places)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Grey levels (n, side, side) to tokens (n, tokens, hidden)."""
        count, patch, half = images.shape[0], tiny.PATCH, GRID // tiny.MERGE
        cut = ((images.float() / 255 - 0.5) / 0.25).view(count, half, tiny.MERGE, patch, half, tiny.MERGE, patch)
        cut = cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(count * GRID**2, patch**2)
        state = cut @ self.tower.patch_embed.proj.weight.sum((1, 2)).flatten(1).T
        for block in self.tower.blocks:
            heads = block.attn.num_heads
            query, key, value = block.attn.qkv(block.norm1(state)).view(len(state), 3, heads, -1).unbind(1)
            query, key = apply_rotary_pos_emb_vision(
                query, key, self.cosine.repeat(count, 1), self.sine.repeat(count, 1)
            )
            query, key, value = (part.view(count, GRID**2, heads, -1).transpose(1, 2) for part in (query, key, value))
            seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(len(state), -1)
            state = state + block.attn.proj(seen)
            state = state + block.mlp(block.norm2(state))
        return self.tower.merger(state).view(count, half**2, -1)


def facts(case: phantoms.Case) -> dict[str, float]:
    """What is drawn, each fact by a name of its own: 1 true, `UNKNOWN` where a finding can neither be called present
    nor absent. What is not listed of a finding that is known is false."""
    found: dict[str, float] = dict.fromkeys(phantoms.NAMES, UNKNOWN)
    for entry in case.truth:
        name, present = entry["name"], entry["status"] == "present"
        if entry["status"] == "uncertain":
            continue
        found[name] = max(found[name], float(present))
        if present:
            side = entry.get("side", "")
            for detail in (side, entry.get("severity"), f"{side} {entry['site']}" if "site" in entry else None):
                if detail:
                    found[f"{name}, {detail}"] = 1.0
    return found


def table(cases: Sequence[phantoms.Case], names: Sequence[str] = ()) -> tuple[list[str], Tensor]:
    """The facts of `cases`, (cases, names), each 0, 1 or `UNKNOWN`; `names` by default those true often enough."""
    rows = [facts(case) for case in cases]
    if not names:
        often = collections.Counter(name for row in rows for name, value in row.items() if value == 1)
        names = sorted(name for name, count in often.items() if count >= LEAST * len(rows))
    return list(names), torch.tensor([[_fact(row, name) for name in names] for row in rows])


def _fact(row: dict[str, float], name: str) -> float:
    finding = name.split(",")[0]
    return UNKNOWN if row[finding] == UNKNOWN else row.get(name, 0.0)


def fact_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Cross-entropy over what is known."""
    loss = F.binary_cross_entropy_with_logits(logits, true.clamp(min=0), reduction="none")
    return (loss * (true != UNKNOWN)).mean()


def learn_to_see(eyes: Eyes, head: nn.Linear, images: Tensor, true: Tensor, *, steps: int) -> None:
    """Train the tower, and `head`, which reads the mean of a film's tokens."""
    trained = [*eyes.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=VISION_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    dice = torch.Generator().manual_seed(SEED)
    shown = Progress("vision", steps)
    for step in range(steps):
        _set_rate(optimizer, VISION_RATE, step, steps)
        chosen = torch.randint(len(images), (VISION_BATCH,), generator=dice)
        loss = fact_loss(head(eyes(varied(images[chosen], dice)).mean(1)), true[chosen])
        _descend(optimizer, loss, trained)
        shown.step(loss)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Up over the first 5 %, then down along a cosine to a fiftieth."""
    warm = min(1.0, (step + 1) / (0.05 * steps))
    for group in optimizer.param_groups:
        group["lr"] = group.get("share", 1.0) * rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, trained: Sequence[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()


class Progress:
    """A line on stderr now and then: steps, loss, time."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.done, self.losses = name, steps, 0, list[float]()
        self.start = time.monotonic()

    def step(self, loss: Tensor) -> None:
        self.done += 1
        self.losses.append(loss.item())
        if self.done % 100 == 0 or self.done == self.steps:
            mean, gone = sum(self.losses) / len(self.losses), time.monotonic() - self.start
            print(f"{self.name}: {self.done}/{self.steps} steps, loss {mean:.3f}, {gone:.0f} s", file=sys.stderr)
            self.losses.clear()


# ------------------------------------------------------------------------------------------------------------- language

LANGUAGE_STEPS, LANGUAGE_BATCH, LANGUAGE_RATE = 1_200, 32, 1.5e-3
VISION_SHARE = 0.1
"""How fast vision goes on learning, beside language."""
LISTED = 7
"""Findings in a list of what is drawn."""
IGNORED = -100  # transformers' label of a token that costs nothing


def drawn_text(case: phantoms.Case, dice: random.Random) -> str:
    """Some of what is drawn, in any order: "Pleural effusion: left, moderate. Pneumothorax: none." What may be asked
    of findings is all here; only nobody asks."""
    lines: dict[str, list[str]] = {}
    for entry in case.truth:
        if entry["status"] == "uncertain":
            continue
        said = lines.setdefault(entry["name"], [])
        if entry["status"] == "present":
            place = " ".join(filter(None, (entry.get("side"), entry.get("site"))))
            said.append(", ".join(filter(None, (place, entry.get("severity")))) or "present")
    names = list(lines)
    dice.shuffle(names)
    names.sort(key=lambda name: dice.random() - 0.5 * bool(lines[name]))  # what is present comes up more often
    chosen = names[:LISTED]
    dice.shuffle(chosen)
    return " ".join(f"{name.capitalize()}: {' and '.join(lines[name]) or 'none'}." for name in chosen)


class Pages:
    """Films and their texts as input ids: a user's turn with nothing but the film, and what the model says."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        shown = "<|vision_start|>" + "<|image_pad|>" * (GRID // tiny.MERGE) ** 2 + "<|vision_end|>"
        before = f"<|im_start|>user\n{shown}<|im_end|>\n<|im_start|>assistant\n"
        self.before: list[int] = tokenizer(before).input_ids

    def batch(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Input ids, and labels for what is said and the end of the turn."""
        said = [[*ids, tiny.END_OF_TURN] for ids in self.tokenizer(list(texts)).input_ids]
        longest = max(map(len, said))
        ids = [self.before + part + [tiny.END] * (longest - len(part)) for part in said]
        labels = [[IGNORED] * len(self.before) + part + [IGNORED] * (longest - len(part)) for part in said]
        return torch.tensor(ids), torch.tensor(labels)


def text_loss(model: Any, tokens: Tensor, ids: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy a token of what is said of films whose tokens are `tokens` (n, tokens, hidden)."""
    place = ids == tiny.IMAGE
    words = model.get_input_embeddings()(ids).masked_scatter(place[..., None], tokens)
    sizes = torch.tensor([[1, GRID, GRID]]).expand(len(ids), -1)
    positions, _ = model.model.get_rope_index(ids, place.int(), image_grid_thw=sizes)
    # What pads stands at the end, where nothing that counts looks.
    return model(inputs_embeds=words, position_ids=positions, labels=labels, use_cache=False).loss


def learn_to_tell(
    model: Any,
    *,
    eyes: Eyes,
    head: nn.Linear,
    pages: Pages,
    cases: Sequence[phantoms.Case],
    images: Tensor,
    true: Tensor,
    steps: int,
) -> None:
    """Train language on films and what is said of them, while vision doesn't forget."""
    vision = [*eyes.parameters(), *head.parameters()]
    own = {id(parameter) for parameter in vision}
    language = [parameter for parameter in model.parameters() if id(parameter) not in own]
    groups = [{"params": language}, {"params": vision, "share": VISION_SHARE}]
    optimizer = torch.optim.AdamW(groups, lr=LANGUAGE_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    dice, texts = torch.Generator().manual_seed(SEED + 3), random.Random(SEED)
    shown = Progress("language", steps)
    for step in range(steps):
        _set_rate(optimizer, LANGUAGE_RATE, step, steps)
        chosen = torch.randint(len(images), (LANGUAGE_BATCH,), generator=dice)
        said = [
            drawn_text(cases[index], texts) if texts.random() < 0.6 else cases[index].report
            for index in chosen.tolist()
        ]
        tokens = eyes(varied(images[chosen], dice))
        loss = text_loss(model, tokens, *pages.batch(said))
        _descend(optimizer, loss + fact_loss(head(tokens.mean(1)), true[chosen]), [*language, *vision])
        shown.step(loss)


# -------------------------------------------------------------------------------------------------------------- figures

PROBED = 4_000
"""Films that the probe learns from; they are among those that the model learnt from."""


@torch.no_grad()
def seen(eyes: Eyes, images: Tensor) -> Tensor:
    """The tokens of all `images`: (n, tokens, hidden)."""
    return torch.cat([eyes(part) for part in images.split(100)])


def probe(tokens: Tensor, true: Tensor) -> nn.Linear:
    """A linear layer from the mean of a film's tokens to facts, fitted without touching the model."""
    inputs = tokens.mean(1)
    layer = nn.Linear(inputs.shape[1], true.shape[1])
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = fact_loss(layer(inputs), true) + 1e-5 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer


def area(scores: Tensor, true: Tensor) -> float:
    """Area under the ROC curve."""
    positive, negative = scores[true == 1], scores[true == 0]
    above = (positive[:, None] > negative).float() + 0.5 * (positive[:, None] == negative)
    return float(above.mean())


def balanced(told: Tensor, true: Tensor) -> float:
    """Mean of sensitivity and specificity of `told` (bool), over what is known."""
    return float((told[true == 1].float().mean() + (~told[true == 0]).float().mean()) / 2)


@torch.no_grad()
def measure(folder: Path) -> None:
    """Print what the checkpoint in `folder` sees and says of films that it has never met."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    eyes, pages = Eyes(model.model.visual), Pages(tokenizer)
    known = list(phantoms.cases(SEED, PROBED))
    cases = list(phantoms.cases(SEED + 1, HELD_OUT))
    names, true_known = table(known)
    _, true = table(cases, names)
    tokens = seen(eyes, torch.from_numpy(films(SEED + 1, HELD_OUT)))
    with torch.enable_grad():
        layer = probe(seen(eyes, torch.from_numpy(films(SEED, PROBED))), true_known)
    scores = layer(tokens.mean(1))

    print(f"{HELD_OUT:,} films never learnt from; {sum(p.numel() for p in model.parameters()):,} parameters")
    print("| finding | films | AUC | side | told | told, wrong film |\n|---|---|---|---|---|---|")
    wrong = tokens.roll(HELD_OUT // 2, 0)  # neighbours may be the same patient
    for name in phantoms.NAMES:
        if name not in names:
            continue
        column = names.index(name)
        sided = [f"{name}, {side}" for side in ("left", "right")]
        side = "" if not set(sided) <= set(names) else f"{_side(scores, true, [names.index(s) for s in sided]):.2f}"
        told = [balanced(_told(model, pages, films_, name), true[:, column]) for films_ in (tokens, wrong)]
        count = int((true[:, column] == 1).sum())
        print(f"| {name} | {count} | {area(scores[:, column], true[:, column]):.3f} | {side} | "
              f"{told[0]:.2f} | {told[1]:.2f} |")  # fmt: skip
    dice = random.Random(0)
    for kind, texts in (("reports", [case.report for case in cases]), ("lists", [drawn_text(c, dice) for c in cases])):
        right, shuffled = (
            math.exp(sum(_loss(model, pages, films_, texts)) / len(texts) * 50) for films_ in (tokens, wrong)
        )
        print(f"perplexity of {kind}: {right:.3f} with their films, {shuffled:.3f} with others'")


def _loss(model: Any, pages: Pages, tokens: Tensor, texts: Sequence[str]) -> Iterator[float]:
    for start in range(0, len(texts), 50):
        yield float(text_loss(model, tokens[start : start + 50], *pages.batch(texts[start : start + 50])))


def _told(model: Any, pages: Pages, tokens: Tensor, name: str) -> Tensor:
    """Whether the model, having written "Name:", goes on with anything but "none"."""
    start = pages.before + pages.tokenizer(f"{name.capitalize()}:").input_ids
    none = pages.tokenizer(" none").input_ids[0]
    said = []
    for part in tokens.split(100):
        ids = torch.tensor([start] * len(part))
        place = ids == tiny.IMAGE
        words = model.get_input_embeddings()(ids).masked_scatter(place[..., None], part)
        sizes = torch.tensor([[1, GRID, GRID]]).expand(len(ids), -1)
        positions, _ = model.model.get_rope_index(ids, place.int(), image_grid_thw=sizes)
        logits = model(inputs_embeds=words, position_ids=positions, use_cache=False, logits_to_keep=1).logits[:, -1]
        said.append(logits.argmax(-1) != none)
    return torch.cat(said)


def _side(scores: Tensor, true: Tensor, columns: Sequence[int]) -> float:
    """Share of the one-sided films where the probe's likelier side is the right one."""
    left, right = columns
    one = (true[:, left] == 1) != (true[:, right] == 1)
    return float(((scores[one, left] > scores[one, right]) == (true[one, left] == 1)).float().mean())


# ----------------------------------------------------------------------------------------------------------------- main


def make(folder: Path, *, count: int, vision_steps: int, language_steps: int) -> None:
    """Train and write the checkpoint."""
    tokenizer = tiny.train_tokenizer(json.loads(WORDS.read_text(encoding="utf-8")))
    started = time.monotonic()
    images = torch.from_numpy(films(SEED, count))
    print(f"films: {count:,}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    cases = list(phantoms.cases(SEED, count))
    names, true = table(cases)
    model = tiny.untrained(seed=SEED)
    torch.manual_seed(SEED)
    eyes, head = Eyes(model.model.visual), nn.Linear(model.config.text_config.hidden_size, len(names))
    learn_to_see(eyes, head, images, true, steps=vision_steps)
    learn_to_tell(
        model,
        eyes=eyes,
        head=head,
        pages=Pages(tokenizer),
        cases=cases,
        images=images,
        true=true,
        steps=language_steps,
    )
    tiny.save(folder, model=model, processor=tiny.processor_of(tokenizer))
    halved = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=halved)
    (folder / "model.safetensors").chmod(0o644)  # for all who install the package; safetensors makes it private


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--words", action="store_true", help="only the word list and the tokenizer")
    parser.add_argument("--measure", action="store_true", help="only the figures")
    parser.add_argument("--out", type=Path, default=tiny.path(), help="where to (default: where it is shipped from)")
    parser.add_argument("--films", type=int, default=FILMS)
    parser.add_argument("--vision-steps", type=int, default=VISION_STEPS)
    parser.add_argument("--language-steps", type=int, default=LANGUAGE_STEPS)
    given = parser.parse_args()
    torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
    if given.words:
        WORDS.write_text(json.dumps(words(), ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        return
    if not given.measure:
        make(given.out, count=given.films, vision_steps=given.vision_steps, language_steps=given.language_steps)
    measure(given.out)


if __name__ == "__main__":
    main()
