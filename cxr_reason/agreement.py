"""How far readers agree: Cohen's kappa for kinds, the intraclass correlation and Pearson's for numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import sqrt

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


def icc(ratings: Sequence[Sequence[float]]) -> float | None:
    """The intraclass correlation for absolute agreement of single ratings, ICC(A,1) of McGraw and Wong (1996).

    `ratings` has a row an item and a column a reader; it is ICC(2,1) of Shrout and Fleiss (1979). At most 1. None for
    fewer than two items or readers, and where nothing varies.
    """
    n, k = len(ratings), len(ratings[0]) if ratings else 0
    if n < 2 or k < 2:
        return None
    mean = sum(map(sum, ratings)) / (n * k)
    items = [sum(row) / k for row in ratings]
    readers = [sum(column) / n for column in zip(*ratings, strict=True)]
    between_items = k * sum((item - mean) ** 2 for item in items) / (n - 1)
    between_readers = n * sum((reader - mean) ** 2 for reader in readers) / (k - 1)
    total = sum((value - mean) ** 2 for row in ratings for value in row)
    rest = (total - between_items * (n - 1) - between_readers * (k - 1)) / ((n - 1) * (k - 1))
    below = between_items + (k - 1) * rest + k * (between_readers - rest) / n
    return (between_items - rest) / below if below > 1e-12 else None


def pearson(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's correlation in [-1, 1]; None for fewer than two pairs, and where one of the two doesn't vary."""
    if len(pairs) < 2:
        return None
    first, second = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    spread = sqrt(sum((a - first) ** 2 for a, _ in pairs) * sum((b - second) ** 2 for _, b in pairs))
    return sum((a - first) * (b - second) for a, b in pairs) / spread if spread > 1e-12 else None
