"""What a question asks for, what an option states, and whether what is observed is enough for it.

All three are read by the engine that reads reports. `asked` makes a statement of a question, `stated` takes the
findings of an option or an open answer, `entails` says whether one claim is enough for another. Refining asks whether
the answer of a chain follows, the score which answer a prediction gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from cxr_reason.radiology import LEXICON, Finding, claims

CERTAINTY = {"differential": 0, "possible": 1, "probable": 2, "definite": 3}
"""From the weakest to the strongest."""
_CACHED = 2_048
_ITEM_END = re.compile(r"[,;]\s+(?:and\s+)?")
# A question as a statement.
_QUESTION = [
    (re.compile(rf"^(?:{question})\b ?", re.IGNORECASE), statement)
    for question, statement in (
        (
            r"(?:does|do|did) (?:this|the|these) [\w\s-]*?(?:show|demonstrate|reveal|have|contain|display)s?",
            "There is ",
        ),
        (r"(?:is|are) there(?: any)?(?: (?:evidence|signs?|indications?) of)?", "There is "),
        (r"(?:do|can|could) (?:you|we|one) (?:see|find|identify|make out|recogni[sz]e)", "There is "),
        (r"(?:can|could) (.+?) be (?:seen|found|identified|made out|recogni[sz]ed)", r"\1 is seen "),
        (r"(?:is|are) (.+?) (present|visible|seen|identified|evident|enlarged|normal|clear)", r"\1 is \2 "),
    )
]
# "Looking at this radiograph, is there …", "… on this chest X-ray"
_SETTING = re.compile(
    r"^(?=[^,?]*\b(?:film|radiograph|x-ray|image)\b)[^,?]*, (?=is|are|do|can|could)"
    r"|,? (?:on|in|from) (?:this|the|these) (?:\w+ )?(?:\w+ )?(?:film|radiograph|x-ray|image)s?\b",
    re.IGNORECASE,
)
# "This is a portable AP film. Does …": mine's ``--tell-view``.
_VIEW_TOLD = re.compile(r"^(?:This is|These are|The current study has) [^.?]*\bfilm\b[^.?]*\.\s+")
COURSES = {
    "improved": re.compile(r"\b(?:improv\w+|better|smaller|less|decreas\w+|resolv\w+|clear\w+)\b", re.IGNORECASE),
    "stable": re.compile(r"\b(?:stable|unchanged|the same|no change|similar)\b", re.IGNORECASE),
    "worse": re.compile(r"\b(?:wors\w+|larger|more|increas\w+|progress\w+|new)\b", re.IGNORECASE),
}
# "The answer is B, …", "option (C)", "so: D."; never the article of "the answer is a small effusion".
LETTERS = [
    re.compile(
        r"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?:\s+is)?\s*(?:[:=]\s*)?(?:(?:the\s+)?(?:[Oo]ption|[Aa]nswer|[Cc]hoice)\s*)?"
        r"[^\w\s]{0,3}([A-H])\b(?!\s+[a-z])"
    ),
    re.compile(r"\b(?:[Oo]ption|[Cc]hoice)\s+[^\w\s]{0,3}([A-H])\b"),
    re.compile(r"\(([A-H])\)"),
    re.compile(r"\b(?:[Ss]o|[Tt]herefore|[Hh]ence|[Tt]hus)[,:]?\s+([A-H])[.,:;)](?:\s|$)"),
]
YES_NO = re.compile(
    r"(?:\banswer(?:\s+\w+){0,4}?\s+(?:is|:)|^|[,:(])\s*[^\w\s]?(yes|no)(?=[^\w\s]?(?:[.,;:)]|$))", re.IGNORECASE
)
_NORMAL = re.compile(
    r"(?:the \w+ (?:is|are) )?"
    r"(?:normal|no (?:acute )?(?:finding|abnormality|abnormalities|disease)s?|unremarkable|none of these.*)\W*",
    re.IGNORECASE,
)


@lru_cache(maxsize=2048)
def says_normal(option: str) -> bool:
    """Whether `option` says that there is nothing."""
    return _NORMAL.fullmatch(option.strip()) is not None


@lru_cache(maxsize=2048)
def plain(text: str) -> str:
    """The words of `text` alone, in lower case."""
    return " ".join(re.findall(r"\w+", text.lower()))


@lru_cache(maxsize=_CACHED)
def stated(option: str) -> tuple[Finding, ...]:
    """The findings that an option or an open answer states.

    It is a list, not a sentence: each item is read by itself, so that no side is passed on to the next.
    """
    return tuple(claim for item in items(option) for claim in claims(item))


def items(option: str) -> list[str]:
    """The items of an option or an open answer that lists findings."""
    return _ITEM_END.split(option.strip())


@lru_cache(maxsize=_CACHED)
def wholly_read(option: str) -> bool:
    """Whether every item of `option` states something that could be read."""
    return all(map(claims, items(option)))


@lru_cache(maxsize=2048)
def asked(question: str) -> tuple[Finding, ...]:
    """The findings that a yes-no or temporal `question` asks for, as if they were stated."""
    text = _SETTING.sub("", _VIEW_TOLD.sub("", question).strip().rstrip("? "))
    for pattern, statement in _QUESTION:
        text, times = pattern.subn(statement, text, count=1)
        if times:
            break
    text = text.strip()
    return tuple(claims(text[:1].upper() + text[1:] + "."))


def names(findings: Iterable[Finding]) -> frozenset[str]:
    return frozenset(finding.name for finding in findings)


@lru_cache(maxsize=2048)
def is_a(name: str, ancestor: str) -> bool:
    """Whether the finding `name` is an `ancestor` or one of its kinds."""
    return name == ancestor or ancestor in LEXICON.ancestors(name)


def entails(observed: Finding, claim: Finding) -> bool:
    """Whether who has `observed` may say `claim`: the same or a kind of it, as certain, on that side, of that degree.

    A denial entails that of every kind of what it denies, within its bound.
    """
    if claim.status == "absent":
        return (
            observed.status == "absent"
            and is_a(claim.name, observed.name)
            and observed.bound in (None, claim.bound)
            and (observed.side in (None, "bilateral", claim.side))
            and observed.severity in (None, claim.severity)
        )
    if claim.status == "present" and observed.status != "present":
        return False
    return (
        observed.status != "absent"
        and is_a(observed.name, claim.name)
        and (claim.side is None or observed.side in (claim.side, "bilateral"))
        and (claim.severity is None or observed.severity == claim.severity)
    )


def all_entailed(observed: Sequence[Finding], wanted: Iterable[Finding]) -> bool:
    return all(any(entails(seen, claim) for seen in observed) for claim in wanted)


@lru_cache(maxsize=4096)
def related(one: str, other: str) -> bool:
    return one == other or LEXICON.related(one, other)
