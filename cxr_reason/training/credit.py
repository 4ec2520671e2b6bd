"""Credit by step: which tokens of a completion earned its reward, and which did not.

Group-relative policy optimisation (GRPO, arXiv 2402.03300) gives every token of completion ``i`` the advantage of the
whole, ``A_i = (r_i - mean r) / std r`` over the completions of one question. A chain that sees the effusion and invents
a fracture is then praised or blamed for both. With verdicts on its claims, tokens are told apart:

    A[i, t] = A_i + λ · x[i, k(t)] / s        x[i, k] = Σ_f w_f · (v[i, f] - b_f) / Σ_f w_f

where ``k(t)`` is the step in which token ``t`` stands, ``f`` runs over the findings that the step claims something of,
``v[i, f]`` is 1 where the report supports that claim and else 0, ``w_f`` its weight (`cxr_reason.rewards.process`),
``b_f`` the mean of ``v[j, f]`` over those completions ``j`` of the group that speak of ``f``, and ``s`` the standard
deviation of the rewards in the group. Tokens outside steps keep ``A_i``.

*Derivation.* Process supervision in the same paper (section 4.1.3) normalises the rewards of all steps of a group
together and gives a token the sum of those from its step on; a long chain then collects more than a short one, and all
steps are held against one mean. But steps differ in how easily they are right: three denials in four are true, and a
finding with its side and severity often isn't. Against one mean, of the group or of the completion, denials look good
and findings look bad whatever the film shows, and a model learns to say less of what is there (measured:
docs/rl.md). So each claim is held against what the others of its group said of the same finding. For every finding the
corrections of a group sum to zero, ``Σ_j (v[j, f] - b_f) = 0``, so they add no bias for speaking of a finding or
against it, and none for length; where all completions say the same of it, or only one speaks of it, they are zero, and
where all steps share a verdict this is plain GRPO. ``1/s`` puts both parts in the same units, as ``A_i`` is divided by
it too; where a group's rewards hardly differ it would turn any difference between claims into a giant, so ``s`` is not
taken below `LEAST_STD`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

LEAST_STD = 0.25
"""Of a summed reward whose parts lie in [0, 1]: half of the widest spread that one of them can have."""

Claims = Sequence[tuple[str, float, bool]]
"""(finding, weight, whether it is supported) of each claim of a step."""


class Step(Protocol):
    """As `cxr_reason.rewards.process.Step`."""

    @property
    def end(self) -> int: ...
    @property
    def start(self) -> int: ...


def by_step(whole: Tensor, credits: Tensor, std: Tensor, *, weight: float) -> Tensor:
    """The advantage of every token, (completions, tokens).

    `whole`: the advantages of completions, (completions,). `credits`: ``x`` of the steps that tokens stand in, 0
    outside, (completions, tokens). `std`: of the rewards in the group of each completion, (completions,). `weight`: λ.
    """
    return whole.unsqueeze(1) + weight * credits / std.clamp(min=LEAST_STD).unsqueeze(1)


def relative(group: Sequence[Sequence[Claims]]) -> list[list[float]]:
    """``x`` of every step of the completions of one question, each a list of steps with their claims."""
    seen: dict[str, list[bool]] = {}
    for completion in group:
        for finding, true in {(finding, true) for step in completion for finding, _, true in step}:
            seen.setdefault(finding, []).append(true)
    mean = {finding: sum(told) / len(told) for finding, told in seen.items()}
    return [
        [
            sum(weight * (true - mean[finding]) for finding, weight, true in step)
            / sum(weight for _, weight, _ in step)
            for step in completion
        ]
        for completion in group
    ]


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


def by_token(spans: Sequence[tuple[int, int]], steps: Sequence[Step], values: Sequence[float]) -> list[float | None]:
    """The value of the step that each token stands in, None outside; a token belongs to the step where it ends.

    `steps` in order, a value each.
    """
    told: list[float | None] = [None] * len(spans)
    position = 0
    for number, (start, end) in enumerate(spans):
        if start == end:
            continue
        while position < len(steps) and steps[position].end < end:
            position += 1
        if position < len(steps) and steps[position].start < end:
            told[number] = values[position]
    return told
