"""Verdicts on single statements, as extractions and checklists write them: "Pleural effusion: not present".

`verify_claims` judges such statements, and plain sentences, by a report. A statement of the form *observation: status*
is about the whole observation: that a "small left effusion" is not present is true where the report has none, where it
has one on the right, and where it has a large one. So its verdict is the opposite of that on the observation, wherever
the report decides that; sentences are judged claim by claim (`radiology.verify`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, overload

from cxr_reason.radiology import Finding, Reading, Verdict, read, verify
from cxr_reason.radiology.findings import placed, said
from cxr_reason.radiology.sentences import phrases
from cxr_reason.radiology.verify import Basis, Decision, Silence, claims
from cxr_reason.rewards.options import says_normal
from cxr_reason.rewards.prose import WHOLE_FILM, about, special

_STATUS = re.compile(r"([^:\n]{2,200}):\s*+(\S[^\n]*+)")
_LEAD = re.compile(
    r"(?:(?:the |any )?(?:possible )?(?:presence|signs?|evidence|existence|visibility|likelihood|possibility|"
    r"indications?|appearance|identification|assessment|evaluation)(?: and \w+)? (?:of|for) )+(?:the |an? |any )?",
    re.IGNORECASE,
)
_LACKS = re.compile(
    r"(?:the )?(?:absence|lack) of (?:the |an? |any )?|no (?:evidence|signs?|indications?) of |no |without ",
    re.IGNORECASE,
)
_ABSENCE = re.compile(r"(?:the )?(?:absence|lack)", re.IGNORECASE)
# The status up to where it begins to explain itself; "present, but not the main finding" is present.
_CLAUSE = re.compile(r"[,;.(]|\b(?:but|though|although|indicating|suggesting|rather than|as|due to|because|with)\b")
_DENIED = re.compile(
    r"\b(?:no|not|none|nil|absen(?:t|ce)|without|negative|unlikely|improbable|unconfirmed|incorrect|false|"
    r"rul(?:ed|es|ing) (?:it )?out|excluded|eliminated|dismissed|denied|unsupported|(?:less|least) likely|"
    r"doesn.t|isn.t|aren.t|lacking|lack of|resolved)\b", re.IGNORECASE,
)  # fmt: skip
_DENIAL_UNDONE = re.compile(
    r"\b(?:cannot|can ?not|not (?:be )?(?:excluded|ruled out)|unclear|uncertain)\b", re.IGNORECASE
)
_HEDGED = re.compile(
    r"\b(?:possibl[ey]|may|might|could|potential(?:ly)?|suspected|suggest\w*|suspicious|likely|probabl[ey]|indicative|"
    r"unclear|uncertain|questionable|consider\w*|cannot|appears?|seems?)\b", re.IGNORECASE,
)  # fmt: skip
_NORMAL = re.compile(
    r"\b(?:normal|unremarkable|clear|intact|sharp|within normal limits|satisfactory|adequate|symmetric\w*|midline|"
    r"preserved|well[- ]defined)\b", re.IGNORECASE,
)  # fmt: skip


_CONTENT = re.compile(r"[a-z]{4,}")


class Statement(NamedTuple):
    """What a statement claims; `whole`: a denial of all of it together, not of each.

    Where no finding can be read in it, `status` is what it says of its `words`, those that don't only place or grade.
    """

    claims: tuple[Finding, ...]
    whole: bool = False
    status: str = ""
    words: tuple[str, ...] = ()


@overload
def verify_claims(
    claims: Sequence[str], report: str, *, silence: Silence = "normal", basis: Literal[False] = False
) -> list[Decision]: ...
@overload
def verify_claims(
    claims: Sequence[str], report: str, *, silence: Silence = "normal", basis: Literal[True]
) -> list[tuple[Decision, Basis]]: ...


def verify_claims(
    claims: Sequence[str], report: str, *, silence: Silence = "normal", basis: bool = False
) -> list[Decision] | list[tuple[Decision, Basis]]:
    """Whether `report` bears each of `claims` out: "supported", "contradicted" or "unverifiable".

    A claim is a sentence, or an observation with its status ("left effusion: not present"). One that makes several
    statements is worth as much as its worst; one that can't be read is unverifiable. Like the published factuality it
    takes what the report doesn't mention as normal, unless `silence` is "unknown". With `basis`, each verdict comes
    with what it rests on: "stated", "region" or "silent". Raises ValueError for an unknown `silence`.
    """
    reading = read(report)
    verdicts = [_judged(claim, reading, silence) for claim in claims]
    return [(v.verdict, v.basis) for v in verdicts] if basis else [v.verdict for v in verdicts]


def judged(claim: Finding, reading: Reading, silence: Silence = "normal") -> Verdict:
    """The verdict of a score on one claim: what lies beyond the limits of a region's denial is unmentioned."""
    return verify(claim, reading, silence=silence, limits="silent")


_UNREAD = Verdict("unverifiable", "silent", reason="claims nothing that could be read")
_RANK = {"supported": 0, "unverifiable": 1, "contradicted": 2}
_OPPOSITE: dict[Decision, Decision] = {"supported": "contradicted", "contradicted": "supported"}


def _judged(text: str, reading: Reading, silence: Silence) -> Verdict:
    statement = stated_as(text)
    if not statement.claims:
        return _by_words(statement, reading, silence)
    verdict = _denied if statement.whole else judged
    return max((verdict(c, reading, silence) for c in statement.claims), key=lambda v: _RANK[v.verdict])


def _by_words(statement: Statement, reading: Reading, silence: Silence) -> Verdict:
    """The verdict on an observation that the engine doesn't know: whether the report has any of its words."""
    if silence == "unknown" or not statement.words or reading.rejection or not reading.findings:
        return _UNREAD
    report = reading.text.lower()
    if statement.status != "absent" or any(word[:6] in report for word in statement.words):
        return _UNREAD  # what is there may be abnormal or not: "adequate exposure: confirmed"
    return Verdict("supported", "silent", reason="the report has none of its words, which is taken as normal")


def _distinctive(observation: str) -> tuple[str, ...]:
    """The words of an observation that say more than where it is and how much of it there is."""
    return tuple(word for word in _CONTENT.findall(observation.lower()) if not _only_describes(word))


@lru_cache(maxsize=4096)
def _only_describes(word: str) -> bool:
    items = phrases(word)[1]
    return bool(items) and all(item.modifier or item.cue or item.word.organ for item in items)


def _denied(claim: Finding, reading: Reading, silence: Silence) -> Verdict:
    """The verdict on a denial of all that `claim`, a finding with its details, says."""
    affirmed = judged(about([claim], "present")[0], reading, silence)
    if affirmed.verdict in _OPPOSITE and affirmed.basis != "silent":
        return Verdict(_OPPOSITE[affirmed.verdict], affirmed.basis, affirmed.spans, affirmed.reason)
    denied = judged(claim, reading, silence)
    if affirmed.verdict == "unverifiable" and denied.verdict == "contradicted":
        return affirmed  # it is there, and whether with these details isn't said
    return denied


@lru_cache(maxsize=8192)
def stated_as(text: str) -> Statement:
    """What a statement claims, as *observation: status* or as a sentence."""
    form = _STATUS.fullmatch(text.strip())
    if form is None:
        return Statement(special(tuple(claims(text))))
    observation, status = form[1].rstrip(), form[2]
    observation = _LEAD.sub("", observation, count=1) if _LEAD.match(observation) else observation
    lacks = _LACKS.match(observation)
    thing = observation[lacks.end() :] if lacks else observation
    found = tuple(f for f in placed(said(thing), 0) if f.status != "absent")
    if not found:
        return _read_together(text, observation, status, lacks)
    told = _status(status, lacks and lacks[0])
    return Statement(about(found, told), whole=told == "absent")


def _read_together(text: str, observation: str, status: str, lacks: re.Match[str] | None) -> Statement:
    """An observation that names nothing that could be there: "heart size: normal", "normal film: unlikely"."""
    told = _status(status, lacks and lacks[0])
    healthy = tuple(f for f in placed(said(observation), 0) if f.status == "absent" and f.name in WHOLE_FILM)
    if healthy and told == "absent" and not _NORMAL.search(status):
        return Statement(about(healthy, "present"))
    read_as = special(tuple(claims(f"{observation} is {status}"))) or special(tuple(claims(text)))
    return Statement(read_as) if read_as else Statement((), False, told, _distinctive(observation))


def _status(status: str, lacks: str | None) -> str:
    """What a status says of its observation: present, absent or uncertain. `lacks`: how the observation denies it."""
    if says_normal(status) or (_NORMAL.search(status) and not _DENIED.search(status) and lacks is None):
        return "absent"
    head = _CLAUSE.split(status, maxsplit=1)[0] or status
    undone = _DENIAL_UNDONE.search(head) is not None
    if lacks is not None and not _ABSENCE.match(lacks):
        return "absent"  # "No effusion: not present" denies it once
    if (_DENIED.search(head) is not None and not undone) != (lacks is not None):
        return "absent"
    return "uncertain" if lacks is None and (undone or _HEDGED.search(head)) else "present"
