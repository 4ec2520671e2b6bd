"""Choices that look random and are none: pure functions of the seed, the study and what is chosen.

No generator runs along the input, so a study gives the same questions in any order, on any shard, in any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

from cxr_reason.streams import stable_hash

T = TypeVar("T")

_MASK = (1 << 64) - 1


@lru_cache(maxsize=4096)
def salt(*parts: str) -> int:
    """64 bits that stand for a purpose, such as ("binary", "pneumothorax")."""
    return stable_hash("mine", *parts)


def mix(number: int) -> int:
    """Scramble 64 bits: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def coin(study: int, *purpose: str) -> float:
    """A number in [0, 1) for one purpose in one study, whose own hash `study` is."""
    return mix(study ^ salt(*purpose)) / 2**64


class Dice:
    """A short run of choices for one question."""

    __slots__ = ("_ending", "_state", "_turn")

    def __init__(self, study: int, *purpose: str) -> None:
        self._state = mix(study ^ salt(*purpose))
        self._turn = self._state >> 40
        self._ending = ""

    def roll(self, sides: int) -> int:
        """A number from 0 to `sides` - 1."""
        self._state = mix(self._state)
        return (self._state * sides) >> 64

    def share(self) -> float:
        """A number in [0, 1)."""
        self._state = mix(self._state)
        return self._state / 2**64

    def pick(self, items: Sequence[T]) -> T:
        return items[self.roll(len(items))]

    def sentence(self, variants: Sequence[str]) -> str:
        """Pick in turn, from a random start, and not one that ends like the sentence before."""
        for _ in range(len(variants)):
            self._turn += 1
            chosen = variants[self._turn % len(variants)]
            ending = chosen.rpartition(" ")[2]
            if ending != self._ending:
                break
        self._ending = ending
        return chosen

    def shuffled(self, items: Sequence[T]) -> list[T]:
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.roll(last + 1)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed
