"""What is refused before training, by name, with the items concerned and the mend.

A run of days on data with a flaw is worse than no run, so these are found before the first step. `Refusals` collects
what is found while the records are read; `settle` raises for what was found and not allowed (``--allow NAME``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from cxr_reason import console
from cxr_reason.errors import CxrError

NAMED = 5
"""Ids that a refusal tells."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is wrong, what to do, and what ``--allow`` does about it (None: it can't be allowed)."""

    what: str
    mend: str
    allowed: str | None = None


REFUSALS = {
    "empty": Refusal("there is nothing to train on", "Look at what was left out, and at the input's splits."),
    "single-class": Refusal(
        "all items of a task have the same answer, so a model learns it without looking",
        "Add questions with other answers: `cxr mine` balances them.",
        "trained as they are",
    ),
    "unrefined": Refusal(
        "items come with chains that weren't refined", "Run them through `cxr refine` first.", "trained as they are"
    ),
    "shared": Refusal(
        "items share a patient, a study or a film with another split or a file to be apart from",
        "Take them out: `cxr mine` does with splits, --check-films and --apart-from.",
        "trained as they are",
    ),
    "too-long": Refusal(
        "items are longer than --max-length",
        "Take a larger --max-length, or a smaller --max-pixels.",
        "left out",
    ),
    "template": Refusal(
        "the model's chat template has no place for images", "Take a vision-language model with its own template."
    ),
    "image-tokens": Refusal(
        "the tokens that stand for a film don't match what the model sees of it",
        "The processor's settings (patch size, merge size) and the model's must be of the same checkpoint.",
    ),
}
ALLOWABLE = tuple(name for name, refusal in REFUSALS.items() if refusal.allowed)


@dataclass(slots=True)
class Refusals:
    """What was found so far. `allowed` are names of `ALLOWABLE`."""

    allowed: Collection[str] = ()
    counts: dict[str, int] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    """More about the first of each name. Never text of a record."""

    def note(self, name: str, identity: str, told: str = "") -> None:
        """Note that the item `identity` gives a reason to refuse."""
        assert name in REFUSALS
        self.counts[name] = self.counts.get(name, 0) + 1
        named = self.ids.setdefault(name, [])
        if len(named) < NAMED:
            named.append(identity)
        if told:
            self.told.setdefault(name, told)

    def settle(self, *, total: int) -> None:
        """Warn of what is allowed; raise CxrError for the first that isn't. `total`: items of which it was found."""
        for name in REFUSALS:
            if name in self.counts and name in self.allowed:
                console.warn(f"{self._message(name, total)}: {REFUSALS[name].allowed}, as --allow {name} has it")
        for name, refusal in REFUSALS.items():
            if name in self.counts and name not in self.allowed:
                hint = refusal.mend
                if refusal.allowed:
                    hint += f" Or --allow {name}: they are {refusal.allowed}."
                raise CxrError(self._message(name, total), where=name, hint=hint)

    def _message(self, name: str, total: int) -> str:
        count = self.counts[name]
        parts = [REFUSALS[name].what]
        if ids := [identity for identity in self.ids[name] if identity]:
            share = f" ({count / total:.1%})" if total else ""
            parts.append(f"{count:,} of {total:,}{share}, such as {', '.join(ids)}")
        if name in self.told:
            parts.append(self.told[name])
        return "; ".join(parts)
