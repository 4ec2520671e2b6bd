"""A report's findings: what it says is there, is not there, or may be there.

`read` is the engine's door. Evidence comes from findings, impression, addendum and text without heading; what stands
under indication, history, technique or comparison is never evidence. Labels follow chexpert-labeler's conventions
(Irvin et al. 2019, arXiv 1901.07031): mention level, not closed upwards, unmentioned = no key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from cxr_reason.radiology.assertions import Statement, assertions
from cxr_reason.radiology.lexicon import LEXICON, Token
from cxr_reason.radiology.sections import RANK, SILENT, sections
from cxr_reason.radiology.sentences import Phrases, phrases, sentences

LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
_MILD_CONFLICT = frozenset({"old", "chronic"})
# Bounds that leave out nothing of what a claim with the same word says; the others narrow an absence.
_LEAST_KNOWN = 0.55  # share of known words under which a text is not ours
_MOST_BROKEN = 0.24  # share of function words out of place above which a text is no running text


@dataclass
class Finding:
    """One finding as a report states it.

    status: present, absent, uncertain. certainty: definite, probable, possible, differential. time: current, history,
    resolved, hypothetical. bound: what an absence is limited to ("large", "focal"). side: left, right, bilateral.
    severity: mild, moderate, severe or a range "mild-moderate". change: new, worse, stable, better, resolved. size_mm
    in millimetres. span: [start, end) in the report's text.
    """

    name: str
    label: str | None
    status: str
    certainty: str = "definite"
    alternatives: list[str] = field(default_factory=list)
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
    device: dict[str, str] | None = None
    conflict: bool = False
    span: list[int] = field(default_factory=lambda: [0, 0])
    section: str = "body"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; empty fields and a time of "current" are left out."""
        out: dict[str, Any] = {
            "name": self.name,
            "label": self.label,
            "status": self.status,
            "certainty": self.certainty,
        }
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value:
                out[name] = value
        if self.time != "current":
            out["time"] = self.time
        out["span"] = self.span
        out["section"] = self.section
        return out


_OPTIONAL = tuple(
    f.name for f in fields(Finding) if f.name not in ("name", "label", "status", "certainty", "time", "span", "section")
)


class Sentence(NamedTuple):
    """text[start:end], the section it stands in, whether that is evidence, and whether the engine could read it."""

    start: int
    end: int
    section: str
    evidence: bool
    understood: bool


class Reading:
    """What one report says.

    text, sentences, findings (one a mention, in text order), quality (limits of the film that the report names),
    understood (share of its sentences that the engine could read, 0 to 1), rejection (None, "empty", "language",
    "not-chest", "not-understood"; a rejected report has no finding and no label).
    """

    def __init__(
        self, text: str, sentences: list[Sentence], findings: list[Finding], quality: list[str], understood: float,
        rejection: str | None,
    ) -> None:  # fmt: skip
        self.text = text
        self.sentences = sentences
        self.findings = findings
        self.quality = quality
        self.understood = understood
        self.rejection = rejection

    @cached_property
    def _facts(self) -> list[Finding]:
        return _merge(self.findings)

    def facts(self) -> list[Finding]:
        """The findings, every mention of one name and side merged; where they differ the better section wins."""
        return self._facts

    @cached_property
    def labels(self) -> dict[str, int]:
        """CheXpert-14 labels that the report mentions: 1 present, 0 absent, -1 uncertain."""
        found: dict[str, int] = {}
        worth = {"present": (2, 1), "uncertain": (1, -1), "absent": (0, 0)}
        best: dict[str, int] = {}
        for fact in self._facts:
            if fact.label is None or fact.time not in ("current", "resolved"):
                continue
            rank, value = worth[fact.status]
            if rank > best.get(fact.label, -1):
                best[fact.label], found[fact.label] = rank, value
        labels = {label: found[label] for label in LABELS if label in found}
        stated = any(f.time in ("current", "resolved") for f in self._facts)
        if stated and all(v == 0 or label == "Support Devices" for label, v in labels.items()):
            labels = {"No Finding": 1, **labels}
        return labels

    @cached_property
    def normal(self) -> bool:
        """True where the report names nothing abnormal of any kind, devices and old changes included."""
        current = [f for f in self._facts if f.time in ("current", "resolved")]
        return bool(current) and all(f.status == "absent" for f in current)

    @cached_property
    def acute(self) -> bool | None:
        """True: something acute, new or worse may be there. False: the report denies it. None: it doesn't say."""
        current = [f for f in self._facts if f.time == "current"]
        for fact in current:
            if fact.status != "absent" and fact.acuity not in ("old", "chronic") and fact.change != "stable":
                entry = LEXICON.findings[fact.name]
                if entry.acute or fact.acuity == "acute" or (fact.change in ("new", "worse") and not entry.device):
                    return True
        denied = any(f.status == "absent" and LEXICON.is_region(f.name) for f in current)
        return False if denied or self.normal else None


# ---------------------------------------------------------------------- reading
# A word that may name a limit of the film where no evidence stands ("TECHNIQUE: portable, supine")
_LIMIT = re.compile(r"portable|bedside|supine|rotat|semi|recumbent|limited|suboptimal|PORTABLE|SUPINE", re.ASCII)


@lru_cache(maxsize=64)
def read(text: str) -> Reading:
    """Read one report. Linear in the length of the text; never raises for any text."""
    found: list[Finding] = []
    sents: list[Sentence] = []
    limits: list[str] = []
    classes: list[str] = []
    spoken: list[list[Token]] = []
    for section in sections(text):
        if section.name == SILENT:
            if _LIMIT.search(text, section.start, section.end):
                limits += [i.word.limit for i in phrases(text[section.start : section.end]).items if i.word.limit]
            sents += [Sentence(*span, SILENT, False, True) for span in sentences(text, section.start, section.end)]
            continue
        elsewhere = False  # in the report of another film: "Right shoulder. Healing fracture."
        for start, end in sentences(text, section.start, section.end):
            parts = phrases(text[start:end])
            said = "".join([t.kind for t in parts.tokens])
            if ("j" in said or "h" in said[:4]) and (film := _FILM_HEADING.match(text, start, end)):
                elsewhere = film["chest"] is None
            heads = assertions(parts.items)
            limits += [i.word.limit for i in parts.items if i.word.limit]
            unknown = said.count("u") + said.count("f")
            readable = unknown <= (0.5 if heads else 0.4) * len(said)
            sents.append(Sentence(start, end, section.name, not elsewhere, readable))
            if elsewhere:
                continue
            if heads:
                found += _stated(heads, parts, text, start, end, section.name, sized="0" in said)
            classes.append(said)
            spoken.append(parts.tokens)
    rejection = _rejection(text, _Count(classes), spoken, found)
    if rejection:
        return Reading(text, sents, [], list(dict.fromkeys(limits)), 0.0, rejection)
    _mark_conflicts(found)
    quality = list(dict.fromkeys(limits))
    if any(f.name == "low lung volumes" and f.status == "present" for f in found):
        quality.append("low volumes")
    judged = [s for s in sents if s.evidence]
    share = sum(s.understood for s in judged) / len(judged) if judged else 0.0
    return Reading(text, sents, found, quality, round(share, 3), None)


def statements(text: str, start: int, end: int) -> list[Finding]:
    """The findings that the sentence text[start:end] states; spans count in the text, the section is "body"."""
    parts = phrases(text[start:end])
    sized = any(t.kind == "0" for t in parts.tokens)
    return _stated(assertions(parts.items), parts, text, start, end, "body", sized=sized)


def _stated(
    statements: tuple[Statement, ...],
    parts: Phrases,
    text: str,
    start: int,
    end: int,
    section: str,
    *,
    sized: bool,
) -> list[Finding]:
    found = []
    for shared, first, last, event in statements:
        low = start + parts.starts[first]
        finding = Finding.__new__(Finding)  # a copy of the shared fields: several times as fast as __init__
        finding.__dict__ = {**shared, "span": [low, start + parts.ends[last]], "section": section}
        if LEXICON.findings[finding.name].device:
            finding.device = _device(finding, text[start:end], low - start, event)
        found.append(finding)
    if sized:
        for size in _SIZE.finditer(text, start, end):
            _attach_size(size, found)
    return found


_SIZE = re.compile(
    r"(?<![\w.])(\d+(?:\.\d+)?)(?:\s*(?:[x\u00d7]|by|-|to)\s*\d+(?:\.\d+)?){0,3}[\s-]?"
    r"(mm|cm|millimeters?|centimeters?|millimetres?|centimetres?)\b", re.IGNORECASE,
)  # fmt: skip
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _attach_size(size: re.Match[str], found: list[Finding]) -> None:
    """A measurement belongs to the nearest finding that is no device and not denied."""
    start, end = size.span()
    candidates = [f for f in found if f.status != "absent" and f.device is None]
    if not candidates:
        return
    near = min(candidates, key=lambda f: f.span[0] - end if f.span[0] >= end else start - f.span[1] + 3)
    if near.size is None:
        scale = 10.0 if size.group(2)[0] in "cC" else 1.0
        near.size = " ".join(size.group().split())
        near.size_mm = round(max(float(x) for x in _NUMBER.findall(size.group())) * scale, 2)


_PLACED = re.compile(r"tip|termin|end|lie|proj|cours|seen|cm |mm ")
_TIP = re.compile(
    r"\b(?:tips?|terminat\w+|ends|ending|lies|projects?|projecting|coursing|courses|seen)\b[^.;]*?\b"
    r"(?:in|at|above|over|overlying|near|within|below|into|to|from|beyond|past|by|with)\s+(?P<place>[^.;,]+)",
    re.IGNORECASE,
)  # fmt: skip
_DISTANCE = re.compile(
    r"\b(\d+(?:\.\d+)?\s*(?:mm|cm)\s+(?:above|below|from|proximal to|distal to|superior to|beyond)[^.;,]*)",
    re.IGNORECASE,
)
_POSITION = re.compile(
    r"\b((?:good|satisfactory|appropriate|standard|stable|unchanged|expected|adequate|correct|proper|acceptable)"
    r" (?:position|placement|location)"
    r"|malpositioned|malposition|misplaced|kinked|coiled|too (?:high|low)|low[- ]lying|high[- ]lying)\b", re.IGNORECASE,
)  # fmt: skip
_EVENTS = {"new": "placed"}


def _device(finding: Finding, sentence: str, start: int, event: str | None) -> dict[str, str]:
    """{type, tip, position, event}: what the sentence says of a device; keys without a statement are left out."""
    device = {"type": finding.name}
    if finding.status != "absent":
        tail = sentence[start:]
        if _PLACED.search(tail) and (match := _DISTANCE.search(tail) or _TIP.search(tail)):
            device["tip"] = " ".join((match.groupdict().get("place") or match.group(1)).split())
        if match := _POSITION.search(sentence):
            device["position"] = match.group(1).lower()
    if event := event or _EVENTS.get(finding.change or ""):
        device["event"] = event
    return device


# ---------------------------------------------------------------------- not our text
# Function words in places where running English never has them: "of is", "the the", "no ." (classes: lexicon.py)
_BROKEN = re.compile(r"(?=[dn][dpvcmn$]|p[vcm$]|v[vcm$]|c[cvm$]|mv|\^[vc])")
_JOINT = re.compile(r"[dpvcn]")
_WORD = re.compile(r"[dpvcnkufbjh]")


class _Count:
    """Counts over a report's words that tell report English from other text."""

    def __init__(self, classes: list[str]) -> None:
        text = "".join(classes)
        self.words = len(_WORD.findall(text))
        self.foreign = text.count("f")
        self.known = self.words - self.foreign - text.count("u")
        self.parts = text.count("b") + text.count("j")
        self.joints = len(_JOINT.findall(text))
        self.broken = len(_BROKEN.findall(f"^{'$^'.join(classes)}$"))


_FILM_HEADING = re.compile(
    r"\s*(?:(?:left|right|bilateral|both|and|the|of|two|three|one|views?|single|ap|pa|lateral|,)\s+)*"
    r"(?:(?P<chest>chest)|(?:" + "|".join(map(re.escape, LEXICON.data["elsewhere"]["films"])) + r")s?"
    r"(?:\s+and\s+(?:left\s+|right\s+)?(?:" + "|".join(map(re.escape, LEXICON.data["elsewhere"]["films"])) + r")s?)?)"
    r"(?:\s+(?:x-?rays?|radiographs?|series|views?|films?))?\s*(?:[:.]|$)", re.IGNORECASE,
)  # fmt: skip
_OTHER_IMAGING = re.compile(  # among the first four words
    r"\W*(?:\w+\W+){0,3}(?:ct|cta|mri|mra|mr|ultrasound|sonogram|pet|tomography|mammogra\w+|dexa|fluoroscop\w+)\b"
)
_VIEWS = re.compile(r"\bviews?\b|x-?ray|radiograph")
_NO_EXAM = re.compile(
    r"comparison|indication|(?:clinical |medical )?(?:history|information|data)|reason|findings|impression"
)
_FILM = re.compile(r"\b(?:chest|thorax|cxr|x-?ray|radiographs?|film|views?|portable|pa|ap)\b")


_FEWEST_PAIRS, _ENOUGH_PAIRS = 6, 60  # pairs of words that tell something of their order; that suffice
_LEAST_ORDER = (
    -2.0
)  # mean worth of a pair, less 20 times the share of misplaced function words, under which there is no order


def _order(spoken: list[list[Token]]) -> float | None:
    """The mean worth of a pair of neighbours over the first sentences; None where there are too few to tell.

    A mask may stand for anything, and a colon begins anew.
    """
    worth = pairs = 0
    seen, unseen = LEXICON.order, LEXICON.unseen
    for tokens in spoken:
        before = "^"
        for token in tokens:
            after = token.order
            if after == ":":
                after = "^"
            elif before != "<x>" and after != "<x>":
                worth += seen[before].get(after, unseen[before]) if before in seen else -10
                pairs += 1
            before = after
        if pairs >= _ENOUGH_PAIRS:
            break
    return worth / pairs if pairs >= _FEWEST_PAIRS else None


def _rejection(text: str, count: _Count, spoken: list[list[Token]], found: list[Finding]) -> str | None:
    if not any(c.isalpha() for c in text):
        return "empty"
    if count.words and count.foreign / count.words > 0.12 and count.known / count.words < 0.75:
        return "language"
    if count.words and count.known / count.words < _LEAST_KNOWN:
        return "not-understood"
    misplaced = count.broken / max(count.joints, 1)
    # long shuffled texts misplace some function words, so that most reports can go unasked
    order = _order(spoken) if misplaced or count.words <= 100 else None
    if order is not None and order - 20 * misplaced < (_LEAST_ORDER if count.words > 15 else 2 * _LEAST_ORDER):
        return "not-understood"
    if count.joints >= 4 and misplaced > _MOST_BROKEN:
        return "not-understood"
    head = text.lstrip()[:120].split("\n", 1)[0][:80].lower()
    if count.parts or head.startswith(("ct ", "mr", "us ", "x-ray", "xr ")):
        lower = text.lower()
        parts = len(_PARTS.findall(lower))
        elsewhere = _PARTS.search(head) and not _CHEST.search(head) and (parts >= 2 or _VIEWS.search(head))
        if parts and (elsewhere or not _CHEST.search(lower)):
            return "not-chest"
    if _OTHER_IMAGING.match(head) and not _FILM.search(head) and not _NO_EXAM.match(head):
        return "not-chest"
    return None if found else "not-understood"


_PARTS = re.compile(r"\b(?:" + "|".join(map(re.escape, LEXICON.data["elsewhere"]["parts"])) + r")s?\b", re.IGNORECASE)
_CHEST = re.compile(r"\b(?:" + "|".join(map(re.escape, LEXICON.data["elsewhere"]["chest"])) + r")\b")


# ---------------------------------------------------------------------- mentions
def sides_meet(a: str | None, b: str | None) -> bool:
    """Whether statements about side a and side b can speak of the same place; no side = both."""
    return a is None or b is None or a == b or "bilateral" in (a, b)


def _opposed(a: Finding, b: Finding) -> bool:
    """Whether two mentions of one name can't both be true."""
    if {a.time, b.time} & {"history", "hypothetical"}:
        return False
    if not sides_meet(a.side, b.side):
        return False
    if a.device and {a.time, b.time} == {"current", "resolved"} and a.section == b.section:
        return False  # one is removed, another of its kind is there
    absent, other = (a, b) if a.status == "absent" else (b, a)
    if absent.status == "absent" and other.status != "absent":
        if absent.side and other.side is None:
            return False
        if absent.bound:
            return (absent.bound == "large" and other.severity == "severe") or (
                absent.bound in ("definite", "acute") and other.acuity == "acute"
            )
        return not (absent.time == "resolved" and other.time != "current")
    return {a.change, b.change} == {"better", "worse"} and a.section != b.section


_MOST_COMPARED = 50  # mentions of one name: no report has more, and time stays linear for texts that are none


def _mark_conflicts(found: list[Finding]) -> None:
    by_name: dict[str, list[Finding]] = {}
    for finding in found:
        by_name.setdefault(finding.name, []).append(finding)
    for mentions in by_name.values():
        if len(mentions) > 1:
            for i, a in enumerate(mentions[:_MOST_COMPARED]):
                for b in mentions[i + 1 : _MOST_COMPARED]:
                    if _opposed(a, b):
                        a.conflict = b.conflict = True
        _mark_swapped_sides(mentions)
    for finding in found:
        entry = LEXICON.findings[finding.name]
        if finding.status != "present" or finding.time != "current" or not (entry.acute or entry.urgency != "routine"):
            continue
        if not _weighty(finding):
            continue
        for general in LEXICON.ancestors(finding.name) & by_name.keys():
            for denied in by_name[general][:_MOST_COMPARED]:
                denies = (
                    denied.status == "absent" and denied.time == "current" and denied.bound in (None, finding.acuity)
                )
                if denies and sides_meet(denied.side, finding.side):
                    denied.conflict = finding.conflict = True


def _mark_swapped_sides(mentions: list[Finding]) -> None:
    """Left in the findings, right in the impression: evidently one finding."""
    sides: dict[str, set[str]] = {}
    for mention in mentions:
        if mention.status == "present" and mention.time == "current" and mention.side:
            sides.setdefault(mention.section, set()).add(mention.side)
    if len(sides) == 2 and sorted(map(sorted, sides.values())) == [["left"], ["right"]]:
        for mention in mentions:
            mention.conflict = mention.conflict or mention.side in ("left", "right")


def _weighty(finding: Finding) -> bool:
    return not (
        finding.calcified
        or finding.acuity in _MILD_CONFLICT
        or finding.severity == "mild"
        or finding.certainty != "definite"
    )


def _merge(found: list[Finding]) -> list[Finding]:
    """One finding a name and side; the better section wins, then the later mention; details come from all."""
    groups: dict[tuple[str, str | None, str], list[Finding]] = {}
    by_name: dict[str, list[Finding]] = {}
    for finding in found:
        by_name.setdefault(finding.name, []).append(finding)
    for name, mentions in by_name.items():
        sides = {m.side for m in mentions if m.side and m.time in ("current", "resolved")}
        for mention in mentions:
            era = "now" if mention.time in ("current", "resolved") else mention.time
            if (
                mention.device
                and mention.time == "resolved"
                and any(m.time == "current" and not m.conflict for m in mentions)
            ):
                era = "removed"
            side = mention.side
            if side is None and len(sides) == 1:
                side = next(iter(sides))
            groups.setdefault((name, side, era), []).append(mention)
    return [_fuse(mentions) for mentions in groups.values()]


def _fuse(mentions: list[Finding]) -> Finding:
    if len(mentions) == 1:
        return mentions[0]
    order = sorted(range(len(mentions)), key=lambda i: (RANK[mentions[i].section], i), reverse=True)
    best = mentions[order[0]]
    if best.status == "absent" and best.bound:
        # a bounded absence decides nothing against what another mention states
        best = next((mentions[i] for i in order if mentions[i].status != "absent" or not mentions[i].bound), best)
    elif not best.conflict:
        # stated once outright, it is there: a hedge elsewhere mostly speaks of its cause
        best = next((mentions[i] for i in order if mentions[i].status == "present"), best)
        if best.certainty == "differential":
            same = [mentions[i] for i in order if RANK[mentions[i].section] == RANK[best.section]]
            best = next((m for m in same if m.certainty == "probable"), best)
    values = {f.name: getattr(best, f.name) for f in fields(Finding)}
    for other in (mentions[i] for i in order):
        if other.status == best.status:
            for name in ("side", "site", "severity", "size", "size_mm", "change", "acuity", "device"):
                values[name] = values[name] or getattr(other, name)
            values["calcified"] = values["calcified"] or other.calcified
    values["conflict"] = any(m.conflict for m in mentions)
    return Finding(**values)
