"""Whether a clause asserts, denies or hedges each of its heads.

The clause is walked once from left to right. Each cue changes what the heads after it meet (a scope opens or closes)
or speaks of those before it ("is not seen", "has resolved", "is possible").
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cxr_reason.radiology.attributes import may_be
from cxr_reason.radiology.heads import Head
from cxr_reason.radiology.lexicon import LEXICON, Item

_AFTER = frozenset({"after", "following", "status post", "s p", "s / p"})
_DESCRIPTIVE = frozenset(LEXICON.data["diagnosis"]["descriptive"])
# They bound a whole list of denials.
_SPREADING_BOUNDS = frozenset({"definite", "gross", "large", "masked", "new", "significant"})
_STRONG_HISTORY = re.compile(r"history|status post|s (?:/ )?p|hx|pmh|h (?:/ )?o|patient (?:with|has)")
_AGAIN = re.compile("again|still|^re")
_SEEN = ("seen", "noted", "visible", "visualized", "demonstrated", "identified", "evident", "present")
_POSTPOSED = frozenset({
    "possible", "probable", "likely", "most likely", "suspected", "suspect", "questionable", "questioned", "presumed",
    "favored", "suggested", "probably", "possibly", "?",
})  # hedges that may follow what they hedge  # fmt: skip


def assign_status(items: list[Item], heads: list[Head]) -> list[Head]:
    """Set status, certainty, time and bound of every head; return those that count."""
    walk = _Walk(items, heads)
    for k, item in enumerate(items):
        here = walk.by_item.get(k)
        if here:
            walk.meet(k, here)
        elif walk.neg:
            walk.narrow(item)
        word = item.word
        if word.change in ("resolved", "removed"):
            walk.resolve(k, item, met=bool(here))
            continue
        if word.change == "exchanged":
            walk.exchange(k)
            continue
        if word.quality is not None:
            walk.qualify(k, word.quality.name)
        if item.cue is not None and (act := _ACTS.get(item.cue)):
            act(walk, k, item)
    return [head for head in heads if id(head) not in walk.dropped]


class _Walk:
    """The state of one walk over a clause."""

    neg = False
    skip = False
    hypothetical = False
    differential = False
    incoming = False  # after "replaced by"
    fresh = True  # no finding yet since the denial began
    hedge: str | None = None
    history: str | None = None  # "weak" speaks of the next noun, "strong" of all that follows
    resolved: str | None = None
    means = False  # after "representing"
    over = 1 << 30  # where "over" stands after "favor": what follows it is less likely
    again = False  # after "again seen is"
    known = False  # the history is a "known" finding, not a past one
    met = 0  # the last item that named a finding so far

    def __init__(self, items: list[Item], heads: list[Head]) -> None:
        self.items = items
        self.by_item: dict[int, list[Head]] = {}
        for head in heads:
            self.by_item.setdefault(head.at, []).append(head)
        self.last = max(self.by_item, default=-1)  # the last item that names a finding
        self.done: list[Head] = []
        self.lately: list[Head] = []  # those with a weak history
        self.dropped: set[int] = set()
        self.bounds: list[str] = []
        self.spreading: list[str] = []

    # ------------------------------------------------------------------ heads
    def meet(self, k: int, here: list[Head]) -> None:
        for head in here:
            if self.skip:
                self.dropped.add(id(head))
                continue
            if self.means and _is_implant(head) and self.done and self.done[-1].name in _DESCRIPTIVE:
                self.done[-1].time = "void"  # "opacities representing surgical clips"
            self._apply(head)
            if head.status == "absent" and self.neg and not head.region:
                head.bound = " ".join(dict.fromkeys([*self.spreading, *self.bounds])) or None
            elif head.region:
                head.bound = next(
                    (b for i in self.items[self.met : k] if (b := i.word.bound) in ("gross", "other")), None
                )
            if self.history:
                head.time = "history"
                if self.history == "weak":
                    self.lately.append(head)
            if self.incoming and head.change is None and head.status != "absent":
                head.change = "new"
            self.done.append(head)
        self.met, self.means = k, False
        if self.history == "weak":
            self.history = None
        self.bounds = []
        self.fresh = False

    def _apply(self, head: Head) -> None:
        if head.region or head.status == "absent":
            if self.neg:
                head.time = "void"  # "not normal": nothing is said that we could use
            elif self.hedge:
                head.certainty = "probable" if self.hedge == "less" else self.hedge
            return
        if self.hypothetical:
            _suppose(head)
        elif self.neg:
            _deny(head)
            if self.hedge == "probable":
                head.certainty = "probable"
        elif head.certainty == "differential":
            head.status = "uncertain"
        elif self.differential:
            head.status, head.certainty = "uncertain", "differential"
        elif self.hedge:
            _hedge(head, "possible" if self.hedge == "less" or head.at > self.over else self.hedge)
            head.hedged_by_word = True
        if self.resolved:
            _resolve(head, self.resolved)

    def narrow(self, item: Item) -> None:
        """A word inside a denial that limits it: "no large effusion"."""
        word = item.word
        limit = "masked" if item.cue == "mask" else word.bound or ("new" if word.change == "new" else None)
        if limit is None and word.severity and word.severity != "mild":
            limit = item.text
        if limit and limit in _SPREADING_BOUNDS and self.fresh:
            self.spreading.append(limit)
        elif limit:
            self.bounds.append(limit)

    # ------------------------------------------------------------------ changes and qualities
    def resolve(self, k: int, item: Item, *, met: bool) -> None:
        change = item.word.change or ""
        since = max((j for j in range(k) if self.items[j].text in _AFTER), default=-1)  # "atelectasis after extubation"
        target = [h for h in self.done if h.at > since and (h.status != "absent" or not h.region)]
        leads = item.text.endswith((" of", " in")) and self.last > k
        if target and not leads:
            for head in target:
                _resolve(head, change)
        elif k < self.last and not met:
            self.resolved = change

    def exchange(self, k: int) -> None:
        for head in self.done:
            if k < self.last:
                _resolve(head, "removed")
            else:
                head.change = "new"
        self.resolved, self.incoming = None, True

    def qualify(self, k: int, quality: str) -> None:
        if quality == "normal" and k and self.items[k - 1].cue == "be":
            for head in self.done:  # "heart size and vascular engorgement appear within normal limits"
                between = self.items[head.at + 1 : k]
                named = all(i.cue in ("and", "comma", "be") or i.word.organ for i in between)
                if head.status == "present" and named and not _is_implant(head):
                    _deny(head)
        elif quality == "clear" and k + 1 < self.last and self.items[k + 1].text == "of":
            self.neg, self.fresh = True, True  # "grossly clear of infiltrates"
            self.spreading = [b for i in self.items[:k] if (b := i.word.bound) == "gross"]

    # ------------------------------------------------------------------ cues
    def no(self, k: int, item: Item) -> None:
        if k > self.last and self.done:  # "Pneumothorax: absent"
            for head in self.done:
                if head.status == "present":
                    _deny(head)
            return
        self.neg, self.skip, self.fresh, self.hedge = True, False, True, None
        self.bounds, self.spreading = [], []
        if k and item.text.endswith((" of", " from")) and self.items[k - 1].word.bound == "gross":
            self.spreading = ["gross"]  # "grossly clear of infiltrates and effusions"

    def not_seen(self, k: int, item: Item) -> None:
        if self.done and _is_part(self.items, self.done[-1]):
            return
        if any(h.status == "present" for h in self.done):
            for head in self.done:
                if not head.region and head.time == "history":
                    _resolve(head, "resolved")  # "the previously described opacity is not seen"
                elif not head.region:
                    _deny(head)
        elif k < self.last:
            self.neg, self.fresh = True, True

    def unlikely(self, k: int, item: Item) -> None:
        if self.done and (k >= self.last or any(i.cue == "be" for i in self.items[:k])):
            for head in self.done[-1:] if k < self.last else self.done:
                _deny(head)
                head.certainty = "probable"
        else:
            self.hedge = "less"

    def hedged(self, k: int, item: Item) -> None:
        grade = item.cue or ""
        if self._outside(k):
            self._doubted(k)
            return
        if item.text.startswith("favor"):
            self.over = next((j for j in range(k + 1, self.last) if self.items[j].text == "over"), self.last)
        if k > self.last and self.done and item.text in _POSTPOSED and self._closes(k):
            for head in self._recent(k):
                _hedge(head, grade)
        else:
            both = k > 0 and self.items[k - 1].cue == "possible"  # "may be compatible with"
            self.hedge = "possible" if both else grade

    def hedged_before(self, k: int, item: Item) -> None:
        grade = (item.cue or "").removesuffix("_after")
        if self.done and (k >= self.last or self._closes(k)):
            recent = self._recent(k)
            for head in recent[:1] if item.text.startswith("is ") else recent:
                _hedge(head, grade)
        elif k < self.last:
            self.hedge = grade

    def competing(self, k: int, item: Item) -> None:
        self.differential = True

    def versus(self, k: int, item: Item) -> None:
        rivals = self._rivals(k)
        if self.done and any(i.word.organ for i in self.items[self.done[-1].high + 1 : k]):
            return  # "prominent hilum, vascular vs nodal"
        if self.done:
            _compete(self.done[-1], rivals, self.neg)
        elif not self.neg:
            for head in rivals:
                head.certainty = "differential"

    def either_or(self, k: int, item: Item) -> None:
        if self.neg or not self.done or not (rivals := self._rivals(k)):
            return
        _compete(self.done[-1], rivals, self.neg)
        later = self.done[-1]
        for head in reversed(self.done[:-1]):  # "may be A, B or C"
            between = self.items[head.high + 1 : later.low]
            if head.status != "uncertain" or not all(i.cue == "comma" or i.modifier for i in between):
                break
            head.certainty = "differential"
            head.alternatives.append(later.name)
            later = head

    def past(self, k: int, item: Item) -> None:
        self.known = item.text == "known"
        self.history = "strong" if _STRONG_HISTORY.search(item.text) else "weak"
        if k + 1 < len(self.items) and self.items[k + 1].word.organ == "chest" and self.last <= k + 1:
            self.history = None  # "the prior study"
        elif self.again and self.history == "weak":
            self.history = None  # "again seen is the known mass"

    def shown(self, k: int, item: Item) -> None:
        """ "The known mass is seen", "the previous opacity is again noted": they are there."""
        if item.text == ":":
            self.history = None  # "Post-biopsy chest: ..."
        elif self.lately and (_AGAIN.search(item.text) or (self.known and item.text.endswith(_SEEN))):
            for head in self._recent(k):
                if head.time == "history" and head in self.lately:
                    head.time = "current"

    def was(self, k: int, item: Item) -> None:
        for head in self._recent(k):  # "an effusion was present on the prior film"
            if head.status == "present" and head.change != "new":
                head.time = "history"

    def explained(self, k: int, item: Item) -> None:
        """ "The opacity is likely due to overlapping structures": there is nothing."""
        if self.neg or not self.done:
            return
        for head in self._recent(k) or self.done[-1:]:
            if head.name in _DESCRIPTIVE and head.status != "absent":
                head.time = "void"

    def supposed(self, k: int, item: Item) -> None:
        self.hypothetical = True

    def favored_over(self, k: int, item: Item) -> None:
        for head in self._recent(k):
            _hedge(head, "probable")
        self.hedge = "possible"

    def advised(self, k: int, item: Item) -> None:
        for head in self.done:  # "chest tube placement is recommended"
            if _is_device([head]):
                _suppose(head)
        self.hypothetical = True

    def unseen(self, k: int, item: Item) -> None:
        if self.done and _is_part(self.items, self.done[-1]):
            return
        if self.done and k > self.last and self.done[-1].high == k - 1:  # "the fracture is not well seen"
            for head in self._recent(k):
                head.time = "void"
        self.skip = True

    def there(self, k: int, item: Item) -> None:
        if "may" in item.text or "might" in item.text or "could" in item.text:
            self.hedge = "possible"
        self.again = "again" in item.text

    def mask(self, k: int, item: Item) -> None:
        """A masked word before a diagnosis mostly was "likely": "the opacity is XXXX scarring"."""
        sign = self.done[-1] if self.done else None
        if self.neg or not k or k >= self.last or (sign and LEXICON.is_region(sign.name)):
            return
        before = self.items[k - 1].cue
        j = k + 1
        while j not in self.by_item and j < self.last and (self.items[j].cue == "article" or self.items[j].modifier):
            j += 1
        following = self.by_item.get(j)
        if sign is None:  # "This is XXXX scarring"
            if before == "be" and following and self.items[following[0].at].word.finding and not _is_device(following):
                self.hedge = "possible"
            return
        named = following is not None and sign.name != following[0].name
        if named and following:
            meant = following[0].name
            named = sign.name in LEXICON.findings[meant].signs or may_be(sign.name, meant)
        if before == "be" or (named and before not in ("and", "or", "with")):
            self.hedge = "possible"

    def ends_with(self, k: int, item: Item) -> None:
        if self.differential and item.text.startswith("includ"):
            return  # "the differential is wide and includes ..."
        self.neg = self.skip = self.differential = False
        self.hedge = self.resolved = self.history = None

    def sign_of(self, k: int, item: Item) -> None:
        if item.text != "from" and self._outside(k):
            if self.hedge:
                self._doubted(k)
            else:
                self.explained(k, item)
            return
        if self.neg and self.done:
            self.skip = True
        self.hedge, self.means = None, item.text.startswith(("represent", "reflect", "correspond"))

    def comma(self, k: int, item: Item) -> None:
        self.resolved = None
        if self.history == "weak":
            self.history = None

    def reason(self, k: int, item: Item) -> None:
        """ "Tumor follow-up." is why the film was made."""
        if len(self.done) == 1 and k + 1 == len(self.items) and self.done[0].high == k - 1:
            _suppose(self.done[0])

    # ------------------------------------------------------------------ looking around
    def _outside(self, k: int) -> bool:
        """Whether what item k, a hedge or a cause, speaks of lies outside the chest: "due to breast tissue"."""
        if k < self.last or not self.done or "mask" in self.items[k].text or self.items[k - 1].cue == "mask":
            return False  # a masked "not" would turn it round
        after = [i for i in self.items[k + 1 :] if i.cue not in ("article", "in", "be") and not i.modifier]
        return bool(after) and all(i.word.organ in _OUTSIDE for i in after)

    def _doubted(self, k: int) -> None:
        for head in self._recent(k):
            if head.name in _DESCRIPTIVE:
                _hedge(head, "possible")

    def _closes(self, k: int) -> bool:
        """Whether item k ends its statement."""
        return k + 1 >= len(self.items) or self.items[k + 1].cue in ("comma", "and", "with", "stop", "but")

    def _recent(self, k: int) -> list[Head]:
        """The heads of the list that item k closes, last first: back to a sign, a "with" or a denial."""
        recent: list[Head] = []
        edge = k
        for head in reversed(self.done):
            if head.status == "absent":
                break
            between = {i.cue for i in self.items[head.at + 1 : edge]}
            if recent and not between <= {None, "and", "or", "comma", "article", "versus"}:
                break
            recent.append(head)
            edge = head.at
        return recent

    def _rivals(self, k: int) -> list[Head]:
        """The heads that compete with what stands before a "versus" or "or": the next ones, no hedge between."""
        for j in range(k + 1, len(self.items)):
            if j in self.by_item:
                return self.by_item[j]
            if self.items[j].cue in ("probable", "possible", "comma", "be"):
                break
        return []


_ACTS: dict[str, Callable[[_Walk, int, Item], None]] = {
    "no": _Walk.no,
    "not_seen": _Walk.not_seen,
    "unlikely": _Walk.unlikely,
    "probable": _Walk.hedged,
    "possible": _Walk.hedged,
    "probable_after": _Walk.hedged_before,
    "possible_after": _Walk.hedged_before,
    "differential": _Walk.competing,
    "versus": _Walk.versus,
    "or": _Walk.either_or,
    "history": _Walk.past,
    "history_after": _Walk.was,
    "artifact": _Walk.explained,
    "hypothetical": _Walk.supposed,
    "advised": _Walk.advised,
    "favored_over": _Walk.favored_over,
    "limited_view": _Walk.unseen,
    "there": _Walk.there,
    "mask": _Walk.mask,
    "with": _Walk.ends_with,
    "sign_of": _Walk.sign_of,
    "comma": _Walk.comma,
    "be": _Walk.shown,
    "indication": _Walk.reason,
}


def _deny(head: Head) -> None:
    head.status, head.certainty = "absent", "definite"


def _hedge(head: Head, grade: str) -> None:
    if head.status != "absent" and head.certainty != "differential":
        head.status, head.certainty = "uncertain", grade


def _suppose(head: Head) -> None:
    head.status, head.certainty, head.time = "uncertain", "possible", "hypothetical"


_OUTSIDE = frozenset({"breast", "soft tissue"})
_IMPLANTS = frozenset(LEXICON.data["implants"]["findings"])


def _is_implant(head: Head) -> bool:
    return head.name in _IMPLANTS or LEXICON.findings[head.name].device


def _is_device(heads: list[Head]) -> bool:
    return any(LEXICON.findings[head.name].device for head in heads)


def _is_part(items: list[Item], head: Head) -> bool:
    """Whether a clause speaks of a device's tip or another part of it, so that what isn't seen is the part."""
    device = LEXICON.findings[head.name].device
    return device and ("tip" in items[head.at].text or (head.low > 0 and items[head.low - 1].cue == "of"))


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
