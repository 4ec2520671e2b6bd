"""A report's findings: what it says is there, is not there, or may be there.

`read` is the engine's door. Evidence comes from findings, impression, addendum and text without heading; what stands
under indication, history, technique or comparison is never evidence. Labels follow chexpert-labeler's conventions
(Irvin et al. 2019, arXiv 1901.07031): mention level, not closed upwards, unmentioned = no key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import NamedTuple

from cxr_reason.radiology.findings import POINTING, Finding, Said, placed, referred, said
from cxr_reason.radiology.lexicon import LEXICON
from cxr_reason.radiology.mentions import mark_conflicts, merge
from cxr_reason.radiology.rejection import FILM_HEADING, WordCount, rejection_of
from cxr_reason.radiology.sections import SILENT, sections
from cxr_reason.radiology.sentences import lowered, phrases, sentences

LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip


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
    understood (share of its sentences that the engine could read, 0 to 1), unread (how many sentences may tell of
    something that wasn't read), rejection (None, "empty", "language",
    "not-chest", "not-understood", "no-finding"; a rejected report has no finding and no label).
    """

    def __init__(
        self,
        text: str,
        findings: list[Finding],
        quality: list[str],
        understood: float,
        rejection: str | None,
        unread: int = 0,
    ) -> None:
        self.text = text
        self.findings = findings
        self.quality = quality
        self.understood = understood
        self.rejection = rejection
        self.unread = unread

    @cached_property
    def sentences(self) -> list[Sentence]:
        found = []
        for start, end, section, told, elsewhere in _walk(self.text):
            if told is None:
                found += [Sentence(*span, section, False, True) for span in sentences(self.text, start, end)]
            else:
                found.append(Sentence(start, end, section, not elsewhere, _readable(told)))
        return found

    @cached_property
    def _facts(self) -> list[Finding]:
        return merge(self.findings)

    def facts(self) -> list[Finding]:
        """The findings, every mention of one name and side merged; where they differ the better section wins."""
        return self._facts

    @cached_property
    def current_facts(self) -> list[Finding]:
        """The facts about the film itself, what has gone since the last one included."""
        return [fact for fact in self._facts if fact.time in ("current", "resolved")]

    @cached_property
    def labels(self) -> dict[str, int]:
        """CheXpert-14 labels that the report mentions: 1 present, 0 absent, -1 uncertain."""
        found: dict[str, int] = {}
        worth = {"present": (2, 1), "uncertain": (1, -1), "absent": (0, 0)}
        best: dict[str, int] = {}
        for fact in self.current_facts:
            if fact.label is None:
                continue
            rank, value = worth[fact.status]
            if rank > best.get(fact.label, -1):
                best[fact.label], found[fact.label] = rank, value
        labels = {label: found[label] for label in LABELS if label in found}
        if self.current_facts and all(v == 0 or label == "Support Devices" for label, v in labels.items()):
            labels = {"No Finding": 1, **labels}
        return labels

    @cached_property
    def normal(self) -> bool:
        """True where the report names nothing abnormal of any kind, devices and old changes included, holds no
        sentence that may and that we can't read, and denies something that readers look for in every film: "no
        tuberculosis" and "the left lung is clear" alone say nothing of the rest.
        """
        facts = self.current_facts
        if self.unread or any(fact.status != "absent" for fact in facts):
            return False
        return any(_tells_of_film(fact) for fact in facts)

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


_OF_ANOTHER = re.compile(r"(?:comparison|COMPARISON|Comparison)[\w ]*:?\s*\Z")  # the heading before a silent section


def _tells_of_film(denied: Finding) -> bool:
    """Whether a denial is one that a report on a normal film makes."""
    entry = LEXICON.findings[denied.name]
    whole = entry.reported or (entry.region == "chest" and LEXICON.is_region(denied.name))
    return whole and denied.side not in ("left", "right")


# A word that may name a limit of the film where no evidence stands ("TECHNIQUE: portable, supine")
_LIMIT = re.compile(
    r"[pPbBsSrRlL](?:ortable|edside|upine|otat|emi|ecumb|imited|uboptimal|ORTABLE|EDSIDE|UPINE|EMI|IMITED)", re.ASCII
)


def _walk(text: str) -> Iterator[tuple[int, int, str, Said | None, bool]]:
    """(start, end, section, what it says, whether it speaks of another film) of every sentence that may be evidence.

    Silent sections come whole, as saying None.
    """
    for section in sections(text):
        if section.name == SILENT:
            yield section.start, section.end, SILENT, None, False
            continue
        elsewhere = False  # in the report of another film: "Right shoulder. Healing fracture."
        before: Said | None = None
        for start, end in sentences(text, section.start, section.end):
            told = said(text[start:end])
            if told.stated and before and told.letters[0] in POINTING:
                told = referred(told, text[start:end], before)
            before = told
            if ("j" in told.classes or "h" in told.classes[:4]) and (film := FILM_HEADING.match(text, start, end)):
                elsewhere = film["chest"] is None
            yield start, end, section.name, told, elsewhere


def _readable(told: Said) -> bool:
    unknown = told.classes.count("u") + told.classes.count("f")
    return unknown <= (0.5 if told.stated else 0.4) * len(told.classes)


def _compares(text: str) -> bool:
    """Whether a text that names no finding compares the film with another: "Stable chest." """
    _, items, _, _ = phrases(lowered(text[:1000]))
    return any(item.word.change == "stable" for item in items)


@lru_cache(maxsize=64)
def read(text: str) -> Reading:
    """Read one report. Linear in the length of the text; never raises for any text."""
    found: list[Finding] = []
    limits: list[str] = []
    classes: list[str] = []
    spoken: list[str] = []
    judged = understood = unread = 0
    for start, end, section, told, elsewhere in _walk(text):
        if told is None:
            if _LIMIT.search(text, start, end) and not _OF_ANOTHER.search(text, max(0, start - 24), start):
                _, items, _, _ = phrases(lowered(text[start:end]))
                limits += [item.word.limit for item in items if item.word.limit]
            continue
        limits += told.limits
        if elsewhere:
            continue
        judged += 1
        understood += _readable(told)
        unread += told.unread
        if told.stated:
            here = placed(told, start, section)
            if told.corrects:
                names = {finding.name for finding in here}
                found = [finding for finding in found if finding.name not in names]
            found += here
        classes.append(told.classes)
        spoken.append(told.letters)
    rejection = rejection_of(text, WordCount(classes), spoken, found)
    if (
        rejection == "not-understood"
        and judged
        and not found
        and not unread
        and understood == judged
        and _compares(text)
    ):
        rejection = "no-finding"
    if rejection:
        return Reading(text, [], list(dict.fromkeys(limits)), 0.0, rejection)
    mark_conflicts(found)
    quality = list(dict.fromkeys(limits))
    if any(f.name == "low lung volumes" and f.status == "present" for f in found):
        quality.append("low volumes")
    return Reading(text, found, quality, round(understood / judged, 3) if judged else 0.0, None, unread)
