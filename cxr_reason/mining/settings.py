"""All that decides what is mined from a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cxr_reason import records
from cxr_reason.mining.tasks import Options


@dataclass(frozen=True)
class Settings:
    """All that decides the records of a study."""

    mapping: Mapping[str, str]
    """Which column is what: `columns.guess_columns`."""
    options: Options = field(default_factory=Options)
    findings_only: bool = False
    split: str | None = None
    image_root: str | None = None
    plain_normals: float = 1.0
    """Share of the plain normal reports that is kept (`is_plain`)."""
    language: str = "en"
    """What the reports are known to be written in. The engine tells other languages by itself, but not every stem."""
    labels: str = "own"
    """Whose labels decide: "own" for those that we read, "input" for what `label_columns` hold."""
    label_columns: Mapping[str, str] = field(default_factory=dict)
    """Which column holds which label: `columns.label_columns`."""
    date_order: str | None = None
    """How dates in numbers are read: "day-first" or "month-first"; None where the column tells (`priors.Order`)."""
    llm: Mapping[str, Any] | None = None
    """What decides chains by a language model, its ``model`` among it; None where they are the rules'."""

    def provenance(self, seal: str | None = None) -> list[dict[str, str]]:
        """The one entry that every record gets; `seal` is that of the study's reading."""
        entry = self._entry
        return [entry if seal is None else entry | {"reading": seal}]

    @cached_property
    def _entry(self) -> dict[str, str]:
        policies = {name: getattr(self.options, name) for name in ("negatives", "uncertain", "definition")}
        policies["labels"] = self.labels
        stamped: dict[str, Any] = {}
        if self.llm is not None:
            policies |= {"backend": "llm", "model": self.llm["model"]}
        records.stamp(stamped, stage="mine", config=records.config_hash(self.as_dict()), **policies)
        entry: dict[str, str] = stamped["provenance"][0]
        return entry

    def as_dict(self) -> dict[str, Any]:
        """For `records.config_hash`."""
        options = {name: getattr(self.options, name) for name in Options.__slots__}
        own: dict[str, Any] = {"findings_only": self.findings_only, "split": self.split, "image_root": self.image_root}
        own |= {"plain_normals": self.plain_normals, "labels": self.labels}
        own |= {} if self.language == "en" else {"language": self.language}
        own |= {} if self.date_order is None else {"date_order": self.date_order}
        own |= {} if self.llm is None else {"llm": dict(self.llm)}
        return {**options, **own, "mapping": dict(self.mapping), "label_columns": dict(self.label_columns)}
