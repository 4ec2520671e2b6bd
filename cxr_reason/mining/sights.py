"""What a reading lets us say of a film, sorted for asking: what is there, what isn't, and what must not be asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from cxr_reason.mining import labels, wording
from cxr_reason.mining.chains import Ground, Sight
from cxr_reason.mining.language import MANNERS, REGIONS
from cxr_reason.radiology import LEXICON, Finding, Reading

"""On what a No may rest; each holds those before it."""

_ORDER = {region: number for number, region in enumerate(REGIONS)}
_URGENCY = {"critical": 0, "urgent": 1, "routine": 2}


@dataclass(slots=True)
class View:
    """One report, ready for asking."""

    seen: list[Sight]
    """Present, without conflict, in the order in which a film is read."""
    suspected: list[Sight]
    absent: list[Sight]
    """Denied in the report's own words, bounds included; nothing that is kin to what is there or suspected."""
    denials: dict[str, Ground]
    """What a No or a wrong option may be made of, by name."""
    conflicts: frozenset[str]
    """What the report, or the report and the input's labels, say different things of: neither asked nor told."""
    whole: bool = True
    """Whether the film may be called normal."""
    withheld: frozenset[str] = frozenset()
    """What is there or may be, but can't be asked of these films (`views.limit`)."""


def look(reading: Reading, *, negatives: str = "region", given: Mapping[str, int] | None = None) -> View:
    """Sort the facts of `reading`. `negatives` is as in `Options`; `given` are the input's labels if they decide."""
    seen: list[Finding] = []
    suspected: list[Finding] = []
    absent: list[Finding] = []
    positive: set[str] = set()
    facts = reading.facts()
    disputed = labels.disputed(reading.labels, given) if given is not None else frozenset()
    conflicts = frozenset(fact.name for fact in facts if fact.conflict or fact.label in disputed)
    for fact in facts:
        if fact.time == "hypothetical":
            continue
        told = fact.time == "current" and fact.name not in conflicts
        if told and fact.status == "absent" and fact.certainty == "definite":
            if fact.bound is None or wording.is_sayable(fact.name, fact.bound):
                absent.append(fact)
            continue
        positive.add(fact.name)
        if told and fact.status != "absent":
            (seen if fact.status == "present" else suspected).append(fact)
    mentions = mentions_of(reading)
    sure = as_sights(seen, reading, mentions)
    doubtful = [sight for sight in as_sights(suspected, reading, mentions) if not _covered(sight, sure)]
    blocked = _kin(frozenset(positive))
    none = as_sights(absent, reading, mentions)
    denials = _denials(none, blocked, negatives)
    if negatives == "silent":
        touched = frozenset(fact.name for fact in facts)
        unmentioned = (name for name in _silent(touched) if name not in blocked and name not in denials)
        denials |= dict.fromkeys(unmentioned, Ground("silent", None))
    if given is not None:
        denials = {name: ground for name, ground in denials.items() if labels.may_be_denied(name, given)}
    beside = [sight for sight in none if sight.name not in blocked]
    # What lies in the past may be seen today: a sternotomy leaves wires. What wasn't read may be anything.
    past = any(fact.time == "history" and fact.status == "present" for fact in facts)
    whole = not (disputed or past or reading.unread)
    return View(sure, doubtful, beside, denials, conflicts, whole=whole)


def urgency(sight: Sight) -> int:
    """0 for critical, 1 for urgent, 2 for routine findings."""
    return _URGENCY[LEXICON.findings[sight.name].urgency]


@cache
def kin(name: str) -> frozenset[str]:
    """All findings that can't be offered as wrong beside `name`: itself, its ancestors, descendants and signs."""
    return frozenset(other for other in LEXICON.findings if LEXICON.related(name, other))


@lru_cache(maxsize=4096)
def _kin(names: frozenset[str]) -> frozenset[str]:
    """What must not be denied beside `names`: their kin, and what shares a CheXpert label with one of them."""
    labels = {LEXICON.findings[name].label for name in names} - {None, "Support Devices"}
    alike = (name for name, entry in LEXICON.findings.items() if entry.label in labels)
    return frozenset(alike).union(*(kin(name) for name in names))


@cache
def _denied_with(name: str, bound: str | None) -> tuple[str, ...]:
    """What goes with a denial of `name`: the kinds of it that a normal region excludes.

    "No acute process" and statements about the whole chest exclude the acute ones only: who writes that the chest is
    normal hasn't said a word of the aorta.
    """
    if bound not in (None, "acute"):
        return ()
    acute = bound == "acute" or LEXICON.findings[name].region == "chest"
    below = (LEXICON.findings[other] for other in sorted(LEXICON.descendants(name)))
    return tuple(
        entry.name
        for entry in below
        if (entry.acute or not acute) and MANNERS[entry.name].asked and not MANNERS[entry.name].beyond
    )


@lru_cache(maxsize=512)
def _silent(touched: frozenset[str]) -> tuple[str, ...]:
    """What readers always report, and this report doesn't mention."""
    return tuple(
        name
        for name, entry in LEXICON.findings.items()
        if entry.reported and MANNERS[name].asked and not kin(name) & touched
    )


def _denials(absent: Iterable[Sight], blocked: frozenset[str], negatives: str) -> dict[str, Ground]:
    stated: dict[str, Ground] = {}
    region: dict[str, Ground] = {}
    for sight in absent:
        details = sight.details
        if details.side or details.site:
            continue
        # "The lungs are clear" beside a granuloma can't be meant to the letter, so nothing follows from it.
        if details.bound is None and sight.name in blocked:
            continue
        if details.bound is None and MANNERS[sight.name].asked:
            stated.setdefault(sight.name, Ground("stated", sight))
        if negatives != "stated":
            ground = Ground("region", sight)
            below = _denied_with(sight.name, details.bound)
            region |= {name: ground for name in below if name not in blocked and name not in region}
    return region | stated


Mentions = dict[tuple[str, str], list[Finding]]
"""A report's findings by name and status."""


def mentions_of(reading: Reading) -> Mentions:
    mentions: Mentions = {}
    for mention in reading.findings:
        mentions.setdefault((mention.name, mention.status), []).append(mention)
    return mentions


def as_sights(facts: list[Finding], reading: Reading, mentions: Mentions) -> list[Sight]:
    """`facts` in the order in which a film is read, each with the spans of all its mentions.

    Where sides are told of a finding, a mention of it without a side adds nothing.
    """
    sided = {fact.name for fact in facts if fact.side}
    sights = []
    for fact in facts:
        name, status, side = fact.name, fact.status, fact.side
        if (side is None and name in sided) or not MANNERS[name].told:
            continue
        details = wording.details_of(fact, reading.text)
        said = mentions.get((name, status), ())
        if side and details.site and not any(m.side == side and m.site == fact.site for m in said):
            details = details._replace(site=None)  # "left opacity" and "retrocardiac opacity" may be two
        spans = [list(mention.span) for mention in said if mention.side is None or mention.side == side]
        claim = wording.claim(details, status, fact.certainty, tuple(fact.alternatives))
        evidence = spans or [list(fact.span)]
        sights.append(Sight(details, status, fact.certainty, fact.alternatives, evidence, fact.change, claim))
    sights.sort(key=lambda sight: _ORDER[MANNERS[sight.name].region])
    return sights


def _covered(suspected: Sight, seen: Iterable[Sight]) -> bool:
    """Whether what is suspected here is certain elsewhere in the report, on the same side."""
    return any(
        suspected.name == sight.name
        and (suspected.details.side is None or suspected.details.side == sight.details.side)
        for sight in seen
    )
