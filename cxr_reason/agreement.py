"""How far two readers agree: Cohen's kappa."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping

Pair = tuple[Hashable, Hashable]


def kappa(pairs: Iterable[Pair] | Mapping[Pair, int]) -> float | None:
    """Cohen's kappa (1960) of pairs of ratings, or of how often each pair occurs: at most 1, 0 for chance.

    None without pairs, or where both readers only ever gave one value.

    (agreement - chance) / (1 - chance), where chance is the agreement expected of two readers who keep their own share
    of each value and rate at random.
    """
    counted = Counter(pairs)
    total = counted.total()
    first, second = Counter[Hashable](), Counter[Hashable]()
    for (a, b), n in counted.items():
        first[a] += n
        second[b] += n
    if not total or len(first | second) == 1:
        return None
    agreement = sum(n for (a, b), n in counted.items() if a == b) / total
    chance = sum(n * second[value] for value, n in first.items()) / total**2
    return (agreement - chance) / (1 - chance)
