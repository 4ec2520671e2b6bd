"""Labels that came with the input, beside those that we read: what both say, and what may be asked of both.

``--labels input`` takes the input's labels for the answers. A question is asked only where the report bears the label
out, because its chain rests on the report: what the two say differently of a finding is neither asked, offered nor
told, and a blank is no denial. A study whose report can't be read, or that has none, is told from its labels: "There is
a pleural effusion. No pneumothorax." stands in the report's place, and the record says so (`report_source`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_reason import columns
from cxr_reason.agreement import kappa
from cxr_reason.mining import wording
from cxr_reason.mining.language import MANNERS
from cxr_reason.mining.wording import Details
from cxr_reason.radiology import LEXICON
from cxr_reason.records import LABELS

STATES = {1: "present", 0: "absent", -1: "uncertain", None: "unmentioned"}
COLUMNS = ("label", "our reading", *(f"input: {state}" for state in STATES.values()), "kappa")

# What a label says by itself; "Pleural Other" names nothing in particular.
_PLAIN = {"Edema": "pulmonary edema", "Support Devices": "support device"}
_NAMES = {label: name for label in LABELS if (name := _PLAIN.get(label, label.lower())) in LEXICON.findings}


def given(tables: Sequence[Mapping[str, Any]], label_columns: Mapping[str, str]) -> dict[str, int]:
    """The labels of a study's rows: {label: 1, 0 or -1}, empty where none are filled in.

    Raises ValueError, naming the column, for a cell that is no label and for rows that differ.
    """
    found: dict[str, int] = {}
    for table in tables:
        for label, value in columns.input_labels(table, label_columns).items():
            if found.setdefault(label, value) != value:
                raise ValueError(f"column {label_columns[label]!r} differs between the rows of the study")
    return {label: found[label] for label in LABELS if label in found}


def told(labels: Mapping[str, int]) -> str:
    """Sentences of ours that say what the labels say, "" where that is nothing.

    "No Finding" is no sentence: it means that the other labels are 0 or blank, and a blank is silence.
    """
    sentences = []
    for label, value in labels.items():
        if name := _NAMES.get(label):
            details = Details(name)
            says = wording.present(details) if value == 1 else wording.absent(details)
            sentences.append((wording.hedged(details, "possible") if value == -1 else says)[0])
    return " ".join(sentences)


def disputed(own: Mapping[str, int], labels: Mapping[str, int]) -> frozenset[str]:
    """The labels of which the report and the input say different things."""
    return frozenset(label for label in {*own, *labels} if own.get(label) != labels.get(label))


def may_be_denied(name: str, labels: Mapping[str, int]) -> bool:
    """Whether the input's labels let a finding be called absent: a blank doesn't."""
    label = MANNERS[name].label
    return label is None or labels.get(label) == 0


# ------------------------------------------------------------------------------------------------------ how they agree


def compared(own: Mapping[str, int], labels: Mapping[str, int]) -> Counter[str]:
    """The counts of one study: what we read of each label beside what the input says."""
    mentioned = [label for label in LABELS if label in own or label in labels]
    said = Counter(f"labels/{label}/{STATES[own.get(label)]}/{STATES[labels.get(label)]}" for label in mentioned)
    said["labels/studies"] = 1
    return said


def rows(counts: Mapping[str, int]) -> list[tuple[str | int, ...]]:
    """The confusion of every label, a row for each thing that we read; kappa stands in the first."""
    tables: dict[str, Counter[tuple[str, str]]] = {}
    for key, number in counts.items():
        if key.startswith("labels/") and key.count("/") == 3:
            _, label, ours, theirs = key.split("/")
            tables.setdefault(label, Counter())[ours, theirs] = number
    found: list[tuple[str | int, ...]] = []
    for label in LABELS:
        if not (table := tables.get(label)):
            continue
        table["unmentioned", "unmentioned"] = counts["labels/studies"] - table.total()
        value = kappa(table)
        first = [label, "-" if value is None else f"{value:.3f}"]
        for ours in STATES.values():
            if any(table[ours, theirs] for theirs in STATES.values()):
                found.append((first[0], ours, *(table[ours, theirs] for theirs in STATES.values()), first[1]))
                first = ["", ""]
    return found
