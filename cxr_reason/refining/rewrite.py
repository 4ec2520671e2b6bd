"""What a sentence of a chain says, what it must not talk of, and how it is mended.

`passage` reads a step's text into `Said`s, one a sentence: the claims it makes, the forbidden talk in it, the signs
and numbers it names. That depends on the text alone and is cached, since chains repeat their steps.

`mend` takes forbidden talk out of a sentence, `without_claims` takes clauses out whose claims don't hold. Both give
back only what is safe: every claim of the mended sentence stood in the old one with the same status, at least the same
certainty and the same bound, and no hedge was lost. Anything else is None, and the sentence has to go.

Patterns are data: ``talk.toml``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from operator import attrgetter
from typing import Any

from cxr_reason.radiology import Finding, claims
from cxr_reason.rewards.options import CERTAINTY, stated
from cxr_reason.rewards.prose import is_general

TALK = ("leak", "prior", "history", "advice")
CACHED_TEXTS = 4_096

# What a verdict depends on; the rest of a claim is where it was read.
what_counts = attrgetter(
    "name", "status", "certainty", "time", "bound", "side", "site", "severity", "size_mm", "change", "acuity"
)
# Fields that tell where a finding was read.
_PLACE = frozenset({"span", "section", "conflict"})


def _load() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("talk.toml").read_text(encoding="utf-8"))


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    # One \b before all of them, so that they are tried at the start of a word only, and no re.IGNORECASE, which would
    # keep the branches from being skipped by their first letter: ten times as fast. They meet lower-case text only.
    return re.compile(r"\b(?:" + "|".join(patterns) + ")")


_DATA = _load()
_CUES = {name: _any(section["cues"]) for name, section in _DATA.items() if "cues" in section}
_ANY_TALK = _any(cue for name in TALK for cue in _DATA[name]["cues"])
_AFFIRMED = r"^(?!.*\b(?:no|not|nor|without|none|never|free|absent|absence|negative)\b)"
_MENDS = {
    name: [
        (re.compile(pattern.replace("{affirmed}", _AFFIRMED), re.IGNORECASE), replacement)
        for pattern, replacement in _DATA[name]["mends"]
    ]
    for name in TALK
}
_SIGNS = _any(map(re.escape, _DATA["signs"]["words"]))
WHY: dict[str, str] = {name: _DATA[name]["why"] for name in TALK}

# XXXX, ___ and [**…**] stand for words that were taken out of a report.
# "Masked" is how a mask reads when it has been taken for a word: "no masked consolidation".
# Every branch begins with a letter or mark of its own, which lets `re` skip fast to the next candidate.
MASK = re.compile(
    r"M(?<!\wM)asked (?!by\b)|m(?<!\wm)asked (?!by\b)|XXX+|x(?<!\wx)xx+\b|__+|\[\*\*|\*\*\]|"
    r"\[(?:redacted|removed|deidentified|de-identified)\]"
)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=\W?[A-Z0-9])")
_NO_END = re.compile(r"\b(?:Dr|vs|e\.g|i\.e|approx|cf|No|Fig|St)\.$")
# Where a subordinate clause begins: at a comma, semicolon or dash and one of these words.
_CLAUSE = re.compile(
    r"(?:,|;| [-\u2013\u2014])\s+(?=(?:which|as|when|where|compared|since|unchanged|stable|consistent|compatible|"
    r"in keeping|common|typical|characteristic|and (?:is|are|has|have|was|were|there|this|the|an?|should|may|could|"
    r"clinical|close|further|follow|recommend|correlat)|but|although|though|while|whereas|given|possibly|probably|"
    r"perhaps|likely|presumably|most|correlat|recommend|follow|further|for which|in (?:comparison|the)|per|due|so|"
    r"thereby|thus|similar|without|again|suggestive|indicative|[a-z]+ing)\b)"
)
_UNFINISHED = re.compile(
    r"(?:\b(?:and|or|nor|the|a|an|of|with|in|to|is|are|no|as|by|for|from|which|that|but)|"
    r"[,:;(\-\u2013\u2014\u2026]|\.\.\.)$",
    re.IGNORECASE,
)
_UNFINISHED_REACH = 8  # characters from the end; the longest branch takes 5
_LEADING = re.compile(
    r"^(?:given|in view of|considering|in light of|because|based on|compared|in comparison|relative to|since|unlike|"
    r"as|with|although|while|after|following|despite)\b[^,;]*,\s+",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"\b(an?) (?=([a-z]+))", re.IGNORECASE)
_VOWEL_SOUND = re.compile(r"(?!uni|us[eu]|eu|one)[aeiou]", re.IGNORECASE)
_WORD = re.compile(r"\w+")


class Said:
    """One sentence of a chain, as far as the text alone tells.

    `quoted` is a list of findings that it quotes, such as the option that a conclusion names. It is read by itself.
    What plans or explains in `general` claims nothing of this film.
    """

    __slots__ = ("claims", "general", "key", "masked", "numbers", "quoted", "signs", "talk", "text")

    def __init__(self, text: str, quoted: str = "") -> None:
        lower = text.lower()
        self.text = text
        self.key = " ".join(_WORD.findall(lower))
        """Its words alone, to tell repetitions."""
        self.quoted = quoted
        self.general = is_general(lower)
        self.claims: tuple[Finding, ...] = ()
        if not self.general:
            own = claims(text.replace(quoted, "") if quoted else text)
            self.claims = (*own, *stated(quoted)) if quoted else tuple(own)
        self.talk: tuple[str, ...] = ()
        if _ANY_TALK.search(lower):
            self.talk = tuple(name for name in TALK if _CUES[name].search(lower))
        self.masked = MASK.search(text) is not None
        self.signs: tuple[str, ...] = tuple(_SIGNS.findall(lower))
        self.numbers: tuple[str, ...] = tuple(NUMBER.findall(text))

    @property
    def inferred(self) -> bool:
        return matches("inferred", self.text)


class Passage:
    """The sentences of a step, and what they come to together. Steps of the same text share it."""

    __slots__ = (
        "as_dicts",
        "checkable",
        "claims",
        "detailed",
        "key",
        "marks",
        "masked",
        "sentences",
        "talk",
        "text",
        "unfinished",
    )

    def __init__(self, sentences: tuple[Said, ...]) -> None:
        self.sentences = sentences
        self.text = " ".join([sentence.text for sentence in sentences])
        self.key = " ".join([sentence.key for sentence in sentences])
        """Its words alone, to tell repetitions."""
        self.claims = tuple([claim for sentence in sentences for claim in sentence.claims])
        self.marks = tuple(map(what_counts, self.claims))
        self.as_dicts = [_as_dict(claim) for claim in self.claims]
        self.talk = frozenset([kind for sentence in sentences for kind in sentence.talk])
        last = sentences[-1].text if sentences else ""
        self.unfinished = _UNFINISHED.search(last, len(last) - _UNFINISHED_REACH) is not None
        """Whether it breaks off."""
        self.masked = any(sentence.masked for sentence in sentences)
        self.checkable = bool(self.claims) and all(said.claims or said.general for said in sentences)
        """Whether it claims something, and says nothing that can't be checked."""
        self.detailed = any(said.signs or said.numbers for said in sentences) or any(map(has_details, self.claims))
        """Whether it says anything that could be invented: a sign, a number, a detail."""


def has_details(claim: Finding) -> bool:
    """Whether `claim` says of something that is or may be there where, how much, how large or how old it is."""
    details = claim.side or claim.severity or claim.site or claim.acuity or claim.device
    return claim.status != "absent" and bool(details)


def _as_dict(claim: Finding) -> dict[str, Any]:
    """A claim as a step holds it. Where it stands in the report is the step's `evidence`, not the claim's."""
    return {name: value for name, value in claim.as_dict().items() if name not in _PLACE}


@lru_cache(maxsize=CACHED_TEXTS)
def passage(text: str) -> tuple[Numbering | None, Passage]:
    """A step's `text`, read, and the number that it starts with."""
    number, text = numbering(text)
    return number, Passage(sentences(text))


def quoting(text: str, quoted: str) -> tuple[Numbering | None, Passage]:
    """Like `passage`, for a conclusion that quotes a list of findings: the like seldom comes twice."""
    number, text = numbering(text)
    return number, Passage(sentences(text, quoted))


def sentences(text: str, quoted: str = "") -> tuple[Said, ...]:
    """The sentences of `text`, read. `quoted` is a list of findings that one of them may quote."""
    parts: list[str] = []
    for part in _SENTENCE_END.split(text.strip()):
        if parts and _NO_END.search(parts[-1]):
            parts[-1] += f" {part}"
        elif part:
            parts.append(part)
    return tuple(Said(part, quoted) if quoted and quoted in part else said(part) for part in parts)


@lru_cache(maxsize=CACHED_TEXTS)
def said(text: str) -> Said:
    """`text`, a sentence, read."""
    return Said(text)


@lru_cache(maxsize=CACHED_TEXTS)
def masked(*texts: str) -> bool:
    """Whether one of `texts` holds a mask."""
    return any(map(MASK.search, texts))


def matches(section: str, text: str) -> bool:
    """Whether a cue of `section` of talk.toml is found in `text`."""
    return _CUES[section].search(text.lower()) is not None


def mend(sentence: Said, kinds: Iterable[str]) -> Said | None:
    """`sentence` without talk of `kinds`; None where that can't be had without changing what it says."""
    forbidden = [kind for kind in kinds if kind in sentence.talk]
    text = sentence.text
    for kind in forbidden:
        for pattern, replacement in _MENDS[kind]:
            text = pattern.sub(replacement, text)
    mended = _checked(sentence, text, lost="")
    if mended and not any(kind in mended.talk for kind in forbidden):
        return mended
    return _without(sentence, text, lambda clause: any(matches(kind, clause) for kind in forbidden))


def without_claims(sentence: Said, holds: Callable[[Finding], bool]) -> Said | None:
    """`sentence` without its subordinate clauses in which a claim doesn't hold; None where the rest can't stand."""

    def fails(clause: str) -> bool:
        return not all(map(holds, said(_finished(clause)).claims))

    mended = _without(sentence, sentence.text, fails)
    return mended if mended and mended.claims and all(map(holds, mended.claims)) else None


def not_stronger(mended: Iterable[Finding], original: Iterable[Finding]) -> bool:
    """Whether every claim of `mended` stood in `original`, no less certain, no more bounded and on the same side."""
    return all(any(_covers(before, claim) for before in original) for claim in mended)


def _covers(before: Finding, after: Finding) -> bool:
    return (
        before.name == after.name
        and before.status == after.status
        and CERTAINTY[before.certainty] >= CERTAINTY[after.certainty]
        and (before.bound is None or before.bound == after.bound)
        and (after.side is None or before.side == after.side)
        and (after.severity is None or before.severity == after.severity)
        and (before.time == after.time)
    )


def _without(sentence: Said, text: str, unwanted: Callable[[str], bool]) -> Said | None:
    """`sentence`, of which `text` is left, without the leading and subordinate clauses that are `unwanted`."""
    gone = []
    leading = _LEADING.match(text)
    if leading and unwanted(leading.group()):
        gone.append(leading.group())
        text = text[leading.end() :]
    starts = [0, *(match.start() for match in _CLAUSE.finditer(text)), len(text)]
    main, *others = (text[start:end] for start, end in pairwise(starts))
    if unwanted(main):
        return None
    kept = [main]
    for clause in others:
        (gone if unwanted(clause) else kept).append(clause)
    # "…, which may be a nipple shadow" hedges what stays behind; "…, possibly pneumonia" only itself.
    if not gone or any(matches("hedge", clause) and not said(_finished(clause)).claims for clause in gone):
        return None
    return _checked(sentence, "".join(kept), lost=" ".join(gone))


def _checked(sentence: Said, text: str, *, lost: str) -> Said | None:
    """`text` as a sentence, if it claims nothing more than `sentence`, of which the clauses `lost` were left out."""
    text = _finished(text)
    quotes = sentence.quoted and sentence.quoted in text
    mended = Said(text, sentence.quoted) if quotes else said(text)

    def hedges(words: str) -> int:
        return len(_CUES["hedge"].findall(words.lower()))

    # The engine takes a sentence with advice in it for advice and no more; then what is left is all that it claims.
    original = sentence.claims or (mended.claims if matches("advice", lost) else ())
    if (
        len(_WORD.findall(text)) < 3
        or not (mended.claims or mended.general)  # words without a statement: "The film shows so."
        or hedges(text) + hedges(lost) < hedges(sentence.text)
        or not not_stronger(mended.claims, original)
    ):
        return None
    return mended


def _finished(text: str) -> str:
    """With blanks, commas, articles, the first capital and the full stop put right."""
    text = re.sub(r"\s+", " ", text).strip(" .,;-\u2013\u2014")
    text = re.sub(r"\s+([,.;])", r"\1", text)
    text = re.sub(r"([,;])[,;]+", r"\1", text)
    text = re.sub(r"^(?:and|but|so)\b,? ", "", text)
    text = _ARTICLE.sub(_article, text)
    if text and text[-1] not in ".!?":
        text += "."
    return text[:1].upper() + text[1:]


def _article(match: re.Match[str]) -> str:
    article = "an" if _VOWEL_SOUND.match(match[2]) else "a"
    return (article.capitalize() if match[1][0].isupper() else article) + " "


@dataclass(slots=True, frozen=True)
class Numbering:
    """A step's number as its author wrote it: "Step 2: …", "2) …"."""

    before: str
    after: str

    def with_number(self, number: int) -> str:
        return f"{self.before}{number}{self.after}"


_NUMBERED = re.compile(r"^\s*((?:step\s*)?)\d{1,2}(\s*[.):]\s+)(?=\S)", re.IGNORECASE)


def numbering(text: str) -> tuple[Numbering | None, str]:
    """The number at the start of a step's `text`, if there is one, and the rest."""
    match = _NUMBERED.match(text)
    return (Numbering(match[1], match[2]), text[match.end() :]) if match else (None, text)
