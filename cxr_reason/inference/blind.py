"""Blind controls: the same questions without the film that could answer them.

What a model still gets right on a blank film, or on another patient's, it did not see. ``blank`` shows a uniform grey
of each film's own size; ``shuffle`` shows the films of another patient. Which ones is a function of the seed, the
record and the input as a whole, so that shards, and a run that is continued, show the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cxr_reason.streams import Row, stable_hash, stable_id

if TYPE_CHECKING:
    from PIL.Image import Image

BLIND = ("blank", "shuffle")
GREY = 128
"""Of a blank film: the middle of the scale, which for most models is the mean that they subtract."""
POOL = 512
"""Films to choose from, for each number of films that a question has."""
_COUNTS = 8  # such numbers that are told apart; one or two are the rule


def blank(images: Iterable[Image]) -> list[Image]:
    """A uniform film in the place of each of `images`."""
    from PIL import Image as images_of

    return [images_of.new("RGB", image.size, (GREY, GREY, GREY)) for image in images]


def owner(record: Mapping[str, Any]) -> str:
    """Whose films a record has: the patient's, else the study's, else its own."""
    return str(record.get("patient_id") or record.get("study_id") or record.get("id") or "")


class Shuffle:
    """Films of others: a sample of the input's, in bounded memory."""

    def __init__(self, rows: Iterable[Row], *, seed: int) -> None:
        """Read all `rows`, once, for the films with the smallest hashes."""
        self._seed = seed
        kept: dict[int, dict[int, tuple[str, list[Any]]]] = {}
        for row in rows:
            images = (row.data or {}).get("images")
            if not row.data or not isinstance(images, list) or not images:
                continue
            if len(images) not in kept and len(kept) == _COUNTS:
                continue
            pool = kept.setdefault(len(images), {})
            whose = owner(row.data)
            # A study has many questions and is in the pool once.
            pool[stable_hash("shuffle", seed, whose, images)] = whose, images
            if len(pool) >= 2 * POOL:
                kept[len(images)] = _smallest(pool)
        self._pools = {count: list(_smallest(pool).values()) for count, pool in kept.items()}

    @property
    def identity(self) -> str:
        """Changes with what there is to choose from."""
        return stable_id(self._seed, self._pools)

    def images_for(self, record: Mapping[str, Any]) -> Sequence[Any] | None:
        """The `images` of another patient in the place of the record's; None where there is no other."""
        pool = self._pools.get(len(record.get("images") or ()), [])
        whose = owner(record)
        start = stable_hash("for", self._seed, record.get("id"), whose)
        for number in range(len(pool)):
            theirs, images = pool[(start + number) % len(pool)]
            if theirs != whose:
                return images
        return None


def _smallest(pool: dict[int, tuple[str, list[Any]]]) -> dict[int, tuple[str, list[Any]]]:
    return {key: pool[key] for key in sorted(pool)[:POOL]}
