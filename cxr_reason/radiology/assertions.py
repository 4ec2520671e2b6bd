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

import re
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, NamedTuple

from cxr_reason.radiology.lexicon import LEXICON, Item, Quality, Word

_SPREADING_BOUNDS = frozenset({"definite", "new", "large", "significant"})
_STRONG_HISTORY = re.compile(r"history|status post|s p|hx|h o|background|patient (?:with|has)")
_EXISTING = frozenset({"worse", "better", "stable"})  # a change that only something on the film can have
_ONLY_DENIED = frozenset(name for name in LEXICON.findings if LEXICON.is_region(name))  # present, they tell nothing
_NORMAL = frozenset({"normal", "clear", "top normal"})
_LIST = frozenset({"and", "or", "comma", "versus"})


@dataclass(slots=True)
class Head:
    """A finding as one clause states it. Item indices count within the clause."""

    name: str
    at: int  # the item that names it
    low: int  # first and last item that belong to it; in a sentence's result they count within the sentence
    high: int
    status: str = "present"
    certainty: str = "definite"
    time: str = "current"
    bound: str | None = None
    side: str | None = None
    site: str | None = None
    severity: str | None = None
    size: str | None = None
    size_mm: float | None = None
    change: str | None = None
    acuity: str | None = None
    calcified: bool = False
    event: str | None = None
    alternatives: list[str] = field(default_factory=list)
    region: bool = False  # a whole organ was called normal
    hedged_by_word: bool = False


# ---------------------------------------------------------------------- clauses
def clauses(items: list[Item]) -> list[tuple[list[Item], list[int]]]:
    """Cut a sentence where a statement of its own begins. Stop words ("but", ";") belong to no clause.

    Returns each clause's items and their indices in the sentence.
    """
    found: list[tuple[list[Item], list[int]]] = []
    current: list[Item] = []
    indices: list[int] = []
    has_head = negated = verb = False
    for k, item in enumerate(items):
        cue = item.cue
        if cue is None:
            if (
                negated and has_head and item.word.organ and _subject(items, k)
            ):  # "no effusion the lungs are hyperinflated"
                found.append((current, indices))
                current, indices, has_head, negated, verb = [], [], False, False, False
            has_head = has_head or item.head
            verb = verb or item.verb
            current.append(item)
            indices.append(k)
            continue
        cut = drop = False
        if cue == "but" or cue == "stop":
            if item.text == ":" and (not has_head or not any(i.head for i in items[k + 1 :])):
                current.append(_COPULA)
                indices.append(k)
                continue
            cut = drop = True
        elif cue == "no" or cue == "there":
            cut = has_head and not (cue == "no" and item.text in ("negative", "absent", "against"))
        elif cue in ("comma", "and"):
            cut = has_head and _begins_statement(items, k + 1, negated, verb)
            drop = cut
        if cut:
            found.append((current, indices))
            current, indices, has_head, negated, verb = [], [], False, False, False
        if not drop:
            current.append(item)
            indices.append(k)
            negated = negated or cue == "no"
            verb = verb or item.verb
            has_head = has_head or item.head
    found.append((current, indices))
    return found


def _subject(items: list[Item], k: int) -> bool:
    """Whether the organ at k is the subject of a verb, and joined to nothing before it."""
    return k + 1 < len(items) and items[k + 1].cue == "be" and items[k - 1].word.finding is not None


_COPULA = Item(Word(cue="be"), ":", None).settle()
_AUXILIARY = ("has ", "have ", "is ", "are ", "was ", "were ")


def _begins_statement(items: list[Item], k: int, negated: bool, verb: bool) -> bool:
    """Whether the items from k on, up to the next comma, are a statement of their own.

    `negated`: what stands before is a denial, whose list may go on. `verb`: what stands before has a verb, so that a
    subject and verb after it are no part of its list ("A, B and C are unchanged" is one statement).
    """
    organ = finding = positive = attributive = False
    n = min(len(items), k + 40)
    start = k
    if k < n and items[k].cue in ("and", "comma"):
        k += 1
    if k < n and items[k].cue in ("no", "there"):
        return True
    while k < n:
        item = items[k]
        word = item.word
        cue = word.cue
        if cue in ("comma", "stop", "but") or (cue == "with" and k > start):
            break
        if cue == "or" and negated:
            return False
        if word.organ and not attributive and word.finding is None:
            organ = True
        elif word.finding or (word.quality and not word.quality.adjective):
            finding = True
        marked = (
            word.severity or word.change in ("stable", "worse", "better", "new") or word.acuity in ("old", "chronic")
        )
        if (marked or cue == "article") and not finding:
            positive = True
        if item.verb and (organ or finding):
            if organ and not finding:
                return True
            following = items[k + 1].word if k + 1 < n else None
            said = following is not None and bool(
                following.change or following.severity or following.side or following.quality
            )
            if item.word.change and item.text.startswith(_AUXILIARY):
                said = True
            return (
                ((said and following is not None and not following.cue) or item.word.change is not None)
                if negated
                else verb
            )
        if word.quality and word.quality.adjective:
            if organ and not finding and not _of_next(items, k):
                return True
            attributive = True
        elif word.cue != "and":
            attributive = False
        if word.change in ("resolved", "removed") and finding and verb and not negated:
            return True
        k += 1
    if negated and positive and finding:
        return "or" not in [i.cue for i in items[start:]]
    return False


def _of_next(items: list[Item], k: int) -> bool:
    return k + 1 < len(items) and items[k + 1].cue in ("of", "in")


# ---------------------------------------------------------------------- heads
def _organs_after(items: list[Item], k: int) -> tuple[list[tuple[str, int]], str | None]:
    """The list of organs right after item k and the joint before it ("of", "in" or None for none)."""
    joint: str | None = None
    organs: list[tuple[str, int]] = []
    k += 1
    while k < len(items):
        word = items[k].word
        if word.organ:
            organs.append((word.organ, k))
        elif word.cue in ("of", "in"):
            if organs:
                break
            joint = joint or word.cue
        elif word.cue == "be" and items[k].text == "involving":
            joint = joint or "in"
        elif word.cue in ("and", "or", "comma", "article"):
            pass
        elif word.finding or word.quality:
            if organs or word.finding or not (word.quality and word.quality.adjective):
                break
            if items[k - 1].cue not in ("and", "or", "comma"):
                break
        elif items[k].modifier or word.cue == "mask":
            pass
        else:
            break
        k += 1
    return organs, joint


def _organs_before(items: list[Item], k: int) -> list[tuple[str, int]]:
    """Organs joined to item k as its own adjectives: "hilar and mediastinal" in "hilar and mediastinal masses"."""
    organs: list[tuple[str, int]] = []
    j = k - 1
    while j >= 0:
        word = items[j].word
        if word.organ:
            organs.append((word.organ, j))
        elif word.quality and word.quality.adjective and word.finding is None:
            if j and items[j - 1].word.cue == "be":
                break
        elif word.finding:
            break
        elif word.cue in ("and", "or"):
            if not organs:
                break
        elif word.cue is not None or not items[j].modifier:
            break
        j -= 1
    return organs[::-1]


def _heads(items: list[Item]) -> list[Head]:
    heads: list[Head] = []
    subjects: list[tuple[str, int]] = []
    closed = False  # the subjects have their predicate: the next organ begins a new list
    used: set[int] = set()  # items eaten by a pair
    for k, item in enumerate(items):
        word = item.word
        if word.organ:
            if closed:
                subjects, closed = [], False
            if not (k and items[k - 1].cue == "of" and subjects):
                subjects.append((word.organ, k))
            if word.finding is None and word.quality is None:
                continue
        if word.finding is not None:
            before, (after, joint) = _organs_before(items, k), _organs_after(items, k)
            named = [(h.name, h.at) for h in heads if k - h.at <= 3]
            named += [("device", h.at) for h in heads if LEXICON.findings[h.name].device and k - h.at <= 2]
            names = _refined(word.finding, named + before, after if joint else [])
            for name in names:
                head = Head(name, k, k, k, calcified="calcif" in item.text)
                if k and (quality := items[k - 1].word.quality) and quality.certainty:
                    head.severity, head.certainty = quality.severity, quality.certainty  # "borderline cardiomegaly"
                heads.append(head)
            closed = True
        elif word.quality is not None:
            made, low, high, on = _pair(items, k, word.quality, subjects, closed, heads)
            if made:
                for name in made:
                    twin = next((h for h in heads if h.name == name.lstrip("!") and h.low <= low <= h.high), None)
                    if twin:  # "borderline cardiac enlargement" is one finding
                        twin.high = max(twin.high, high)
                    else:
                        heads.append(_head(name, k, low, high, word.quality))
                used.update(range(k, k + 1))
                closed = True
                if on:
                    subjects = on
    for head in heads:
        if items[head.at].word.quality is None or items[head.at].word.finding is not None:
            continue
        items[head.at] = Item(
            Word(quality=items[head.at].word.quality), items[head.at].text, items[head.at].side
        ).settle()
    return heads


def _head(name: str, k: int, low: int, high: int, quality: Quality) -> Head:
    denied = name.startswith("!")
    name, _, change = name.lstrip("!").partition("@")
    head = Head(name, k, low, high, severity=quality.severity if quality.certainty else None)
    head.change = change or (quality.change if quality.moving else None)
    if denied:
        head.status, head.region = "absent", quality.name in _NORMAL
    if quality.certainty:
        head.certainty = quality.certainty
    return head


def _refined(name: str, before: list[tuple[str, int]], after: list[tuple[str, int]]) -> list[str]:
    table = LEXICON.refine.get(name)
    if table:
        for organ, _ in [*before[::-1], *after[:1]]:
            if organ in table:
                return [table[organ]] if table[organ] else []
    return [name]


def _names(quality: Quality, organ: str) -> list[str] | None:
    """The findings that a quality says of an organ: [] = nothing of ours, None = no pair."""
    if quality.name == "top normal":
        return ["!cardiomegaly"] if organ in ("heart", "cardiomediastinum") else []
    if quality.name in _NORMAL:
        return [f"!{name}" for name in LEXICON.organs[organ]]
    if organ in quality.on:
        return [quality.on[organ]] if quality.on[organ] else []
    return None


def _pair(
    items: list[Item], k: int, quality: Quality, subjects: list[tuple[str, int]], closed: bool, heads: list[Head]
) -> tuple[list[str], int, int, list[tuple[str, int]]]:
    """The findings named by a quality at item k, the items they cover, and the organs it was said of."""
    before = _organs_before(items, k)
    after, joint = _organs_after(items, k)
    candidates: list[list[tuple[str, int]]] = []
    adjacent_after = bool(after) and joint is None and quality.adjective
    if adjacent_after and quality.name not in _NORMAL and _names_thing(items, after[-1][1] + 1):
        # "prominent hilar opacities": the adjective belongs to the opacities, not to the hila
        joints = [p for p in range(k + 1, after[-1][1]) if items[p].cue in ("and", "comma", "or")]
        after = [(organ, p) for organ, p in after if joints and p < joints[-1]]
        if not after:
            return [], k, k, []
    copula = any(items[j].cue == "be" for j in range(subjects[-1][1] + 1 if subjects else k, k))
    if joint and after:
        candidates.append(after)
    if quality.adjective:
        own = bool(before) and (not closed or copula)
        if adjacent_after and not own and not (subjects and copula and not closed):
            candidates.append(after)
        if subjects and (not closed or copula or (k and items[k - 1].cue in ("and", "comma", "or"))):
            candidates.append(subjects)
        if before:
            candidates.append(before)
        if adjacent_after:
            candidates.append(after)
    else:
        if before:
            candidates.insert(0, before)
        if subjects and copula and not closed:
            candidates.append(subjects)
    if quality.predicate:
        candidates = [c for c in candidates if _touches(items, c, k)]
    for organs in candidates:
        names: list[str] = []
        paired = False
        for organ, _ in organs:
            got = _names(quality, organ)
            if got is not None:
                paired = True
                names += [n for n in got if n not in names]
        if paired:
            positions = [p for _, p in organs]
            return names, min(*positions, k), max(*positions, k), organs
    if quality.name in _NORMAL:
        site = [j for j in range(len(items)) if items[j].word.site or items[j].word.side]
        if site and not any(i.word.organ or i.word.finding for i in items):
            return ["!lung abnormality"], min(*site, k), max(*site, k), []
        alone = all(i.cue in ("article", "be", "stop", "comma", "and") or i is items[k] or i.word.bound for i in items)
        if quality.name == "normal" and alone:
            return ["!chest abnormality"], k, k, []
        return [], k, k, []
    if quality.name == "calcified":
        for head in heads:
            if head.at < k and any(i.cue == "be" for i in items[head.at : k]):
                head.calcified = True
        return [], k, k, []
    if quality.default and not _modifies(items, k):
        return [quality.default], k, k, []
    return [], k, k, []


def _names_thing(items: list[Item], k: int) -> bool:
    """Whether a finding's name comes at item k, or after words that only describe it."""
    while k < len(items) and items[k].modifier and not items[k].head:
        k += 1
    if k >= len(items) or not items[k].head:
        return False
    quality = items[k].word.quality
    return items[k].word.finding is not None or (quality is not None and not quality.adjective)


def _touches(items: list[Item], organs: list[tuple[str, int]], k: int) -> bool:
    """Whether the organs stand right beside item k, or before it with a verb between."""
    first, last = organs[0][1], organs[-1][1]
    gap = items[last + 1 : k] if last < k else items[k + 1 : first]
    return all(i.modifier or i.cue in ("be", "article", "and", "mask") for i in gap)


def _modifies(items: list[Item], k: int) -> bool:
    """An adjective right before a finding is part of its description, no finding of its own."""
    quality = items[k].word.quality
    if quality is None or not quality.adjective:
        return False
    return k + 1 < len(items) and (items[k + 1].word.finding is not None or items[k + 1].word.organ is not None)


# ---------------------------------------------------------------------- status
def _assign_status(items: list[Item], heads: list[Head]) -> list[Head]:
    """Walk the clause once; cues change the state that each head meets. Returns the heads that count."""
    by_item: dict[int, list[Head]] = {}
    for head in heads:
        by_item.setdefault(head.at, []).append(head)
    neg = skip = hypo = differential = False
    hedge: str | None = None
    hist: str | None = None
    resolved: str | None = None
    bounds: list[str] = []
    spreading: list[str] = []
    fresh_list = True
    incoming = False  # after "replaced by"
    done: list[Head] = []
    dropped: set[int] = set()
    last_at = max(by_item, default=-1)
    for k, item in enumerate(items):
        word, cue = item.word, item.word.cue
        here = by_item.get(k)
        if here:
            for head in here:
                if skip:
                    dropped.add(id(head))
                    continue
                _apply(head, neg, hedge, hypo, differential, resolved)
                if head.status == "absent" and neg and not head.region:
                    chosen = list(dict.fromkeys([*spreading, *bounds]))
                    head.bound = " ".join(chosen) or None
                elif head.region and k and (limit := items[k - 1].word.bound) in ("gross", "other"):
                    head.bound = limit  # "grossly clear"
                if hist:
                    head.time = "history"
                if incoming and head.change is None and head.status != "absent":
                    head.change = "new"
                done.append(head)
            if hist == "weak":
                hist = None
            bounds = []
            fresh_list = False
        if neg and not here:
            limit = "masked" if cue == "mask" else word.bound or ("new" if word.change == "new" else None)
            if limit is None and word.severity and not here:
                limit = None if word.severity == "mild" else item.text
            if limit:
                if limit in _SPREADING_BOUNDS and fresh_list:
                    spreading.append(limit)
                else:
                    bounds.append(limit)
        if word.change in ("resolved", "removed"):
            target = [h for h in done if h.status != "absent" or not h.region]
            if target and not _leads(items, k, by_item):
                for head in target:
                    _resolve(head, word.change)
            elif k < last_at and not here:
                resolved = word.change
            continue
        if word.change == "exchanged":
            for head in done:
                if k < last_at:
                    _resolve(head, "removed")
                else:
                    head.change = "new"
            resolved, incoming = None, True
            continue
        if word.quality is not None and word.quality.name == "normal" and k and items[k - 1].cue == "be":
            for head in done:  # "heart size and vascular engorgement appear within normal limits"
                between = items[head.at + 1 : k]
                if head.status == "present" and all(i.cue in ("and", "comma", "be") or i.word.organ for i in between):
                    _deny(head)
        if word.quality is not None and word.quality.name == "clear" and k + 1 < last_at and items[k + 1].text == "of":
            neg, fresh_list = True, True  # "clear of infiltrates"
        if cue is None:
            continue
        if cue == "no":
            neg, skip = True, False
            hedge, fresh_list = None, True
            bounds, spreading = [], []
        elif cue == "not_seen":
            if any(h.status == "present" for h in done):
                for head in done:
                    if not head.region:
                        _deny(head)
            elif k < last_at:
                neg, fresh_list = True, True
        elif cue == "unlikely":
            if done and not (k < last_at and not any(i.cue == "be" for i in items[:k])):
                for head in done[-1:] if k < last_at else done:
                    _deny(head)
                    head.certainty = "probable"
            else:
                hedge = "less"
        elif cue in ("probable", "possible"):
            if k > last_at and done and item.text in _POSTPOSED and _ends_statement(items, k):
                for head in _recent(done, items, k):
                    _hedge(head, cue)
            else:
                hedge = cue
        elif cue in ("possible_after", "probable_after"):
            if done and not (k < last_at and not _ends_statement(items, k)):
                recent = _recent(done, items, k)
                for head in recent[:1] if item.text.startswith("is ") else recent:
                    _hedge(head, cue.removesuffix("_after"))
            elif k < last_at:
                hedge = cue.removesuffix("_after")
        elif cue == "differential":
            differential = True
        elif cue == "versus" or (cue == "or" and not neg):
            others = _rivals(items, by_item, k)
            if done and (others or cue == "versus"):
                _compete(done[-1], others, neg)
            elif cue == "versus" and not neg:
                for head in others:
                    head.certainty = "differential"
        elif cue == "history":
            hist = "strong" if _STRONG_HISTORY.search(item.text) else "weak"
            if k + 1 < len(items) and items[k + 1].word.organ == "chest" and not _next_heads(by_item, k + 1):
                hist = None
        elif cue == "hypothetical":
            hypo = True
        elif cue == "limited_view":
            skip = True
        elif cue == "there":
            if "may" in item.text or "might" in item.text or "could" in item.text:
                hedge = "possible"
        elif cue == "mask":
            if done and not neg and k and items[k - 1].cue == "be" and k < last_at:
                hedge = "possible"  # "the opacity is XXXX scarring"
        elif cue == "with":
            if differential and item.text.startswith("includ"):
                continue  # "the differential is wide and includes ..."
            skip = False
            neg, hedge, resolved, hist, differential = False, None, None, None, False
        elif cue == "sign_of":
            if neg and done:
                skip = True
            hedge = None
        elif cue == "comma":
            resolved = None
            if hist == "weak":
                hist = None
        elif cue == "stop":
            hedge = None
    return [h for h in heads if id(h) not in dropped]


_POSTPOSED = frozenset({"possible", "probable", "likely", "suspected", "questionable", "questioned", "presumed", "favored", "suggested", "most likely", "probably", "possibly", "suspect", "?"})  # fmt: skip


def _ends_statement(items: list[Item], k: int) -> bool:
    return k + 1 >= len(items) or items[k + 1].cue in ("comma", "and", "with", "stop", "but")


def _recent(done: list[Head], items: list[Item], k: int) -> list[Head]:
    """The heads of the list that item k closes: back to a sign, a "with" or a denial."""
    recent: list[Head] = []
    edge = k
    for head in reversed(done):
        if head.status == "absent":
            break
        between = {i.cue for i in items[head.at + 1 : edge]}
        if recent and not between <= {None, "and", "or", "comma", "article", "versus"}:
            break
        recent.append(head)
        edge = head.at
    return recent


def _leads(items: list[Item], k: int, by_item: dict[int, list[Head]]) -> bool:
    """Whether "removal of", "resolution of" speaks of what follows it."""
    return items[k].text.endswith((" of", " in")) and any(at > k for at in by_item)


def _next_heads(by_item: dict[int, list[Head]], k: int) -> list[Head]:
    later = [at for at in by_item if at > k]
    return by_item[min(later)] if later else []


def _rivals(items: list[Item], by_item: dict[int, list[Head]], k: int) -> list[Head]:
    """The heads that compete with what stands before a "versus" or "or": the next ones, no hedge between."""
    for j in range(k + 1, len(items)):
        if j in by_item:
            return by_item[j]
        if items[j].cue in ("probable", "possible", "comma", "be"):
            break
    return []


def _apply(head: Head, neg: bool, hedge: str | None, hypo: bool, differential: bool, resolved: str | None) -> None:
    if head.region or head.status == "absent":
        if neg:
            head.time = "void"  # "not normal": nothing is said that we could use
        elif hedge == "less":
            head.certainty = "probable"
        elif hedge:
            head.certainty = hedge
        return
    if hypo:
        head.status, head.certainty, head.time = "uncertain", "possible", "hypothetical"
    elif neg:
        _deny(head)
        if hedge == "probable":
            head.certainty = "probable"
    elif head.certainty == "differential":
        head.status = "uncertain"
    elif differential:
        head.status, head.certainty = "uncertain", "differential"
    elif hedge == "less":
        head.status, head.certainty = "uncertain", "possible"
        head.hedged_by_word = True
    elif hedge:
        _hedge(head, hedge)
        head.hedged_by_word = True
    if resolved:
        _resolve(head, resolved)


def _deny(head: Head) -> None:
    head.status, head.certainty = "absent", "definite"


def _hedge(head: Head, grade: str) -> None:
    if head.status != "absent" and head.certainty != "differential":
        head.status, head.certainty = "uncertain", grade


def _resolve(head: Head, change: str) -> None:
    head.status, head.certainty, head.time, head.change = "absent", "definite", "resolved", "resolved"
    if change == "removed":
        head.event = "removed"


def _compete(first: Head, others: list[Head], neg: bool) -> None:
    """ "A versus B": both are open."""
    if neg or first.status == "absent" or (others and first.low == others[0].low):
        return
    for other in others:
        first.alternatives.append(other.name)
        other.alternatives += [first.name, *(a for a in first.alternatives if a not in (other.name, first.name))]
        other.certainty = "differential"
    first.status, first.certainty = "uncertain", "differential"


# ---------------------------------------------------------------------- attributes
def _assign_attributes(items: list[Item], heads: list[Head]) -> list[Head]:
    if not heads:
        return heads
    groups: list[list[Head]] = []
    for head in sorted(heads, key=lambda h: (h.low, h.high)):
        if groups and (groups[-1][0].low, groups[-1][0].high) == (head.low, head.high):
            groups[-1].append(head)
        else:
            groups.append([head])
    n = len(groups)
    own: list[list[int]] = [[] for _ in groups]
    trailing: list[list[int]] = [[] for _ in groups]
    for k in range(groups[0][0].low):
        own[0].append(k)
    for g, group in enumerate(groups):
        own[g] += range(group[0].low, group[0].high + 1)
        begin = group[0].high + 1
        end = groups[g + 1][0].low if g + 1 < n else len(items)
        if begin >= end:
            continue
        if g + 1 < n:
            cut = _split_gap(items, begin, end)
        else:  # what comes after "with" describes something that we don't know
            cut = next((k for k in range(begin, end) if items[k].cue == "with"), end)
        trailing[g] += range(begin, cut)
        if g + 1 < n:
            own[g + 1] += range(cut, end)
    for g, group in enumerate(groups):
        _take(items, own[g], group, leading=True)
        _take(items, trailing[g], group, leading=False)
    _share(items, groups, own, trailing)
    if len(items) > 2 and items[0].word.side:
        verb = items[2] if items[1].word.organ == "lungs" else items[1]
        if verb.cue == "be":  # "the left shows ...", "the right lung is clear without ..."
            for head in heads:
                head.side = head.side or (items[0].word.side if _lateral(head) else None)
    twins = [twin for g, group in enumerate(groups) for head in group if (twin := _twin(items, own[g], head))]
    return heads + twins


def _twin(items: list[Item], indices: list[int], head: Head) -> Head | None:
    """ "Small right and moderate left effusions" are two findings: split one head where each side has its own words."""
    if len({items[k].word.side for k in indices} & {"left", "right"}) < 2:
        return None
    parts: list[list[int]] = [[]]
    for k in indices:
        if items[k].cue in ("and", "comma"):
            parts.append([])
        parts[-1].append(k)
    told = []
    for part in parts:
        side = next((items[k].word.side for k in part if items[k].word.side in ("left", "right")), None)
        severity = next((items[k].word.severity for k in part if items[k].word.severity), None)
        change = next((items[k].word.change for k in part if items[k].word.change), None)
        if side and (severity or change):
            told.append((side, severity, change))
    if len(told) != 2 or told[0][0] == told[1][0] or told[0][1:] == told[1][1:]:
        return None
    (head.side, head.severity, change), (side, severity, other_change) = told
    head.change = change or head.change
    return replace(
        head, side=side, severity=severity, change=other_change or None, alternatives=list(head.alternatives)
    )


def _split_gap(items: list[Item], begin: int, end: int) -> int:
    """Which items between two heads belong to the first: up to the last separator, or the preposition's phrase."""
    for k in range(end - 1, begin - 1, -1):
        cue = items[k].cue
        if cue is not None and cue not in ("article", "of", "in"):
            return k
    return end if items[begin].word.cue in ("in", "of") else begin


def _take(items: list[Item], indices: list[int], group: list[Head], *, leading: bool) -> None:
    sides: list[str] = []
    tip = False
    for k in indices:
        item = items[k]
        word = item.word
        if not leading and item.verb and item.text.startswith(("terminates", "ends")):
            tip = True
        if item.side and not tip:
            chamber = word.organ == "ventricle" or (k + 1 < len(items) and items[k + 1].word.organ == "ventricle")
            if leading or not chamber:
                sides.append(item.side)
        if word.quality is not None and word.quality.name == "calcified":
            for head in group:
                head.calcified = head.calcified or k < head.at
        if not item.modifier:
            continue
        # "previously moderate", "from severe to mild", "marked improvement" say nothing of today's severity
        past = bool(k) and (items[k - 1].cue == "history" or items[k - 1].text == "from")
        past = past or (k + 1 < len(items) and items[k + 1].word.change is not None and not items[k + 1].word.severity)
        for head in group:
            if word.site and not tip and head.site is None:
                head.site = word.site
            if word.severity and not past and head.status != "absent" and k != head.at and word.finding is None:
                head.severity = head.severity if head.severity and not leading else word.severity
            if word.acuity and head.bound != word.acuity and (leading or (k and items[k - 1].cue == "be")):
                head.acuity = head.acuity or word.acuity
    side = _one_side(sides)
    if side:
        for head in group:
            if head.side is None:
                head.side = side


def _one_side(sides: list[str]) -> str | None:
    found = set(sides)
    if not found:
        return None
    return "bilateral" if "bilateral" in found or len(found) > 1 else found.pop()


def _plain(items: list[Item], begin: int, end: int) -> bool:
    """Only "and", "or", commas, and words such as "focal" between two heads."""
    return all(i.cue in _LIST or (i.word.bound and not i.word.severity) for i in items[begin:end])


_MIDLINE_REGIONS = frozenset(LEXICON.data["midline"]["regions"])
_MIDLINE = frozenset(LEXICON.data["midline"]["findings"])
_CAUSE = re.compile(r"due to|secondary|relat|caused|because|owing|result|setting|context")


def _lateral(head: Head) -> bool:
    return head.name not in _MIDLINE and LEXICON.findings[head.name].region not in _MIDLINE_REGIONS


def _share(items: list[Item], groups: list[list[Head]], own: list[list[int]], trailing: list[list[int]]) -> None:
    n = len(groups)
    if n == 1:
        return _share_change(items, groups, own, trailing)
    joined = [_plain(items, groups[g][0].high + 1, groups[g + 1][0].low) for g in range(n - 1)]
    for g in range(1, n):
        first = groups[g - 1][0]
        if not first.side:
            continue
        for head in groups[g]:
            if head.side is not None or not _lateral(head):
                continue
            if joined[g - 1] and head.certainty == first.certainty:  # a side that leads a plain list covers it
                if head.status == first.status:
                    head.side = first.side
            elif head.status != "absent" and first.status != "absent" and _diagnosis(items, first, head):
                head.side = first.side
    for g in range(n - 2, -1, -1):  # a side that closes a list covers it
        later = groups[g + 1][0]
        between = items[groups[g][0].high + 1 : later.low]
        linked = all(i.cue in _LIST or i.cue in ("probable", "possible", "unlikely") or i.modifier for i in between)
        if linked and later.side and any(items[k].side for k in trailing[g + 1]):
            for head in groups[g]:
                if head.side is None and head.status == later.status and _lateral(head):
                    head.side, head.site = later.side, head.site or later.site
    _share_change(items, groups, own, trailing)


def _diagnosis(items: list[Item], sign: Head, head: Head) -> bool:
    """Whether head is what the sign may mean: "left opacity, likely pneumonia"; no cause, no companion."""
    between = items[sign.high + 1 : head.low]
    if any(i.cue == "with" or _CAUSE.search(i.text) for i in between):
        return False
    if any(i.cue == "mask" for i in between) and not any(i.cue == "and" for i in between):
        return True  # "opacity in the left base, XXXX atelectasis"
    return head.hedged_by_word or head.certainty == "differential" or _is_sign(items, sign, head)


def _is_sign(items: list[Item], sign: Head, diagnosis: Head) -> bool:
    between = {i.cue for i in items[sign.high + 1 : diagnosis.low]}
    return bool(between & {"sign_of"}) and any(
        i.text
        in (
            "representing",
            "represents",
            "represent",
            "reflecting",
            "reflects",
            "reflect",
            "corresponding to",
            "indicating",
        )
        for i in items[sign.high + 1 : diagnosis.low]
    )


def _share_change(items: list[Item], groups: list[list[Head]], own: list[list[int]], trailing: list[list[int]]) -> None:
    if not any([i.word.change or (i.word.quality and i.word.quality.change) for i in items]):
        return
    for g, group in enumerate(groups):
        lead = [c for k in own[g] if (c := _change(items[k], group, k))]
        tail = [c for k in trailing[g] if (c := _change(items[k], group, k))]
        h = g
        if lead:
            while True:
                _set_change(groups[h], lead[-1])
                if h + 1 >= len(groups) or not _listed(items, groups[h][0].high + 1, groups[h + 1][0].low):
                    break
                if any(_change(items[k], groups[h + 1], k) for k in own[h + 1]):
                    break
                if (
                    groups[h + 1][0].certainty != groups[h][0].certainty
                    or groups[h + 1][0].status != groups[h][0].status
                ):
                    break
                h += 1
        if tail:
            h = g
            while True:
                _set_change(groups[h], tail[-1])
                if h == 0 or not _listed(items, groups[h - 1][0].high + 1, groups[h][0].low):
                    break
                if groups[h - 1][0].time != groups[h][0].time:
                    break
                if any(_change(items[k], groups[h - 1], k) for k in (*own[h - 1], *trailing[h - 1])):
                    break
                h -= 1


def _listed(items: list[Item], begin: int, end: int) -> bool:
    return all(i.cue in _LIST or i.cue == "article" or (i.cue is None and i.modifier) for i in items[begin:end])


def _change(item: Item, group: list[Head], k: int) -> str | None:
    word = item.word
    if any(head.at == k for head in group):
        return None
    if word.change and word.change not in ("resolved", "removed", "exchanged", "moved"):
        return word.change
    return word.quality.change if word.quality and not word.change else None


def _set_change(group: list[Head], change: str) -> None:
    for head in group:
        if head.change is None and (head.status != "absent" or change == "stable") and not head.region:
            if head.status == "absent":
                continue
            head.change = change


# ---------------------------------------------------------------------- a sentence
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
    for clause, indices in clauses(list(items)):
        heads = _heads(clause)
        if not heads:
            continue
        heads = _assign_status(clause, heads)
        if any([i.tells for i in clause]):
            heads = _assign_attributes(clause, heads)
        heads = _without_general(clause, heads)
        for head in heads:
            head.low, head.high = indices[head.low], indices[head.high]
            if head.time == "history" and head.change in _EXISTING:
                head.time = "current"
            if head.time != "void" and (head.status == "absent" or head.name not in _ONLY_DENIED):
                result.append(head)
    return _without_parts(result)


def _without_general(items: list[Item], heads: list[Head]) -> list[Head]:
    """ "Changes of pneumonectomy" are the pneumonectomy: leave out a finding that the next one, after "of", makes special."""
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
