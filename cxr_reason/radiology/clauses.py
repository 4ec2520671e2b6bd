"""Where a sentence falls into clauses: statements with a subject of their own."""

from __future__ import annotations

from cxr_reason.radiology.lexicon import Item, Word


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
        if cue == "but" or cue == "stop" or cue == "corrected":
            if item.text == ":" and (not has_head or not any(map(_names, items[k + 1 :]))):
                current.append(_COPULA)
                indices.append(k)
                continue
            cut = drop = True
        elif cue == "no" or cue == "there":
            cut = has_head and (cue == "there" or any(i.head for i in items[k + 1 :]))  # not in "Pneumothorax: no"
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


def _names(item: Item) -> bool:
    """Whether the item may name a finding by itself: "small" may not."""
    quality = item.word.quality
    return item.head and item.cue is None and not (quality and quality.predicate and item.word.finding is None)


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
        if cue == "one":
            return True
        if cue == "or" and negated:
            return False
        described = word.quality is not None and word.quality.adjective  # "nodular" in "nodular opacity"
        if word.organ and not attributive and word.finding is None and not described:
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
            if negated and positive:
                return True
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
        if negated and finding and _closes_part(items, k) and "or" not in [i.cue for i in items[start:k]]:
            return True  # "no pneumothorax, edema better"
        k += 1
    if negated and positive and finding:
        return "or" not in [i.cue for i in items[start:]]
    return False


def _closes_part(items: list[Item], k: int) -> bool:
    """Whether item k is the predicate of what stands before it up to the comma: "edema slightly better"."""
    word = items[k].word
    told = word.change in _COURSES or (word.quality is not None and word.quality.name == "normal")
    return told and (k + 1 == len(items) or items[k + 1].cue in ("comma", "and", "stop", "but", "of", "in"))


_COURSES = frozenset({"stable", "better", "worse"})


def _of_next(items: list[Item], k: int) -> bool:
    return k + 1 < len(items) and items[k + 1].cue in ("of", "in")
