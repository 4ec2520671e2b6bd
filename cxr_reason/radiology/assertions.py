"""One sentence: which findings it names, and whether it asserts, denies or hedges each.

A sentence is matched against the lexicon's trie, cut into clauses, and each clause is read from left to right:

1. heads: a finding's name, or a quality that pairs with its organ ("the heart is enlarged", "blunting of the angle");
2. status: cues open and close scopes over the heads (no, likely, history of, versus, has resolved ...);
3. attributes: side, site, severity, size, change and acuity go to the head they stand with; lists share some of them.

Scope rules, in short: a denial or hedge covers the list that it leads and ends at "with", "due to", "but", or a part
with a verb of its own. Change covers the list it leads or closes; a side covers the plain list it leads, or, trailing,
the list before it; severity covers its own noun only. A diagnosis takes the side of its sign.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, NamedTuple

from cxr_reason.radiology.attributes import assign_attributes, is_lateral
from cxr_reason.radiology.clauses import clauses
from cxr_reason.radiology.heads import Head, heads_of
from cxr_reason.radiology.lexicon import LEXICON, Item
from cxr_reason.radiology.scopes import assign_status

_EXISTING = frozenset({"worse", "better", "stable"})  # a change that only something on the film can have
_ONLY_DENIED = frozenset(name for name in LEXICON.findings if LEXICON.is_region(name))  # present, they tell nothing


class Statement(NamedTuple):
    """One finding that a sentence states: the fields of its Finding (shared, not to be changed), and the first and last
    of the sentence's items that name it.
    """

    fields: dict[str, Any]
    low: int
    high: int
    event: str | None  # of a device


def assertions(items: tuple[Item, ...]) -> tuple[Statement, ...]:
    """The findings that a sentence's phrases state.

    The result depends on the phrases alone, and archives repeat them, so it is remembered.
    """
    known = _REMEMBERED.get(items)
    if known is None:
        if len(_REMEMBERED) >= _MOST_REMEMBERED:
            _REMEMBERED.clear()
        known = _REMEMBERED[items] = tuple([Statement(_fields(h), h.low, h.high, h.event) for h in _assertions(items)])
    return known


_REMEMBERED: dict[tuple[Item, ...], tuple[Statement, ...]] = {}
_MOST_REMEMBERED = 50_000
_FROM_HEAD = (
    "name",
    "status",
    "certainty",
    "time",
    "bound",
    "side",
    "site",
    "severity",
    "change",
    "acuity",
    "calcified",
)
_head_values = attrgetter(*_FROM_HEAD)
_SHARED: dict[tuple[Any, ...], dict[str, Any]] = {}


def _fields(head: Head) -> dict[str, Any]:
    """The fields of the finding that a head states; one dict for all heads that state the same."""
    values = _head_values(head)
    key = (*values, *head.alternatives)
    fields = _SHARED.get(key)
    if fields is None:
        if len(_SHARED) >= _MOST_REMEMBERED:
            _SHARED.clear()
        fields = _SHARED[key] = {
            **dict(zip(_FROM_HEAD, values, strict=True)), "label": LEXICON.findings[head.name].label, "size": None,
            "size_mm": None, "device": None, "conflict": False, "alternatives": list(dict.fromkeys(head.alternatives)),
        }  # fmt: skip
    return fields


def _assertions(items: tuple[Item, ...]) -> list[Head]:
    result: list[Head] = []
    asked = bool(items) and items[-1].text == "?" and (items[0].cue == "be" or items[0].text == "is there")
    general = asked or any(i.cue == "general" for i in items)  # a question or general knowledge, nothing of this film
    before: Head | None = None  # the last finding of the clause before
    for clause, indices in clauses(list(items)):
        heads = heads_of(clause)
        if not heads:
            continue
        heads = assign_status(clause, heads)
        if any(i.tells for i in clause):
            heads = assign_attributes(clause, heads)
        heads = _without_general(clause, heads)
        if indices and indices[0] and items[indices[0] - 1].text in ("which", "that", ":") and before:
            for head in heads:  # "an opacity in the lingula, which may be pneumonia"
                if head.side is None and head.status == "uncertain" and is_lateral(head):
                    head.side = before.side
        before = heads[-1] if heads else None
        for head in heads:
            head.low, head.high = indices[head.low], indices[head.high]
            if general:
                head.time = "hypothetical"
            if head.time == "history" and head.change in _EXISTING:
                head.time = "current"
            if head.time != "void" and (head.status == "absent" or head.name not in _ONLY_DENIED):
                result.append(head)
    return _without_parts(result)


def _without_general(items: list[Item], heads: list[Head]) -> list[Head]:
    """ "Changes of pneumonectomy" are the pneumonectomy: leave out what the next finding, after "of", makes special."""
    kept = []
    for n, head in enumerate(heads):
        special = heads[n + 1] if n + 1 < len(heads) else None
        if (
            special
            and head.name in LEXICON.ancestors(special.name)
            and items[min(head.high + 1, len(items) - 1)].cue == "of"
        ):
            special.change = special.change or head.change
            continue
        kept.append(head)
    return kept


_PARTS: dict[str, list[str]] = LEXICON.data["parts"]


def _without_parts(heads: list[Head]) -> list[Head]:
    """Leave out what belongs to a device named beside it: a pacemaker's leads are the pacemaker."""
    kept = []
    for head in heads:
        whole = next((h for h in heads if h.name in _PARTS.get(head.name, ())), None)
        if whole is None:
            kept.append(head)
        elif whole.change is None:
            whole.change = head.change
    return kept
