"""Which side, site, severity, change and acuity belong to which finding of a clause.

Side: of the noun that it stands with; leading, of the plain list after it; trailing, of the list before it; a sign
gives it to its diagnosis. Severity and acuity: of their own noun. Change: of the list that it leads or closes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

from cxr_reason.radiology.heads import Head
from cxr_reason.radiology.lexicon import LEXICON, Item

_INNER = frozenset({"ventricle", "airways"})  # a tip in the right atrium gives no side
_LIST = frozenset({"and", "or", "comma", "versus"})


def assign_attributes(items: list[Item], heads: list[Head]) -> list[Head]:
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
    first = groups[0][0].low
    # what stands before "with" describes something that we don't know: "loops in the left chest with ..."
    named = LEXICON.findings[groups[0][0].name].device
    own[0] += range(0 if named else next((k + 1 for k in range(first - 1, -1, -1) if items[k].cue == "with"), 0), first)
    for g, group in enumerate(groups):
        own[g] += range(group[0].low, group[0].high + 1)
        begin = group[0].high + 1
        end = groups[g + 1][0].low if g + 1 < n else len(items)
        if begin >= end:
            continue
        cut = _split_gap(items, begin, end) if g + 1 < n else end
        trailing[g] += range(begin, cut)
        if g + 1 < n:
            own[g + 1] += range(cut, end)
    for g, group in enumerate(groups):
        _take(items, own[g], group, leading=True)
        near = next((i for i, k in enumerate(trailing[g]) if items[k].cue == "with"), len(trailing[g]))
        tail = trailing[g][:near]
        _take(items, tail, group, leading=False)
        if group[0].side is None and not LEXICON.findings[group[0].name].device:
            _take(items, _place_beyond(items, trailing[g][near + 1 :]), group, leading=False)
    _share(items, groups, own, trailing)
    if len(items) > 2 and items[0].word.side:
        verb = items[2] if items[1].word.organ == "lungs" else items[1]
        if verb.cue == "be":  # "the left shows ...", "the right lung is clear without ..."
            for head in heads:
                head.side = head.side or (items[0].word.side if is_lateral(head) else None)
    if sum(item.side is not None for item in items) > 1:
        for head, twin in _twins(items, groups, own, trailing):
            heads.insert(heads.index(head) + 1, twin)
    return heads


def _twins(
    items: list[Item], groups: list[list[Head]], own: list[list[int]], trailing: list[list[int]]
) -> list[tuple[Head, Head]]:
    """Heads that stand for two findings, one a side, each with the second of them."""
    twins = []
    if {"left", "right"} <= {item.word.side for item in items}:
        own_words = [(head, own[g]) for g, group in enumerate(groups) for head in group]
        twins = [(head, t) for head, indices in own_words if (t := _twin(items, indices, head))]
    for g, group in enumerate(groups):
        at = group[0].at
        near = next((i for i, k in enumerate(trailing[g]) if items[k].cue == "with"), len(trailing[g]))
        before, after = [k for k in own[g] if k < at], [*(k for k in own[g] if k > at), *trailing[g][:near]]
        for head, indices in product(group, (before, after)):
            places = _places(items, indices)
            if len(places) > 1 and (twin := _spread(head, places)):
                twins.append((head, twin))
    return twins


_Place = tuple[str, str | None]
"""A side, and the site on it."""
_IN_PLACES = frozenset({"in", "of", "article", "mask"})
_HELD = frozenset({"lungs", "airspace", "interstitium", "markings", "hila", "pleura", "ribs"})  # with or in a place


def _places(items: list[Item], indices: list[int]) -> list[_Place]:
    """The places of a plain list: "bibasilar and right upper lobe", "in the left apex and the right base"."""
    if not any(items[k].cue == "and" for k in indices):
        return []
    parts: list[list[Item]] = [[]]
    for k in indices:
        if items[k].cue in ("and", "comma"):
            parts.append([])
        else:
            parts[-1].append(items[k])
    parts = [part for part in parts if part]
    places = []
    for n, part in enumerate(parts):
        side = next((item.side for item in reversed(part) if item.side), None)  # "both left base and lingula"
        plain = all(i.cue in _IN_PLACES or i.side or i.word.site or i.word.organ in _HELD for i in part)
        if side is None or (n and not plain):
            return []
        places.append((side, next((item.word.site for item in part if item.word.site), None)))
    return places


def _spread(head: Head, places: list[_Place]) -> Head | None:
    """Give a finding all the places of a list. "Bibasilar and right upper lobe opacities" are two findings: where a
    place on one side stands beside one on both, return the one-sided finding.
    """
    if not is_lateral(head) or head.side is None:
        return None
    sides = {side for side, _ in places}
    sites = {site for _, site in places}
    if "bilateral" not in sides or len(sides) == 1:
        head.side = _one_side(list(sides))
        head.site = sites.pop() if len(sites) == 1 else None
        return None
    alone = [place for place in places if place[0] != "bilateral"]
    if len({side for side, _ in alone}) > 1:
        head.side, head.site = "bilateral", None
        return None
    head.side, head.site = next(place for place in places if place[0] == "bilateral")
    site = alone[0][1] if len({site for _, site in alone}) == 1 else None
    return replace(head, side=alone[0][0], site=site, alternatives=list(head.alternatives))


def _place_beyond(items: list[Item], indices: list[int]) -> list[int]:
    """The place that follows what a finding comes with: "a nodule with spiculation in the left apex"."""
    begin = next((n for n, k in enumerate(indices) if items[k].cue == "in"), None)
    if begin is None or any(items[k].head or items[k].cue not in (None, "article") for k in indices[:begin]):
        return []
    return indices[begin:]


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
    both = None if change or other_change else head.change  # "... and small left effusions are unchanged"
    head.change = change or head.change
    return replace(
        head, side=side, severity=severity, change=other_change or both, alternatives=list(head.alternatives)
    )


def _split_gap(items: list[Item], begin: int, end: int) -> int:
    """Which items between two heads belong to the first: up to the last separator, or the preposition's phrase."""
    for k in range(end - 1, begin - 1, -1):
        cue = items[k].cue
        if cue is not None and (cue not in ("article", "of", "in", "mask") or items[k].text == "by"):
            return k
    return end if items[begin].word.cue in ("in", "of") else begin


def _take(items: list[Item], indices: list[int], group: list[Head], *, leading: bool) -> None:
    sides: list[str] = []
    sites = [head.site for head in group]
    tip = False
    for k in indices:
        item = items[k]
        if not (item.tells or item.verb):
            continue
        word = item.word
        if not leading and item.verb and ("tip" in items[group[0].at].text or item.text.startswith(_TIP_VERBS)):
            tip = True
        if item.side and not tip:
            following = items[k + 1].word.organ if k + 1 < len(items) and not word.site else None
            chamber = word.organ in _INNER or following in _INNER
            if leading or not chamber:
                sides.append(item.side)
        if word.quality is not None and word.quality.name == "calcified":
            for head in group:
                head.calcified = head.calcified or k < head.at
        if not item.modifier:
            continue
        # "previously moderate", "from severe to mild", "marked improvement" say nothing of today's severity
        past = bool(k) and (items[k - 1].cue == "history" or items[k - 1].text == "from")
        past = past or (k + 1 < len(items) and _is_change(items[k + 1], group, k + 1))
        for head in group:
            if word.site and not tip and head.site is None:
                head.site = word.site
            if word.severity and not past and head.status != "absent" and k != head.at and word.finding is None:
                if leading or not head.severity:
                    head.severity = word.severity
                elif item.text.startswith("now "):  # "large ... now moderate"
                    if word.severity != head.severity:
                        head.change = "better" if _DEGREES[word.severity] < _DEGREES[head.severity] else "worse"
                    head.severity = word.severity
            if word.acuity and head.bound != word.acuity and (leading or (k and items[k - 1].cue == "be")):
                head.acuity = head.acuity or word.acuity
    side = _one_side(sides)
    if side:
        for head, site in zip(group, sites, strict=True):
            if head.name in _TUBES:
                continue  # "ETT, NGT, right IJ line"
            if head.side is None:
                head.side = side
            elif head.side == "bilateral" != side:
                head.site = site  # "bilateral opacities, most notable in the left upper lobe"


def _is_change(item: Item, group: list[Head], k: int) -> bool:
    """Whether item k speaks of a change, so that "slightly" before it grades the change."""
    if any(head.at == k for head in group) or item.word.severity:
        return False
    return item.word.change is not None or bool(item.word.quality and item.word.quality.change)


_TIP_VERBS = ("terminates", "ends")
_DEGREES = {"mild": 1, "mild-moderate": 1.5, "moderate": 2, "mild-severe": 2, "moderate-severe": 2.5, "severe": 3}


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
_TUBES = frozenset(LEXICON.data["midline"]["tubes"])
_DIRECTED = frozenset(LEXICON.data["midline"]["directed"])
_CAUSE = re.compile(r"due to|secondary|relat|caused|because|owing|result|setting|context")


def lateral(name: str) -> bool:
    """Whether the finding can have a side."""
    return name not in _MIDLINE and LEXICON.findings[name].region not in _MIDLINE_REGIONS


def is_lateral(head: Head) -> bool:
    return lateral(head.name)


def _share(items: list[Item], groups: list[list[Head]], own: list[list[int]], trailing: list[list[int]]) -> None:
    n = len(groups)
    if n == 1:
        _share_change(items, groups, own, trailing)
        return
    joined = [_plain(items, groups[g][0].high + 1, groups[g + 1][0].low) for g in range(n - 1)]
    sign = groups[0][0]
    for g in range(1, n):
        first = groups[g - 1][0]
        listed = g > 1 and _listed(items, groups[g - 2][0].high + 1, first.low)
        if first.name not in _DIRECTED and (first.side or not listed or not is_lateral(first)):
            sign = first  # else the sign stays: "lingular infiltrate and a trace effusion, likely aspiration"
        for head in groups[g]:
            if head.side is not None or not is_lateral(head):
                continue
            if first.side and joined[g - 1] and head.certainty == first.certainty:
                if head.status == first.status:  # a side that leads a plain list covers it
                    head.side = first.side
            elif sign.side and head.status != "absent" and sign.status != "absent":
                between = items[first.high + 1 : head.low]
                if _diagnosis(between, head) or (sign is first and _explains(between, sign, head)):
                    head.side = sign.side
    for g in range(n - 2, -1, -1):  # a side that closes a list covers it
        later = groups[g + 1][0]
        between = items[groups[g][0].high + 1 : later.low]
        linked = all(i.cue in _LIST or i.cue in ("probable", "possible", "unlikely") or i.modifier for i in between)
        if later.side and later.name not in _DIRECTED and any(items[k].side for k in trailing[g + 1]):
            meant = all(i.cue in ("probable", "possible", "article") or i.text in _MEANING for i in between)
            for head in groups[g]:
                if head.side is not None or not is_lateral(head):
                    continue
                if (linked and head.status == later.status) or (
                    meant and head.name in _DESCRIPTIVE and head.status == "present" and later.status != "absent"
                ):  # "opacities representing atelectasis in the left base"
                    head.side, head.site = later.side, head.site or later.site
    _share_change(items, groups, own, trailing)


def _diagnosis(between: list[Item], head: Head) -> bool:
    """Whether head is what the sign before it may mean: "left opacity, likely pneumonia"; no cause, no companion."""
    if any(i.cue == "with" or _CAUSE.search(i.text) for i in between):
        return False
    if any(i.cue == "mask" for i in between) and not any(i.cue == "and" for i in between):
        return True  # "opacity in the left base, XXXX atelectasis"
    return head.hedged_by_word or head.certainty == "differential" or any(i.text in _MEANING for i in between)


_MEANING = frozenset(LEXICON.data["diagnosis"]["meaning"])
_DESCRIPTIVE = frozenset(LEXICON.data["diagnosis"]["descriptive"])


def _explains(between: list[Item], sign: Head, head: Head) -> bool:
    """Whether head is the cause of a sign that only describes, and so is where that is: "opacity due to scarring"."""
    return any(_CAUSE.search(i.text) for i in between) and may_be(sign.name, head.name)


def may_be(sign: str, diagnosis: str) -> bool:
    """Whether the one only describes what the other names, so that both are in one place: opacity and atelectasis."""
    if sign not in _DESCRIPTIVE:
        return sign == diagnosis
    findings = LEXICON.findings
    return LEXICON.related(sign, diagnosis) or findings[sign].region == findings[diagnosis].region


def _share_change(items: list[Item], groups: list[list[Head]], own: list[list[int]], trailing: list[list[int]]) -> None:
    if not any(i.word.change or (i.word.quality and i.word.quality.change) for i in items):
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
    change = word.change or (word.quality.change if word.quality else None)
    if change is None or change in _ENDING or any(head.at == k for head in group):
        return None
    return change


_ENDING = frozenset({"resolved", "removed", "exchanged", "moved"})  # they end or replace what they speak of


def _set_change(group: list[Head], change: str) -> None:
    for head in group:
        if head.change is None and head.status != "absent":
            head.change = change
