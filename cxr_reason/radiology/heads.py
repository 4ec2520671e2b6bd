"""What a clause names: a finding by its name, or a quality paired with its organ ("the heart is enlarged")."""

from __future__ import annotations

from dataclasses import dataclass, field

from cxr_reason.radiology.lexicon import LEXICON, Item, Quality, Word

NORMAL = frozenset({"normal", "clear", "top normal"})


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


def _organs_after(items: list[Item], k: int) -> tuple[list[tuple[str, int]], str | None]:
    """The list of organs right after item k and the joint before it ("of", "in" or None for none)."""
    joint: str | None = None
    organs: list[tuple[str, int]] = []
    for j in range(k + 1, len(items)):
        item = items[j]
        word, cue = item.word, item.cue
        if word.organ:
            organs.append((word.organ, j))
        elif cue == "of" or cue == "in":
            if organs:
                break
            joint = joint or cue
        elif cue == "be" and item.text == "involving":
            joint = joint or "in"
        elif cue in _JOINTS:
            pass
        elif word.finding or word.quality:
            if organs or word.finding or not (word.quality and word.quality.adjective):
                break
            if items[j - 1].cue not in ("and", "or", "comma"):
                break
        elif item.modifier or cue == "mask":
            pass
        else:
            if cue == "versus":  # "prominent hilum, vascular vs nodal": what may be behind it
                commas = [p for p in range(k, j) if items[p].cue == "comma"]
                organs = [(organ, p) for organ, p in organs if not commas or p < commas[-1]]
            break
    return organs, joint


_JOINTS = frozenset({"and", "or", "comma", "article"})


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


def heads_of(items: list[Item]) -> list[Head]:
    heads: list[Head] = []
    subjects: list[tuple[str, int]] = []
    closed = False  # the subjects have their predicate: the next organ begins a new list
    used: set[int] = set()  # items eaten by a pair
    for k, item in enumerate(items):
        if item.cue == "with":
            subjects = []
        if not item.names:
            continue
        word = item.word
        if word.organ:
            if closed or (k and items[k - 1].text == ":"):  # "Heart and mediastinum: The heart is enlarged"
                subjects, closed = [], False
            if item.film and k and (items[k - 1].word.change or items[k - 1].cue == "history"):
                continue  # "similar to the prior exam and within normal limits": the exam isn't what is normal
            if not (k and items[k - 1].cue == "of" and subjects):
                subjects.append((word.organ, k))
            if word.finding is None and word.quality is None:
                continue
        if word.finding is not None:
            names = _refined(items, k, word.finding, heads)
            if names == [_WHOLE] and subjects and not closed:
                names = _abnormality_of(subjects)
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
        item = items[head.at]
        if item.word.quality is not None and item.word.finding is None:
            items[head.at] = _bare.get(item) or _bare.setdefault(item, _only_quality(item))
    return heads


_bare: dict[Item, Item] = {}


def _only_quality(item: Item) -> Item:
    """The item without what else it might mean: once it is a finding, "small" is no severity any more."""
    return Item(Word(quality=item.word.quality), item.text, item.side).settle()


def _head(name: str, k: int, low: int, high: int, quality: Quality) -> Head:
    denied = name.startswith("!")
    name, _, change = name.lstrip("!").partition("@")
    head = Head(name, k, low, high, severity=quality.severity if quality.certainty else None)
    head.change = change or (quality.change if quality.moving else None)
    if denied:
        head.status, head.region = "absent", quality.name in NORMAL
    if quality.certainty:
        head.certainty = quality.certainty
    return head


def _refined(items: list[Item], k: int, name: str, heads: list[Head]) -> list[str]:
    """What the finding that item k names is, given the organs and findings that stand with it; often just that."""
    table = LEXICON.refine.get(name)
    if table is None:
        return [name]
    before, (after, joint) = _organs_before(items, k), _organs_after(items, k)
    near = [h.name for h in heads if k - h.at <= 3]
    near += ["device" for h in heads if LEXICON.findings[h.name].device and k - h.at <= 2]
    near += [organ for organ, _ in before]
    for other in [*near[::-1], *([after[0][0]] if joint and after else [])]:
        if other in table:
            return [table[other]] if table[other] else []
    return [name]


_WHOLE = "chest abnormality"


def _abnormality_of(subjects: list[tuple[str, int]]) -> list[str]:
    """The names of an abnormality of these organs: "the lungs and bones show no abnormality"."""
    names = dict.fromkeys(name for organ, _ in subjects for name in LEXICON.organs[organ])
    return [name for name in names if LEXICON.is_region(name)]


def _names(quality: Quality, organ: str) -> list[str] | None:
    """The findings that a quality says of an organ: [] = nothing of ours, None = no pair."""
    if quality.name == "top normal":
        return ["!cardiomegaly"] if organ in ("heart", "cardiomediastinum") else []
    if quality.name in NORMAL:
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
    following = items[k + 1].word.quality if k + 1 < len(items) else None
    if quality.adjective and following and not following.adjective:
        return [], k, k, []  # "an ovoid calcific density" is the density's
    adjacent_after = bool(after) and joint is None and quality.adjective
    if adjacent_after and quality.name not in NORMAL and _names_thing(items, after[-1][1] + 1):
        # "prominent hilar opacities": the adjective belongs to the opacities, not to the hila
        joints = [p for p in range(k + 1, after[-1][1]) if items[p].cue in ("and", "comma", "or")]
        after = [(organ, p) for organ, p in after if joints and p < joints[-1]]
        if not after:
            return [], k, k, []
    between = [items[j].cue for j in range(subjects[-1][1] + 1 if subjects else k, k)]
    copula = "be" in between
    if heads and not copula and ("probable" in between or "possible" in between):
        subjects = []  # "opacity along the chest wall, compatible with thickening": of the opacity
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
    apart = not quality.adjective and joint and any(quality.on.get(organ) == "" for organ, _ in after)
    if apart and not any(i.word.site for i in items):
        return [], k, k, []  # "nodular density overlying the rib": not in the lung, as far as we know
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
    if quality.name in NORMAL:
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
