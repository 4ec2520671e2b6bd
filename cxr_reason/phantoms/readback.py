"""Our reading of a phantom's report against what its writer meant: how far may mined labels be trusted?

Not against the drawn truth: a report that is silent or in doubt is read rightly when that is what is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cxr_reason.phantoms.disease import NAMES
from cxr_reason.radiology import LEXICON
from cxr_reason.radiology.reading import read

FAMILIES = frozenset(NAMES)


class Miss(NamedTuple):
    """A statement that was read otherwise: `told` is what was meant (None: nothing was), `heard` what was read."""

    name: str
    told: Mapping[str, Any] | None
    heard: tuple[str, ...]


def compare(report: str, told: Iterable[Mapping[str, Any]]) -> tuple[int, list[Miss]]:
    """How many statements there were, meant or read, and those that were read otherwise.

    A statement that was meant is one finding on one side; it is read rightly when a fact of the same name, or one that
    implies it in the lexicon's hierarchy, has its status, its side and, where it has one, its limit and its course.
    What is read as present or uncertain of the findings that phantoms have, and was not meant, is a miss too.
    """
    facts = [fact.as_dict() for fact in read(report).facts()]
    meant = list(told)
    misses, count = [], 0
    for entry in meant:
        count += 1
        if not any(_says(fact, entry) for fact in facts):
            near = [fact for fact in facts if _kin(fact["name"], entry["name"])]
            misses.append(Miss(entry["name"], entry, tuple(map(_short, near))))
    for fact in facts:
        if fact["status"] == "absent" or fact["name"] not in FAMILIES:
            continue
        if not any(_kin(fact["name"], entry["name"]) and entry["status"] != "absent" for entry in meant):
            count += 1
            misses.append(Miss(fact["name"], None, (_short(fact),)))
    return count, misses


def _says(fact: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    name = entry["name"]
    if entry["status"] == "absent":
        named = fact["name"] == name or fact["name"] in LEXICON.ancestors(name)
    else:
        named = fact["name"] == name or name in LEXICON.ancestors(fact["name"])
    if not named or fact["status"] != entry["status"]:
        return False
    if "side" in entry and fact.get("side", entry["side"] if entry["status"] == "absent" else "") != entry["side"]:
        return False
    if entry.get("bound") and not fact.get("bound"):
        return False
    if entry.get("conflict") and not fact.get("conflict"):
        return False
    return "change" not in entry or fact.get("change") == entry["change"]


def _kin(a: str, b: str) -> bool:
    return a == b or a in LEXICON.ancestors(b) or b in LEXICON.ancestors(a)


def _short(fact: Mapping[str, Any]) -> str:
    keys = ("status", "name", "side", "bound", "change")
    return " ".join(str(fact[key]) for key in keys if fact.get(key)) + (" conflict" if fact.get("conflict") else "")
