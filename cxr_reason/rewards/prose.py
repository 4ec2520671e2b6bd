"""A model's free text as steps, and what each step claims of the film.

A text falls into steps at headings, bullets, numbers and paragraphs, and running prose at its turns ("First", "Next",
"Therefore") and where a new thing is looked for after something was found. What plans, explains in general or restates
an option claims nothing: "Effusions blunt the angle", "Option B: pneumothorax". A sentence that only says "no such
signs are seen" speaks of what its heading, or the sentence before, looked for.

How general knowledge is told from observation is data: ``general.toml``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from cxr_reason.radiology import Finding
from cxr_reason.radiology.findings import placed, said
from cxr_reason.radiology.sentences import lowered, phrases, sentences
from cxr_reason.rewards.options import items, plain, stated
from cxr_reason.rewards.wording import WORDING, any_of

_CUES = any_of(cue.replace("{look}", WORDING["look"]) for cue in WORDING["cues"])
_FRAMES, _ASSERTS, _EXPLAINS = any_of(WORDING["frames"]), any_of(WORDING["asserts"]), any_of(WORDING["explains"])
_ASPECTS = any_of(WORDING["aspects"])
_SAYS, _BESIDE = any_of(WORDING["says"]), any_of(WORDING["beside"])
_DENIES, _AFFIRMS, _HEDGES = any_of(WORDING["denies"]), any_of(WORDING["affirms"]), any_of(WORDING["hedges"])
_TURNS = re.compile(rf"(?:{'|'.join(WORDING['turns'])})\b")

_BEFORE = {
    name: any_of(
        pattern.replace("{film}", WORDING["before"]["film"]) for pattern in ([told] if isinstance(told, str) else told)
    )
    for name, told in WORDING["before"].items()
}
_TO_ANOTHER_FILM = re.compile(_BEFORE["turns"].pattern.removeprefix(r"\b"))

_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_MARKUP = re.compile(r"\*{1,3}|_{2,3}|`+|\\boxed\b|[\\{}$]|^\s*#+\s*")
_MARK = re.compile(
    r"(?:#+\s*|(?P<number>\(?\d{1,2}[.):]|\(?[A-Ha-h][.)]|(?:[Ss]tep|STEP)\s+\d{1,2}\s*[.:)\u2013-])(?:\s+|(?=\*\*))"
    r"|(?P<bullet>[-*\u2022\u2013+])\s+|(?P<bold>\*\*))*"
)
_HEADING = re.compile(r"([^:.!?\n]{1,160}):(?:\s+|$)")
_OPTION = re.compile(
    r"\(?\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+\(?[A-Ha-h]\b\)?\s*[:.)\u2013-]*|^\(?[A-H][).:]\s+|\([A-H]\)"
)
_LETTERS = frozenset("ABCDEFGH")
_LABEL = re.compile(r"^[^:.]{1,60}:\s+")
WHOLE_FILM = frozenset({"chest abnormality", "cardiopulmonary abnormality"})
"""What a normal film lacks."""
_PARAGRAPH = re.compile(r"(?<=\n)(?=[ \t\r]*\n)")
_ENDS = re.compile(r"[.!?:;][\"')\]*_]*$")
_WRAPPED = 60
"""Characters from which a line that ends in the middle of a sentence was broken for its length."""
_LONGEST = 20_000
"""Characters of a prediction that are read; what a model repeats beyond that adds nothing."""


class Said(NamedTuple):
    """What one sentence says: its claims of the film, and of the film before, and all that it speaks of."""

    claims: tuple[Finding, ...]
    before: tuple[Finding, ...]
    named: tuple[Finding, ...]
    general: bool
    """Whether it claims nothing of this film, whatever stands around it."""
    words: str
    """Those of its words, in lower case, that are of this film."""


class Topic(NamedTuple):
    """A finding that a text speaks of, and where; whether it is there is another matter."""

    name: str
    side: str | None
    site: str | None


class Step(NamedTuple):
    """One step of reasoning. `claims` are about the film, `before` about the film before; `named` is all that it speaks
    of, plans included.
    """

    pieces: tuple[str, ...]
    """Its heading and its sentences."""
    claims: tuple[Finding, ...]
    before: tuple[Finding, ...]
    named: frozenset[Topic]

    @property
    def text(self) -> str:
        return " ".join(self.pieces)


@lru_cache(maxsize=4096)
def is_general(lower: str) -> bool:
    """Whether a sentence (in lower case) plans or explains in general, and asserts nothing of this film."""
    return _CUES.search(lower) is not None and not _ASSERTS.search(_FRAMES.sub("", lower))


def concluding(prediction: str, reasoning: str) -> str:
    """The text in which an untagged answer is looked for: the reasoning, and what follows its tag."""
    at = prediction.lower().rfind("</think>")
    return f"{reasoning}\n{_TAG.sub(' ', prediction[at:])}" if at >= 0 else reasoning


def parts(prediction: str) -> tuple[str, str | None]:
    """The reasoning and the tagged answer of a prediction; None without an answer's tag. Either may be cut off."""
    lower = prediction.lower()
    answer, reasoning = None, prediction
    # The tags first: the last answer counts, and what stands in no tag is reasoning only where nothing is tagged.
    if (at := lower.rfind("<answer>")) >= 0:
        end = lower.find("</answer>", at)
        answer = prediction[at + 8 : end if end >= 0 else None].strip()
        reasoning = prediction[:at]
    if (at := lower.find("<think>")) >= 0:
        end = lower.find("</think>", at)
        told = prediction[at + 7 : end if end >= 0 else None]
        reasoning = told if end >= 0 else _TAG.split(told)[0]
    return _TAG.sub(" ", reasoning)[:_LONGEST].strip(), answer


def steps(text: str, options: Sequence[str] = ()) -> list[Step]:
    """The steps of free reasoning that say something; `options` are those of the question. Linear; never raises."""
    known = frozenset(plain(text) for option in options for text in (option, *items(option)))
    return [step for block in _blocks(text[:_LONGEST]) for step in _steps_of(block, known)]


_SOLID = re.compile(r"[^\s*_`#\\{}$]+")


def spans(text: str, told: Sequence[Step]) -> list[tuple[int, int] | None]:
    """Where in `text` the steps stand that `steps` made of it, as [start, end) in characters; None where not found.

    Steps come in order and don't overlap. Markup and line breaks, which steps lack, don't matter.
    """
    runs = [match.span() for match in _SOLID.finditer(text)]
    solid = "".join(text[start:end] for start, end in runs)
    begun = [0, *accumulate(end - start for start, end in runs)]  # where in `solid` each run begins

    def place(at: int) -> int:
        run = bisect_right(begun, at) - 1
        return runs[run][0] + at - begun[run]

    found: list[tuple[int, int] | None] = []
    cursor = 0
    for step in told:
        first = last = -1
        for piece in step.pieces:
            wanted = "".join(_SOLID.findall(piece))
            at = solid.find(wanted, cursor) if wanted else -1
            if at < 0:
                continue
            first = at if first < 0 else first
            last = cursor = at + len(wanted)
        found.append((place(first), place(last - 1) + 1) if first >= 0 else None)
    return found


def claims_of(text: str) -> tuple[Finding, ...]:
    """What a step of a chain claims of the film: its sentences that don't plan or explain."""
    return tuple(claim for sentence in _sentences(text) for claim in _said(sentence).claims)


def claims_before(text: str) -> tuple[Finding, ...]:
    """What a step of a chain claims of the film before."""
    return tuple(claim for sentence in _sentences(text) for claim in _said(sentence).before)


def named_in(text: str) -> frozenset[Topic]:
    """All that a text speaks of, plans and explanations included."""
    return frozenset(topic for sentence in _sentences(text) for topic in _topics(_said(sentence).named))


def _topics(findings: Iterable[Finding]) -> list[Topic]:
    return [Topic(finding.name, finding.side, finding.site) for finding in findings]


# ------------------------------------------------------------------------------------------------------ into sentences


class _Block(NamedTuple):
    """Lines that belong together: what stands under one number or heading, or a paragraph."""

    heading: str
    sentences: list[str]


def _blocks(text: str) -> Iterator[_Block]:
    heading, told = "", list[str]()
    numbered = gap = False
    for raw, alone in lines(text):
        line = raw.strip()
        if not line:
            gap = True
            continue
        mark = _MARK.match(line)
        assert mark
        opens = bool(mark["number"]) or line.startswith("#") or (mark["bold"] and not mark["bullet"])
        opens = opens or (not (numbered and not gap) and not mark["bullet"] and _heads(line))
        nested = numbered and not opens and (mark["bullet"] or raw[0].isspace() or not gap)
        if not nested and (opens or mark["bullet"] or gap or alone) and (told or heading):
            yield _Block(heading, told)
            heading, told, numbered = "", [], False
        gap = False
        if opens:
            numbered = True
        line = _MARKUP.sub("", line[mark.end() if mark["bullet"] or line.startswith("#") else 0 :]).strip()
        if mark["number"] and (shorter := _MARK.sub("", line, count=1)) and not mark["number"].strip("(.):").isalpha():
            line = shorter
        if opens and not told and not heading:
            heading, line = _headed(line)
        if line:
            told += _sentences(line)
    if told or heading:
        yield _Block(heading, told)


def _heads(line: str) -> bool:
    """Whether an unmarked line is the heading of those below: "Pleural effusion:"."""
    return len(line) < 80 and line.endswith(":") and bool(_findings(line[:-1]))


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """The lines of a text, those that were wrapped joined again, and whether each stands for itself.

    A line that breaks off goes on where the next begins in lower case, or is so long that it was wrapped. In a
    paragraph that wasn't wrapped, every line is a statement of its own.
    """
    for paragraph in _PARAGRAPH.split(text):
        told = paragraph.splitlines()
        joined: list[list[str]] = []
        for before, line in zip(["", *told], told, strict=False):
            if joined and _goes_on(before.strip(), line.strip()):
                joined[-1].append(line.strip())
            else:
                joined.append([line])
        yield from ((" ".join(pieces), len(joined) == len(told)) for pieces in joined)


def _goes_on(before: str, line: str) -> bool:
    """Whether `line` is the rest of the line `before`, which was wrapped."""
    if not before or not line or _ENDS.search(before[-8:]) or (mark := _MARK.match(line)) is None or mark.end():
        return False
    return line[0].islower() or len(before) >= _WRAPPED


def _headed(line: str) -> tuple[str, str]:
    """A line's heading ("Option B: pneumothorax", "Lungs:"), and what follows it."""
    found = _HEADING.match(line)
    if not found:
        return ("", line) if line.endswith((".", "!", "?")) else (line, "")
    heading, rest = found[1], line[found.end() :]
    if not _OPTION.sub("", heading).strip(" -:") and rest:  # "Option B: pneumothorax"
        inner, more = _headed(rest) if _HEADING.match(rest) else (rest, "")
        return inner, more
    return heading, rest


@lru_cache(maxsize=1024)
def _sentences(line: str) -> tuple[str, ...]:
    return tuple(line[start:end] for start, end in sentences(line, 0, len(line)))


# ---------------------------------------------------------------------------------------------------- into statements


@lru_cache(maxsize=8192)
def _said(sentence: str) -> Said:
    """Read one sentence."""
    if (of_films := _films(sentence)) is not None:
        told = [(_read(part), prior) for part, prior in of_films]
        claims = tuple(claim for part, prior in told if not prior for claim in part.claims)
        before = tuple(
            replace(claim, time="current", change=None)
            for part, prior in told
            if prior and not part.general
            for claim in special(tuple(found for found in part.named if found.time in _TIMES))
        )
        named = tuple(finding for part, _ in told for finding in part.named)
        general = all(prior or part.general for part, prior in told)
        return Said(claims, before, named, general, " ".join(part.words for part, prior in told if not prior))
    return _read(sentence)


_TIMES = frozenset({"current", "resolved", "history"})


def _read(sentence: str) -> Said:
    """Read a sentence, or a part of one, that speaks of one film."""
    lower = sentence.lower()
    named = tuple(placed(said(sentence), 0))
    told = _LABEL.sub("", lower, count=1) if ":" in lower else lower  # "Diaphragm: check for elevation"
    general = is_general(told) or _EXPLAINS.search(told) is not None or _lists(told)
    claims = () if general else tuple(finding for finding in named if finding.time in ("current", "resolved"))
    return Said(special(claims), (), named, general, lower)


def _films(sentence: str) -> list[tuple[str, bool]] | None:
    """The parts of a sentence that speak of one film each, and whether that is the film before; None where no part is
    about the latter.
    """
    lower = sentence.lower()
    if _BEFORE["words"].search(lower) is None or _BEFORE["both"].search(lower) or is_general(lower):
        return None
    turns = list(_TO_ANOTHER_FILM.finditer(lower))
    starts, ends = [0, *(turn.end() for turn in turns)], [*(turn.start() for turn in turns), len(sentence)]
    parts = [sentence[start:end] for start, end in zip(starts, ends, strict=True)]
    told = [(part, _of_film_before(part.lower())) for part in parts]
    return told if any(prior for _, prior in told) else None


def _of_film_before(lower: str) -> bool:
    if _BEFORE["begins"].search(lower):
        return True
    return _BEFORE["ends"].search(lower) is not None and _BEFORE["compares"].search(lower) is None


def _lists(lower: str) -> bool:
    """Whether a text only lists what to look at: "its size and its density", "lungs, heart, bones and devices"."""
    if _ASPECTS.search(lower):
        return True
    listed = [item for item in _AND.split(lower.strip(" .")) if item]
    return len(listed) > 2 and all(map(_is_place, listed))


_AND = re.compile(r",? and |, ?")
_BY_NAME = frozenset({"support device"})
"""What a list of places may name as one of them: "soft tissues and devices"."""


@lru_cache(maxsize=1024)
def _is_place(item: str) -> bool:
    """Whether an item of a list names an organ, or devices, and says nothing of it."""
    read_as = placed(said(item), 0)
    if len(item.split()) > 3 or any(finding.name not in _BY_NAME for finding in read_as) or _DENIES.search(item):
        return False
    return bool(read_as) or (any(one.word.organ for one in phrases(item)[1]) and _SAYS.search(item) is None)


def special(claims: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The claims of a sentence without "no abnormality" beside others: "no fracture or abnormality" is of the bones."""
    if len({finding.name for finding in claims}) < 2:
        return claims
    return tuple(finding for finding in claims if not (finding.name in WHOLE_FILM and finding.status == "absent"))


@lru_cache(maxsize=4096)
def _answers_subject(lower: str) -> str | None:
    """Whether a sentence that names nothing says of its subject that it is there: a status, or None."""
    if _BESIDE.search(lower):
        return None
    if _DENIES.search(lower):
        return "absent"
    if _AFFIRMS.search(lower):
        return "uncertain" if _HEDGES.search(lower) else "present"
    return None


def about(subject: Sequence[Finding], status: str) -> tuple[Finding, ...]:
    """The findings of a subject, with a status."""
    certainty = "possible" if status == "uncertain" else "definite"
    return tuple(
        replace(finding, status=status, certainty=certainty, time="current", bound=None, alternatives=[])
        for finding in subject
    )


def _steps_of(block: _Block, options: frozenset[str]) -> Iterator[Step]:
    heading = _without_letters(block.heading).strip(" -\u2013\u2014.:\"'")
    subject: tuple[Finding, ...] = _findings(heading) if heading else ()
    named = set(_topics(subject))
    if heading and not subject and block.sentences and len(block.sentences[0].split()) < 9:
        block = _Block("", [f"{heading}: {block.sentences[0]}", *block.sentences[1:]])
    texts: list[str] = [block.heading.strip()] if block.heading else []
    claims: list[Finding] = []
    earlier: list[Finding] = []
    own = False  # whether anything but headings and options was said
    before = heading
    for sentence in block.sentences:
        bare = _without_letters(sentence).strip(" -\u2013\u2014:\"'\u201c\u201d")
        if options and plain(bare) in options:
            restated = stated(bare)
            subject = restated or subject
            named.update(_topics(restated))
            texts.append(sentence)
            continue
        own = True
        told = _said(_for_its_noun(bare, before)) if bare else Said((), (), (), True, "")
        before = bare
        turn = (told.general and not told.before and bool(claims)) or _TURNS.match(sentence.lower()) is not None
        if not heading and texts and turn and (claims or named):
            yield Step(tuple(texts), tuple(claims), tuple(earlier), frozenset(named))
            texts, claims, earlier, named = [], [], [], set()
        texts.append(sentence)
        named.update(_topics(told.named))
        found = told.claims
        if not told.named and not told.general and subject and (status := _answers_subject(told.words)):
            found = about(subject, status)
            named.update(_topics(found))
        claims += found
        earlier += told.before
        if not heading and (told.general or turn):
            subject = about(told.named[:1], "present")  # nothing where a turn names nothing: "Next, the heart"
    if own and (claims or named):
        yield Step(tuple(texts), tuple(claims), tuple(earlier), frozenset(named))


_PRONOUN = re.compile(r"(?:it|they) (?=(?:is|are|appears?|looks?|seems?|measures?)\b)", re.IGNORECASE)


def _for_its_noun(sentence: str, before: str) -> str:
    """A sentence with the organ that "it" stands for, where the sentence before names one: "Look at the heart. It is
    enlarged."
    """
    if (pronoun := _PRONOUN.match(sentence)) is None:
        return sentence
    organs = [item.text for item in phrases(lowered(before))[1] if item.word.organ and not item.head]
    return f"The {organs[-1]} {sentence[pronoun.end() :]}" if len(set(organs)) == 1 else sentence


def _without_letters(text: str) -> str:
    """A text without "Option B:", "(C)" and the like."""
    if text[:1] not in _LETTERS and not any(word in text for word in ("(", "ption", "hoice", "nswer")):
        return text
    return _OPTION.sub(" ", text)


@lru_cache(maxsize=4096)
def _findings(heading: str) -> tuple[Finding, ...]:
    """The findings that a heading names, as if they were there; none for organs ("Heart and mediastinum")."""
    text = re.sub(
        r"^(?:\w+ing|signs?|presence|evidence|evaluation|assessment)\s+(?:for|of)\s+", "", heading, flags=re.I
    )
    found = tuple(f for item in items(text) for f in placed(said(item), 0))
    return about([f for f in found if f.status != "absent"], "present")
