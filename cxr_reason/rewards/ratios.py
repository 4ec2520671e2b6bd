"""The parts of RadRScore as ratios over one item: the published ones, and those that denials can't buy.

As published (arXiv 2504.20930, the reference code's ratios), a denominator of zero gives 0:

- factuality: claims of the prediction that the report supports / all its claims
- completeness: findings of the reference chain that the prediction tells with the same status and side / all of them
- coverage: findings that the reference chain speaks of and the prediction too, whatever they say / all of the former
- effectiveness: steps of the prediction that the reference chain supports / all its steps
- radrscore: the mean of factuality, completeness and effectiveness

Beside them, since most of what a reference says are denials:

- positive_factuality, positive_completeness: the same over findings called present or suspected; where there is none
  to tell and none is told, they don't apply (None)
- balanced_radrscore: the harmonic mean of a positive and a negative half, each the mean of its factuality and
  completeness. A denial that rests on the report's silence alone weighs nothing. Where the reference has nothing that
  is present there is nothing to balance (None); where it denies nothing the positive half stands alone. The mean is
  harmonic because the plain one pays half for denying everything: such a litany had more than GPT-4o (docs/judging.md)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PARTS = (
    "factuality", "completeness", "coverage", "effectiveness", "radrscore", "positive_factuality",
    "positive_completeness", "balanced_radrscore",
)  # fmt: skip
DIGITS = 6
"""Scores are rounded to so many digits, so that the same item gives the same bytes everywhere."""


def ratios(
    claims: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    topics: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The scores of one item, each in [0, 1] or None, and its `zero_denominators`.

    `claims` have a status, verdict and basis, `reference` findings a status and state, `steps` whether they are
    effective.
    """
    supported = [claim["verdict"] == "supported" for claim in claims]
    told = [finding["state"] == "told" for finding in reference]
    named = [topic["named"] for topic in topics]
    effective = [step["effective"] for step in steps]
    parts = {"factuality": supported, "completeness": told, "coverage": named, "effectiveness": effective}
    scores: dict[str, Any] = {name: _share(hits) or 0.0 for name, hits in parts.items()}
    scores["radrscore"] = _mean(scores[name] for name in ("factuality", "completeness", "effectiveness"))
    denied = [claim["status"] == "absent" for claim in claims]
    absent = [finding["status"] == "absent" for finding in reference]
    weighs = [not (claim["basis"] == "silent" and ok) for claim, ok in zip(claims, supported, strict=True)]
    positive = _half(
        [ok for ok, no in zip(supported, denied, strict=True) if not no],
        [ok for ok, no in zip(told, absent, strict=True) if not no],
    )
    negative = _half(
        [ok for ok, no, counts in zip(supported, denied, weighs, strict=True) if no and counts],
        [ok for ok, no in zip(told, absent, strict=True) if no],
    )
    scores["positive_factuality"], scores["positive_completeness"] = positive
    scores["balanced_radrscore"] = _balanced(_mean(positive), _mean(negative)) if not all(absent) else None
    return {name: _rounded(scores[name]) for name in PARTS} | {
        "zero_denominators": [name for name, hits in parts.items() if not hits]
    }


def _half(supported: Sequence[bool], told: Sequence[bool]) -> tuple[float | None, float | None]:
    """(factuality, completeness) of one half. With something to tell, telling nothing is a factuality of 0."""
    factuality = _share(supported)
    if factuality is None and told:
        factuality = 0.0
    return factuality, _share(told)


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _balanced(positive: float | None, negative: float | None) -> float | None:
    if positive is None or negative is None:
        return positive
    return 2 * positive * negative / (positive + negative) if positive and negative else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def unjudged() -> dict[str, Any]:
    """The scores of an item that couldn't be judged."""
    return {**dict.fromkeys(PARTS), "zero_denominators": []}
