"""A Qwen2-VL small enough for a laptop and for tests, shipped with the package: ``--model tiny``.

Two million parameters in the very architecture, processor and file layout of Qwen2-VL, so that transformers, TRL and
vLLM take it as they take its big relatives. Films of any size are resized to `MAX_PIXELS`; a square one becomes 16
tokens. Its vision tower has learnt to see what `cxr_reason.phantoms` draws, and its language model to write what is
said of such films; it has never met a question, an answer or a ``<think>``. That is what `cxr sft` and `cxr rl` are
for. What it can do and how it was made: docs/models.md and tools/pretrain_tiny.py.

Nothing heavy is imported before a function needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

VOCABULARY = 2048
CONTEXT = 4096
"""Tokens of a prompt and its completion together."""
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
"""Qwen2-VL's special tokens, as far as films need them; their ids are 0 to 6. ``<think>`` and ``<answer>`` are plain
text, for what is special is left out of a decoded completion."""
END, _, END_OF_TURN, VISION_START, VISION_END, IMAGE, VIDEO = range(len(SPECIAL))

PATCH, MERGE = 16, 2
MAX_PIXELS = 128 * 128
"""What a film is resized to, larger or smaller, its shape kept."""

# Qwen2's rule for what may become one token: a word with the sign or space before it, a digit, a run of signs, of
# spaces.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = """\
{#- Qwen2-VL's conversation without its standing system turn. What the assistant says is marked as generated, for
    trainers that learn from whole conversations. -#}
{%- for message in messages -%}
  {%- set body -%}
    {%- if message['content'] is string -%}
      {{- message['content'] -}}
    {%- else -%}
      {%- for part in message['content'] -%}
        {%- if part['type'] in ('image', 'image_url') -%}
          {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
        {%- elif part['type'] == 'text' -%}
          {{- part['text'] -}}
        {%- else -%}
          {{- raise_exception('This model takes text and images, not: ' + part['type']) -}}
        {%- endif -%}
      {%- endfor -%}
    {%- endif -%}
  {%- endset -%}
  {{- '<|im_start|>' + message['role'] + '\\n' -}}
  {%- if message['role'] == 'assistant' -%}
    {%- generation -%}{{- body + '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}
  {%- else -%}
    {{- body + '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a model is; as it stands, as large as the shipped one. Widths are multiples of 32 a head."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    vision_hidden: int = 128
    vision_layers: int = 4
    vision_heads: int = 4


SHIPPED = Shape()


def path() -> Path:
    """The shipped checkpoint: a folder for ``from_pretrained`` and for vLLM."""
    return Path(__file__).parent / "weights" / "tiny"


def build(folder: Path, *, shape: Shape = SHIPPED, seed: int = 0) -> Path:
    """Write an untrained model of `shape` into `folder`, with the shipped tokenizer and processor; give `folder` back.

    The same seed gives the same weights.
    """
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(path())
    save(folder, model=untrained(shape, seed=seed), processor=processor)
    return folder


def save(folder: Path, *, model: Qwen2VLForConditionalGeneration, processor: Qwen2VLProcessor) -> None:
    """Write a checkpoint as transformers writes any: configuration, weights, tokenizer, chat template and the rest."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def untrained(shape: Shape = SHIPPED, *, seed: int = 0) -> Qwen2VLForConditionalGeneration:
    """A model of random weights in float32."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    half = shape.hidden // shape.heads // 2
    across = half * 3 // 8
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.feed_forward,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": max(1, shape.heads // 2),
            "max_position_embeddings": CONTEXT,
            # As Qwen2-VL divides them: a quarter of the frequencies for time (and text), the rest for both axes.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [half - 2 * across, across, across],
            },
            "bos_token_id": None,
            "eos_token_id": END_OF_TURN,
            "pad_token_id": END,
        },
        vision_config={
            "hidden_size": shape.hidden,
            "embed_dim": shape.vision_hidden,
            "depth": shape.vision_layers,
            "num_heads": shape.vision_heads,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=True,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [END_OF_TURN, END]
    model.generation_config.pad_token_id = END
    return model


def processor_of(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    """What turns messages and films into the model's input."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    cut: dict[str, Any] = {
        "size": {"shortest_edge": MAX_PIXELS, "longest_edge": MAX_PIXELS},
        "patch_size": PATCH,
        "merge_size": MERGE,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**cut),
        video_processor=Qwen2VLVideoProcessor(**cut, cap_pixels_per_frame=True),  # never used; the class wants one
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def pieces(text: str) -> list[str]:
    """`text` cut into what may become one token each."""
    return [piece for piece, _ in _cut().pre_tokenize_str(text)]


def train_tokenizer(counts: Mapping[str, int]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `VOCABULARY` tokens, from `pieces` and how often each occurs.

    Any text comes back as it went in: what has no token of its own is spelt in bytes, and nothing is normalised.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [_cut(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((piece for piece in sorted(counts) for _ in range(counts[piece])), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=SPECIAL[END_OF_TURN],
        pad_token=SPECIAL[END],
        extra_special_tokens=list(SPECIAL),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _cut() -> PreTokenizer:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    return Split(Regex(_PIECES), behavior="isolated")
