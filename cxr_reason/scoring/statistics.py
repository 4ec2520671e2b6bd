"""Intervals and tests over items that belong to patients, in memory that doesn't grow with the items.

Items of one patient aren't independent of each other, so patients are resampled, with all their items. `Replicates`
does it while items stream by: each of `draws` replicates gives every cluster (patient) a weight of its own, and every
column's weighted sum is kept. With weights from Poisson(1) that is the bootstrap as items come (Hanley and MacGibbon
2006, doi 10.1016/j.cmpb.2006.04.006; Chamandy et al. 2012 for data of any size); with signs, +1 or -1, it is the
permutation test of paired differences, in which the two models of a patient change places together.

A weight is a function of the seed and the cluster alone (numpy's counter-based Philox), and values are rounded to
multiples of 2^-20 so that float64 adds them exactly. So the result doesn't depend on the order of the items, on batches
or on the machine.

numpy is the extra `score`; it is imported when a `Replicates` is made, and without it figures have no intervals.
"""

from __future__ import annotations

import base64
import importlib.util
import zlib
from collections import defaultdict
from collections.abc import Hashable, Mapping
from functools import lru_cache
from math import exp, factorial
from typing import TYPE_CHECKING, Any, Literal, cast

from cxr_reason.streams import stable_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Weights = NDArray[np.int8]

DRAWS = 1000
PERMUTATIONS = 9999
LEVEL = 0.95
_BATCH = 256
_SCALE = float(1 << 20)
_CACHED_CLUSTERS = 512

Column = Hashable


def available() -> bool:
    """Whether numpy is there, so that intervals can be had."""
    return importlib.util.find_spec("numpy") is not None


class Replicates:
    """Weighted sums of columns, one for each of `draws` replicates.

    `kind` says what a cluster's weight in a replicate is: "poisson" (how often it is drawn, 1 in the mean) or "signs"
    (+1 or -1). Columns come into being when something is added to them; values are numbers up to 2^20 in size.
    """

    def __init__(self, draws: int = DRAWS, *, seed: int = 0, kind: Literal["poisson", "signs"] = "poisson") -> None:
        import numpy as np

        self.draws = draws
        self.seed = seed
        self.kind = kind
        self._numpy = np
        self._rows: dict[Column, int] = {}
        self._sums: Floats = np.zeros((0, draws))
        # Batches of items with the same columns: their values then make a small dense matrix.
        self._waiting: dict[str, list[tuple[str, Mapping[Column, float]]]] = defaultdict(list)
        self._weights = lru_cache(maxsize=_CACHED_CLUSTERS)(self._drawn)

    def add(self, cluster: str, values: Mapping[Column, float], *, batch: str = "") -> None:
        """Add an item's `values`, by column. Items of one `batch` should have mostly the same columns."""
        waiting = self._waiting[batch]
        waiting.append((cluster, values))
        if len(waiting) >= _BATCH:
            self._add_all(self._waiting.pop(batch))

    def sums(self, column: Column) -> Floats:
        """The weighted sums of `column`: shape (draws,), zeros for a column that nobody has added to."""
        self._flush()
        row = self._rows.get(column)
        return self._numpy.zeros(self.draws) if row is None else self._sums[row] / _SCALE

    def state(self) -> dict[str, Any]:
        """All of it, as JSON: columns must be tuples of texts."""
        self._flush()
        packed = zlib.compress(self._sums[: len(self._rows)].tobytes(), 1)
        return {"columns": [list(column) for column in self._rows], "sums": base64.b64encode(packed).decode()}  # type: ignore[call-overload]

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a `state`; None is the start."""
        np = self._numpy
        self._waiting.clear()
        columns = [tuple(column) for column in state["columns"]] if state else []
        self._rows = {column: row for row, column in enumerate(columns)}
        packed = zlib.decompress(base64.b64decode(state["sums"])) if state else b""
        self._sums = np.frombuffer(packed, dtype=np.float64).reshape(len(columns), self.draws).copy()

    def _flush(self) -> None:
        for batch in list(self._waiting):
            self._add_all(self._waiting.pop(batch))

    def _add_all(self, items: list[tuple[str, Mapping[Column, float]]]) -> None:
        np = self._numpy
        columns = list(dict.fromkeys(column for _, values in items for column in values))
        places = {column: place for place, column in enumerate(columns)}
        values = np.zeros((len(columns), len(items)))
        for number, (_, item) in enumerate(items):
            for column, value in item.items():
                values[places[column], number] = round(value * _SCALE)
        weights = np.stack([self._weights(cluster) for cluster, _ in items]).astype(np.float64)
        added = values @ weights
        rows = [self._rows.setdefault(column, len(self._rows)) for column in columns]
        if len(self._rows) > len(self._sums):
            grown = np.zeros((2 * len(self._rows), self.draws))
            grown[: len(self._sums)] = self._sums
            self._sums = grown
        self._sums[rows] += added

    def _drawn(self, cluster: str) -> Weights:
        """The weights of a cluster: shape (draws,)."""
        np = self._numpy
        bits = np.random.Philox(key=stable_hash("replicates", self.kind, self.seed, cluster))
        if self.kind == "signs":
            raw = bits.random_raw(-(-self.draws // 64)).astype("<u8")
            drawn = 2 * np.unpackbits(raw.view(np.uint8))[: self.draws].astype(np.int8) - 1
        else:
            raw = bits.random_raw(-(-self.draws // 4)).astype("<u8")
            drawn = _poisson()[raw.view("<u2")[: self.draws]]
        return cast("Weights", drawn)


@lru_cache(maxsize=1)
def _poisson() -> Weights:
    """Poisson(1) of a random 16-bit number: shape (65536,), probabilities right to 2^-17."""
    import numpy as np

    below = np.cumsum([exp(-1) / factorial(count) for count in range(9)])
    return np.searchsorted(below, (np.arange(65536) + 0.5) / 65536).astype(np.int8)


def interval(values: Floats, *, level: float = LEVEL) -> tuple[float, float] | None:
    """The percentile interval of a figure's replicates; None where most of them aren't defined (nothing was drawn)."""
    import numpy as np

    defined = values[np.isfinite(values)]
    if 2 * len(defined) <= len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def exact(value: float, n: int, counts: Floats, *, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share or a mean over `n` items that is 0 or 1: there every replicate is alike.

    Clopper and Pearson's (1934, doi 10.1093/biomet/26.4.404): from (alpha/2)^(1/k) to 1. k is the number of patients,
    or rather of as many with equally many items (Kish's): n^2 over the sum of their squares, which is the variance of
    `counts`, the replicates of n; replicates too few to vary make every item a patient. Any other value is given back
    as it is.
    """
    if value not in (0, 1):
        return value, value
    spread = float(counts.var())
    patients = n * n / spread if spread else n
    margin = 1 - ((1 - level) / 2) ** (1 / patients)
    return (0.0, margin) if value == 0 else (1 - margin, 1.0)


def ratio(above: Floats, below: Floats) -> Floats:
    """`above` / `below` replicate by replicate, NaN where `below` is 0."""
    import numpy as np

    return cast("Floats", np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0))


def p_value(observed: float, permuted: Floats) -> float:
    """The two-sided p-value of a difference against its permutations: (1 + those at least as large) / (1 + all).

    Never 0, after Phipson and Smyth (2010, doi 10.2202/1544-6115.1585). What differs by rounding alone counts as alike.
    """
    import numpy as np

    as_large = int(np.count_nonzero(np.abs(permuted) >= abs(observed) - 1e-9))
    return (1 + as_large) / (1 + len(permuted))
