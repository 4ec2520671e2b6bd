"""Which texts are no English chest X-ray report: empty, of another language, of another film, or in no order."""

from __future__ import annotations

import re

from cxr_reason.radiology.findings import Finding
from cxr_reason.radiology.lexicon import LEXICON

_LEAST_KNOWN = 0.55  # share of known words under which a text is not ours
_MOST_BROKEN = 0.24  # share of function words out of place above which a text is no running text
# Function words in places where running English never has them: "of is", "the the", "no ." (classes: lexicon.py)
_BROKEN = tuple(
    first + second
    for firsts, seconds in (("dn", "dpvcmn$"), ("p", "vcm$"), ("v", "vcm$"), ("c", "cvm$"), ("m", "v"), ("^", "vc"))
    for first in firsts
    for second in seconds
)


class WordCount:
    """Counts over a report's words that tell report English from other text."""

    def __init__(self, classes: list[str]) -> None:
        text = "".join(classes)
        count = text.count
        self.words = len(text) - count("x") - count("0") - count("m") - count(".")
        self.foreign = count("f")
        self.known = self.words - self.foreign - count("u")
        self.parts = count("b") + count("j")
        self.joints = sum(map(count, "dpvcn"))
        self.broken = sum(map(f"^{'$^'.join(classes)}$".count, _BROKEN))


FILM_HEADING = re.compile(
    r"\s*(?:(?:left|right|bilateral|both|and|the|of|two|three|one|views?|single|ap|pa|lateral|,)\s+)*"
    r"(?:(?P<chest>chest)|(?:" + "|".join(map(re.escape, LEXICON.data["elsewhere"]["films"])) + r")s?"
    r"(?:\s+and\s+(?:left\s+|right\s+)?(?:" + "|".join(map(re.escape, LEXICON.data["elsewhere"]["films"])) + r")s?)?)"
    r"(?:\s+(?:x-?rays?|radiographs?|series|views?|films?))?\s*(?:[:.]|$)", re.IGNORECASE,
)  # fmt: skip
_HINT = re.compile("ct|mr|ultras|sonog|pet|tomog|mammo|dexa|fluoro")
_OTHER_IMAGING = re.compile(  # among the first four words
    r"\W*(?:\w+[^\w.;]+){0,3}(?:ct|cta|mri|mra|mr|ultrasound|sonogram|pet|tomography|mammogra\w+|dexa|fluoroscop\w+)\b"
)
# What only the report of a tomography has: three of these, or one after a title that names it
_TITLE = re.compile(r"\W*(?:(?:exam|examination|study|procedure|type of exam)\W+)?(?:ct|cta|hrct|mri|mra|pet)\b")
_SLICES = re.compile(
    r"\bseries \d|\bimages? \d|\b(?:axial|coronal|sagittal)\b|\breformat|\bmultidetector|\bhelical|\bslices?\b"
    r"|\b(?:w/o|without|with|intravenous|iv) (?:intravenous |iv )?contrast|\bhounsfield|\bctdi|\bdlp\b"
)
_VIEWS = re.compile(r"\bviews?\b|x-?ray|radiograph")
_NO_EXAM = re.compile(
    r"comparison|indication|(?:clinical |medical )?(?:history|information|data)|reason|findings|impression"
)
_BODY = re.compile(r"\b(?:findings|impression|report|conclusion)s?:")
_FILM = re.compile(r"\b(?:chest|thorax|cxr|x-?ray|radiographs?|film|views?|portable|pa|ap)\b")


_FEWEST_PAIRS, _ENOUGH_PAIRS = 6, 60  # pairs of words that tell something of their order; that suffice
# The mean worth of a pair of words, less 35 times the share of misplaced function words and 12 times that of sentences
# which begin in lower case, under which there is no order; short texts tell less, so that more is allowed them.
_LEAST_ORDER, _LENIENCE = -2.0, 40.0


def _order(spoken: list[str]) -> float | None:
    """The mean worth of a pair of neighbours over the first sentences; None where there are too few to tell.

    A mask may stand for anything, and a colon begins anew.
    """
    worth = pairs = 0
    seen, unseen, orders = LEXICON.order, LEXICON.unseen, LEXICON.orders
    for letters in spoken:
        before = "^"
        for letter in letters:
            after = orders[letter]
            if after == ":":
                after = "^"
            elif before != "<x>" and after != "<x>":
                worth += seen[before].get(after, unseen[before]) if before in seen else -10
                pairs += 1
            before = after
        if pairs >= _ENOUGH_PAIRS:
            break
    return worth / pairs if pairs >= _FEWEST_PAIRS else None


_LETTER = re.compile(r"[^\W\d_]")
_END = re.compile(r"[.!?](?=\s)")
_LOWERED = re.compile(r"[.!?] [a-z]")


def _lowered(text: str) -> float:
    """The share of sentences that begin in lower case, in a text that has capitals at all."""
    begun = len(_LOWERED.findall(text))
    return begun / len(_END.findall(text)) if begun and not text.islower() else 0.0


def rejection_of(text: str, count: WordCount, spoken: list[str], found: list[Finding]) -> str | None:
    """Why a text is not ours: "empty", "language", "not-chest", "not-understood"; None where it is."""
    if not _LETTER.search(text):
        return "empty"
    if count.words and count.foreign / count.words > 0.12 and count.known / count.words < 0.75:
        return "language"
    if count.words and count.known / count.words < _LEAST_KNOWN and (count.words >= 6 or not found):
        return "not-understood"
    misplaced = count.broken / max(count.joints, 1)
    lowered = _lowered(text)
    # most reports can go unasked: shuffled words misplace some function words, or begin sentences in lower case
    order = _order(spoken) if misplaced or lowered or count.words <= 40 or text.islower() else None
    if order is not None and order - 35 * misplaced - 12 * lowered < _LEAST_ORDER - _LENIENCE / max(count.words, 1):
        return "not-understood"
    if count.joints >= 4 and misplaced > _MOST_BROKEN:
        return "not-understood"
    head = text.lstrip()[:120].split("\n", 1)[0][:80].lower()
    if count.parts or head.startswith(("ct ", "mr", "us ", "x-ray", "xr ")):
        lower = text.lower()
        if _NO_EXAM.match(head) and (body := _BODY.search(lower)):
            lower = lower[body.start() :]  # a hip that is to be replaced says nothing of the film
            head = lower[:80]
        elsewhere = _PARTS.search(head) and not _CHEST.search(head)
        if elsewhere and (_VIEWS.search(head) or len(_PARTS.findall(lower)) >= 2):
            return "not-chest"
        if not _CHEST.search(lower) and _PARTS.search(lower):
            return "not-chest"
    hinted = _HINT.search(head)
    if hinted and _OTHER_IMAGING.match(head) and not _FILM.search(head) and not _NO_EXAM.match(head):
        return "not-chest"
    if hinted or "series" in text:
        marks = len(set(_SLICES.findall(text.lower())))
        if marks > 2 or (marks and _TITLE.match(head)):
            return "not-chest"
    return None if found else "not-understood"


_PARTS = re.compile(r"\b(?:" + "|".join(map(re.escape, LEXICON.data["elsewhere"]["parts"])) + r")s?\b")
_CHEST = re.compile(r"\b(?:" + "|".join(map(re.escape, LEXICON.data["elsewhere"]["chest"])) + r")\b")
