"""Credit by step: which tokens of a completion earned its reward, and which did not.

Group-relative policy optimisation (GRPO, arXiv 2402.03300) gives every token of completion ``i`` the advantage of the
whole, ``A_i = (r_i - mean r) / std r`` over the completions of one question. A chain that sees the effusion and invents
a fracture is then praised or blamed for both. With a verdict for each step of reasoning, tokens are told apart:

    A[i, t] = A_i + λ · (v[i, k(t)] - v̄_i) / s

where ``k(t)`` is the step in which token ``t`` stands, ``v[i, k]`` in [0, 1] its verdict (the share of its claims that
the report supports, `cxr_reason.rewards.process.steps`), ``v̄_i`` the mean verdict of the completion weighted by tokens,
and ``s`` the standard deviation of the rewards in the group. Tokens outside steps keep ``A_i``.

*Derivation.* Process supervision in the same paper (section 4.1.3) gives a token the sum of the normalised rewards of
the steps from it on; a long chain then collects more than a short one. Here the step's part is centred within its
completion instead: its corrections sum to zero over the tokens, ``Σ_t (A[i, t] - A_i) = 0``. So the advantage of a
completion as a whole, in the mean over its tokens, is exactly GRPO's, its baseline stays unbiased, no length pays, and
where all steps share a verdict every correction is zero: plain GRPO. ``1/s`` puts both parts in the same units, as
``A_i`` is divided by it too.

Where a group's rewards hardly differ, ``1/s`` would turn any difference between steps into a giant: ``s`` is not taken
below `LEAST_STD`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LEAST_STD = 0.25
"""Of a summed reward whose parts lie in [0, 1]: half of the widest spread that one of them can have."""


def by_step(whole: Tensor, verdicts: Tensor, std: Tensor, *, weight: float) -> Tensor:
    """The advantage of every token, (completions, tokens).

    `whole`: the advantages of completions, (completions,). `verdicts`: those of the steps that tokens stand in, NaN
    outside, (completions, tokens). `std`: of the rewards in the group of each completion, (completions,). `weight`: λ.
    """
    inside = ~verdicts.isnan()
    told = verdicts.nan_to_num(0.0)
    mean = told.sum(dim=1) / inside.sum(dim=1).clamp(min=1)
    correction = (told - mean.unsqueeze(1)) / std.clamp(min=LEAST_STD).unsqueeze(1)
    return whole.unsqueeze(1) + weight * correction * inside


def token_spans(tokenizer: Any, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
    """Where in `text`, which is `ids` decoded without special tokens, each token stands: [start, end) in characters.

    From the very ids that were sampled: text that is tokenized again rarely gives the same. A special token takes no
    room; a sign that is made of several tokens ends with the last of them.
    """
    pieces = tokenizer.batch_decode([[token] for token in ids], skip_special_tokens=True)
    if "".join(pieces) == text:
        ends = list(accumulate(len(piece) for piece in pieces))
    else:
        ends = _ends_by_prefix(tokenizer, ids)
    return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []


UNFINISHED = "\ufffd"
"""What half a sign is decoded to."""
WINDOW = 8


def _ends_by_prefix(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """The length of the text of each prefix of `ids`, each decoded with the few tokens before it that are settled."""
    ends: list[int] = []
    settled = told = 0  # tokens that are told, and characters of them
    for count in range(1, len(ids) + 1):
        start = max(0, settled - WINDOW)
        before = tokenizer.decode(ids[start:settled], skip_special_tokens=True)
        now = tokenizer.decode(ids[start:count], skip_special_tokens=True)
        if now.endswith(UNFINISHED):
            ends.append(ends[-1] if ends else 0)
            continue
        told += max(0, len(now) - len(before))
        settled = count
        ends.append(told)
    return ends


def verdicts_of(spans: Sequence[tuple[int, int]], steps: Sequence[Any]) -> list[float]:
    """The verdict of the step that each token stands in, NaN outside; a token belongs to the step where it ends.

    `steps` in order, with `start`, `end` and `verdict`.
    """
    told = [float("nan")] * len(spans)
    position = 0
    for number, (start, end) in enumerate(spans):
        if start == end:
            continue
        while position < len(steps) and steps[position].end < end:
            position += 1
        if position < len(steps) and steps[position].start < end:
            told[number] = steps[position].verdict
    return told
