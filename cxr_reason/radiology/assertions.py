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

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple

from cxr_reason.radiology.attributes import assign_attributes, is_lateral, lateral, may_be
from cxr_reason.radiology.clauses import clauses
from cxr_reason.radiology.heads import Head, heads_of
from cxr_reason.radiology.lexicon import LEXICON, Item, Word
from cxr_reason.radiology.memory import Memory
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


class Stated(NamedTuple):
    """What a sentence's phrases state: findings, the limits of the film, and whether it corrects earlier sentences."""

    statements: tuple[Statement, ...]
    limits: tuple[str, ...]
    corrects: bool


def assertions(items: tuple[Item, ...]) -> Stated:
    """What a sentence's phrases state.

    The result depends on the phrases alone, and archives repeat them, so sentences and clauses are remembered.
    """
    known = _SENTENCES[items]
    if known is None:
        limits = tuple([item.word.limit for item in items if item.word.limit])
        corrects = "corrected" in [item.cue for item in items]
        known = _SENTENCES.keep(items, Stated(_sentence(items[: _end(items)]), limits, corrects))
    return known


def _end(items: Sequence[Item]) -> int:
    """How many of the items may say something: "... since the film of" hangs in the air, its date is no phrase."""
    end = len(items)
    while end and (items[end - 1].joint or (end > 1 and items[end - 1].film and items[end - 2].joint)):
        end -= 1
    return end


_SENTENCES = Memory[tuple[Item, ...], Stated](6_144)
_CLAUSES = Memory[tuple[Item, ...], tuple[tuple[Head, dict[str, Any]], ...]](6_144)
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
_SHARED = Memory[tuple[Any, ...], dict[str, Any]](4_096)


def _fields(head: Head) -> dict[str, Any]:
    """The fields of the finding that a head states; one dict for all heads that state the same."""
    values = _head_values(head)
    key = (*values, *head.alternatives)
    fields = _SHARED[key]
    if fields is None:
        fields = _SHARED.keep(key, {
            **dict(zip(_FROM_HEAD, values, strict=True)), "label": LEXICON.findings[head.name].label, "size": None,
            "size_mm": None, "device": None, "conflict": False, "alternatives": list(dict.fromkeys(head.alternatives)),
        })  # fmt: skip
    return fields


def _sentence(items: tuple[Item, ...]) -> tuple[Statement, ...]:
    if not any(item.head for item in items):
        return ()
    found: list[Statement] = []
    asked = bool(items) and items[-1].text == "?" and (items[0].cue == "be" or items[0].text == "is there")
    general = asked or any(i.cue == "general" for i in items)  # a question or general knowledge, nothing of this film
    before: Head | None = None  # the last finding of the clause before
    for clause, indices in clauses(list(items)):
        clause = clause[: _end(clause)]
        joint = items[indices[0] - 1] if clause and indices[0] else None
        if joint and joint.cue == "corrected" and joint.text[-1].isalpha():
            found.clear()  # "the left effusion should read right effusion"
        elif joint and joint.text == "instead of":
            continue  # what was said by mistake
        elif before and before.status == "absent" and (at := _stands_for(clause)) is not None:
            meant = _named.get(before.name) or _named.setdefault(before.name, _item_of(before.name))
            clause, indices = [*clause[: at + 1], meant, *clause[at + 1 :]], [*indices[: at + 1], *indices[at:]]
        key = tuple(clause)
        heads = _CLAUSES[key]
        if heads is None:
            heads = _CLAUSES.keep(key, tuple([(head, _fields(head)) for head in _clause(clause)]))
        follows = ""  # what makes this clause speak of the clause before
        if before and before.side and joint:
            follows = joint.text
            means = clause[0].cue in _MEANING or clause[0].word.organ == "chest"  # "the appearance suggests ..."
            if follows not in _RELATIVES and not (means and follows in _BREAKS):
                follows = ""
        for head, fields in heads:
            if general:
                fields = {**fields, "time": "hypothetical"}
            elif (
                follows
                and before
                and head.side is None
                and is_lateral(head)
                and (head.status == "uncertain" if follows in _RELATIVES else may_be(before.name, head.name))
            ):  # "an opacity in the lingula, which may be pneumonia", "a left base opacity; likely atelectasis"
                fields = {**fields, "side": before.side}
            found.append(Statement(fields, indices[head.low], indices[head.high], head.event))
        if not heads and before and found and joint and _goes_on(before, joint, clause):
            found[-1] = found[-1]._replace(fields=_fields(_gone_on(before, clause)))
        if clause:
            before = heads[-1][0] if heads else None
    return tuple(_without_parts(found))


def _stands_for(clause: Sequence[Item]) -> int | None:
    """Where a clause that names no finding speaks of the one before: "a small one is possible"."""
    if any(item.head for item in clause):
        return None
    return next((k for k, item in enumerate(clause) if item.cue == "one"), None)


_named: dict[str, Item] = {}


def _item_of(name: str) -> Item:
    return Item(Word(finding=name), "one", None).settle()


def _goes_on(head: Head, joint: Item, clause: Sequence[Item]) -> bool:
    """Whether a clause without a finding tells how the one before has changed: "which has decreased", "but stable"."""
    if joint.text in _RELATIVES:
        return True
    return (
        joint.cue == "but"
        and head.change is None
        and not any(i.cue == "mask" or (i.word.organ and not i.film) for i in clause)
    )


def _gone_on(head: Head, clause: Sequence[Item]) -> Head:
    """A finding with the change that a relative clause tells of it: "a large effusion, which has decreased"."""
    change = next((i.word.change for i in clause if i.word.change), None)
    if head.status == "absent" or change is None or any(i.cue == "no" for i in clause):
        return head
    if change == "resolved":
        return replace(head, status="absent", certainty="definite", time="resolved", change="resolved", severity=None)
    return replace(head, change=change) if change in _EXISTING else head


_RELATIVES = frozenset({"which", "that", ":"})
_BREAKS = frozenset({";", "\u2013", "\u2014"})
_MEANING = frozenset({"probable", "possible", "mask"})


def _clause(items: list[Item]) -> list[Head]:
    """The heads of one clause that state something; `low` and `high` count within it."""
    heads = heads_of(items)
    if not heads:
        return []
    heads = assign_status(items, heads)
    if any(i.tells for i in items):
        heads = assign_attributes(items, heads)
    kept = []
    for head in _without_general(items, heads):
        if head.time == "history" and head.change in _EXISTING:
            head.time = "current"
        if head.time != "void" and (head.status == "absent" or head.name not in _ONLY_DENIED):
            kept.append(head)
    return kept


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


def _without_parts(found: list[Statement]) -> list[Statement]:
    """Leave out what belongs to a device named beside it: a pacemaker's leads are the pacemaker."""
    if len(found) < 2:
        return found
    names = {statement.fields["name"] for statement in found}
    if not any(names.intersection(_PARTS.get(name, ())) for name in names):
        return found
    kept: list[Statement] = []
    told: dict[str, dict[str, Any]] = {}  # what the parts tell of their whole
    placed = {s.fields["name"] for s in found if s.fields["side"]}
    for statement in found:
        fields = statement.fields
        wholes = [name for name in _PARTS.get(fields["name"], ()) if name in names]
        if not wholes:
            kept.append(statement)
            continue
        if fields["change"]:
            told.setdefault(wholes[0], {})["change"] = fields["change"]
        if fields["side"] and len(wholes) == 1 and wholes[0] not in placed and lateral(wholes[0]):
            told.setdefault(wholes[0], {})["side"] = fields["side"]  # "a generator on the right with a lead"
    return [
        s._replace(fields={**s.fields, **{key: value for key, value in more.items() if s.fields[key] is None}})
        if (more := told.get(s.fields["name"]))
        else s
        for s in kept
    ]
