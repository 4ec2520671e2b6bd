"""Which answer a prediction gives, and whether it is right.

Tags count first: what stands in the last ``<answer>`` is the answer. Without them it is looked for from the end: the
last sentence that decides ("Therefore, …", "option D … seems most suitable") and names one option, by its letter or
its words. A text that decides for two options, refuses, or breaks off before it decides has no answer that can be read;
such an answer is wrong, and `read` is false.

Open questions are marked by F1 over findings (`open_ended`): each finding of the answer counts in full where the
prediction has it, or a kind of it, on the same side, and half where it has only what it is a kind of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from cxr_reason.radiology import Finding, claims
from cxr_reason.radiology.mentions import sides_meet
from cxr_reason.radiology.sentences import sentences
from cxr_reason.records import index_of, letter
from cxr_reason.rewards.options import COURSES, all_entailed, asked, entails, is_a, items, plain, says_normal, stated
from cxr_reason.rewards.prose import WHOLE_FILM, lines
from cxr_reason.rewards.wording import WORDING, any_of


class Answer(NamedTuple):
    """`chosen` is an option's letter or, where there are no options, a text; None where it can't be read."""

    chosen: str | None
    read: bool


_NONE = Answer(None, False)
_TAIL = 1_500  # characters from the end in which an untagged answer is looked for
_WORDS = WORDING["answers"]
_MARKUP = re.compile(r"\\(?:boxed|text(?:bf)?|math(?:rm|bf))\b|[*_`#\\${}]|\bboxed\b")
_SINGLE = re.compile(
    r"\W*(?:the )?(?:(?:correct |final )?(?:answer|option|choice)(?: is)?\W+)?([A-Ha-h])\W*", re.IGNORECASE
)
_LETTERED = re.compile(r"\W*+(?:(?:option|choice|answer)\W*+)?([A-H])(?:[).:\u2013-]|\s-)\s*+(?=\S)", re.IGNORECASE)
_SEVERAL = re.compile(r"\W*+[A-H](?:(?:[^\w,&/;]*+[,&/;]\W*+|\W*+(?:and|or)\W*+)[A-H])++\W*+", re.IGNORECASE)
_LIST = re.compile(
    r"\b(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)s\b[^.;A-H]{0,20}|(?:[Ee]ither|[Bb]etween|[Bb]oth)\s+(?:option\s+)?)"
    r"[A-H]\b(?:\W{1,3}(?:and |or |& ?)?(?:option\s+)?[A-H]\b){1,7}"
)
_NO_ARTICLE = rf"(?!(?<=A)\s+(?!(?:{'|'.join(_WORDS['goes_on'])})\b)[a-z])"
_MENTIONED = [
    re.compile(
        r"\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|ANSWER)s?(?:\s+(?:is|would be|to be))?\s*(?:[:=\u2013-]\s*)?"
        rf"(?:(?:the )?(?:option|choice)\s+)?\W{{0,3}}([A-H])\b(?!\s+[a-z]+\s+(?:is|are)\b|'){_NO_ARTICLE}"
    ),
    re.compile(r"\b(?:[Oo]ption|[Cc]hoice)\s+\W{0,2}([a-h])\b(?!')(?=\W|$)(?!\s+[a-z]+ (?:is|are)\b)"),
    re.compile(r"(?:^|[\s(:])\(?([A-H])[).:](?=\s|$)"),
    re.compile(r"\(([A-H])\)"),
    re.compile(
        r"(?:^|[,;:]\s|\b(?:[Ss]o|[Tt]hus|[Hh]ence|[Tt]herefore),?\s)([A-H])\s+(?:is|seems|appears|looks|it is)\b"
    ),
    re.compile(r"\b(?:is|be|:|so|[Tt]herefore|[Tt]hus|[Hh]ence|choose|select|chose|pick)[,:]?\s+([B-H])\b"),
    re.compile(r"\b(?:is|be|:|choose|select|pick)\s+(A)(?=\W*$)"),
]  # fmt: skip
_CONCLUDES, _DECIDES = any_of(_WORDS["concludes"]), any_of([*_WORDS["concludes"], *_WORDS["weighs"]])
_REFUSES = any_of(_WORDS["refuses"])
_REJECTS_NEXT = re.compile(rf"\b(?:{'|'.join(_WORDS['rejects_next'])})\s+(?:\w+\s+){{0,3}}?\W{{0,3}}$")
_REJECTED = re.compile(
    r"\W{0,3}\s*(?:(?!\b(?:and|but|while|whereas|because|option)\b)[^.;,]){0,60}?"
    rf"\b(?:{'|'.join(_WORDS['rejected'])})"
)
_YES_NO = re.compile(
    r"(?:\banswer(?:\s+\w+){0,4}?\s*(?:is|:)|^|[,:.(]|\b(?:therefore|thus|hence|so))\s*\W{0,3}(yes|no)(?=\W{0,3}(?:[.,;:)]|$))",
    re.IGNORECASE,
)


def read_answer(
    reasoning: str, tagged: str | None, *, question: str, options: Sequence[str], task: str | None = None
) -> Answer:
    """The answer of a prediction: of its tag (`tagged`) if it has one, else of its free text. Never raises."""
    if not options:
        return _open_answer(reasoning, tagged)
    chosen = (
        _of_tag(tagged, options, question, task) if tagged is not None else _of_text(reasoning, options, question, task)
    )
    return _NONE if chosen is None else Answer(letter(chosen), True)


# -------------------------------------------------------------------------------------------------------- with options


def _of_tag(text: str, options: Sequence[str], question: str, task: str | None) -> int | None:
    text = _MARKUP.sub("", text).strip()
    if not text or _SEVERAL.fullmatch(text):
        return None
    if single := _SINGLE.fullmatch(text):
        return index_of(single[1], options)
    lettered = _LETTERED.match(text)
    named = _named(text, options, question, task)
    if lettered and (index := index_of(lettered[1], options)) is not None and (named in (None, index)):
        return index
    return named


def _named(text: str, options: Sequence[str], question: str, task: str | None) -> int | None:
    """The one option that `text` states by its letter, its words or its meaning; None where none is, or several."""
    found = _mentioned(text, options)
    if not found:
        found = _meant(text, options, question, task)
    return found.pop() if len(found) == 1 else None


def _mentioned(text: str, options: Sequence[str]) -> set[int]:
    """The options that `text` names by letter or in its own words, those that it rejects left out."""
    found: set[int] = set()
    for match in _LIST.finditer(text):  # "the correct answers are A and C"
        letters = [index_of(one, options) for one in re.findall(r"\b[A-H]\b", match[0])]
        if not _is_rejected(text, match.start(), match.end()):
            found |= {index for index in letters if index is not None}
    for pattern in _MENTIONED if not found else ():
        for match in pattern.finditer(text):
            index = index_of(match[1], options)
            if index is not None and not _is_rejected(text, *match.span(1)):
                found.add(index)
        if found:
            break
    known = [plain(option) for option in options]
    if set(known) == {"yes", "no"}:
        words = {word.lower() for word in _YES_NO.findall(text)}
        return found or {known.index(word) for word in words}
    by_words = {index for index, option in enumerate(known) if option and _says(text, option)}
    by_words = {i for i in by_words if not any(known[i] != known[j] and known[i] in known[j] for j in by_words)}
    if len(by_words) > 1:  # "normal heart size, so D) scarring"
        by_words = {i for i in by_words if not says_normal(options[i])}
    return by_words if len(by_words) == 1 and (len(found) != 1) else found or by_words


def _says(text: str, option: str) -> bool:
    """Whether `text` has the words of `option`, without rejecting it."""
    words = plain(text)
    at = f" {words} ".find(f" {option} ")
    return at >= 0 and not _is_rejected(words, at, at + len(option))


def _is_rejected(text: str, start: int, end: int) -> bool:
    """Whether what stands at [start, end) of `text` is named only to be rejected."""
    before, after = text[max(0, start - 60) : start].lower(), text[end : end + 100].lower()
    return _REJECTS_NEXT.search(before) is not None or _REJECTED.match(after) is not None


# "It has not improved", "neither better nor worse"
_NOT_SO = re.compile(r"\b(?:not|nor|neither|rather than)\s+(?:\w+ly\s+)?\w+", re.IGNORECASE)
# What an option and its restatement may differ in, beside the order of its words.
_ARTICLES = re.compile(r"\b(?:the|a|an|of|in|at|on|with|seen|and)\b\s*")


def _meant(text: str, options: Sequence[str], question: str, task: str | None) -> set[int]:
    """The options that `text` states in other words."""
    if {plain(option) for option in options} == {"yes", "no"}:
        return _yes_no(text, [plain(option) for option in options], question)
    if task == "temporal":
        text = _NOT_SO.sub("", text)
        courses = [course for course, words in COURSES.items() if words.search(text)]
        return {i for i, o in enumerate(options) if len(courses) == 1 and COURSES[courses[0]].search(o)}
    bag = set(_ARTICLES.sub("", plain(text)).split())
    bags = [set(_ARTICLES.sub("", plain(option)).split()) for option in options]
    found = {i for i, words in enumerate(bags) if words and words <= bag}
    if len(found) == 1:
        return found
    told = [claim for claim in _claims(text) if claim.status != "absent"]
    if not told and any(claim.name == "chest abnormality" for claim in _claims(text)):
        return {i for i, option in enumerate(options) if says_normal(option)}
    loose = [replace(claim, status="present") for claim in told]
    return {i for i, option in enumerate(options) if (wanted := _positive(option)) and all_entailed(loose, wanted)}


def _positive(option: str) -> list[Finding]:
    return [claim for claim in stated(option) if claim.status != "absent"]


def _yes_no(text: str, options: list[str], question: str) -> set[int]:
    told = _claims(text)
    for claim in asked(question):
        claim = replace(claim, bound=None)
        opposite = replace(claim, status="absent" if claim.status != "absent" else "present", severity=None)
        if any(
            entails(replace(seen, status="present" if seen.status != "absent" else "absent"), claim) for seen in told
        ):
            return {options.index("yes")}
        if any(entails(replace(seen, bound=None), opposite) for seen in told):
            return {options.index("no")}
    return set()


@lru_cache(maxsize=1024)
def _claims(text: str) -> tuple[Finding, ...]:
    return tuple(claims(text))


def _of_text(text: str, options: Sequence[str], question: str, task: str | None) -> int | None:
    """The option that free text decides for: the last decision counts, and must be one."""
    said = _statements(text)
    if said and (lone := _SINGLE.fullmatch(said[-1])) and (index := index_of(lone[1], options)) is not None:
        return index
    if len(said) > 1 and _announces(said[-2]) and len(found := _mentioned(said[-1], options)) == 1:
        return found.pop()  # "The finding that fits best is:" and below it the option
    closed = {plain(option) for option in options} == {"yes", "no"}
    for concluding in (True, False):
        for number in range(len(said) - 1, -1, -1):
            sentence = said[number]
            lower = sentence.lower()
            if not (_CONCLUDES if concluding else _DECIDES).search(lower) and not (
                closed and not concluding and _begins_with_answer(sentence, number)
            ):
                continue
            if sentence.endswith(":"):  # "The correct answer is:" and below it the option
                sentence += " " + " ".join(said[number + 1 : number + 2])
            found = _mentioned(sentence, options)
            if not found and concluding:
                found = _meant(sentence, options, question, task)
            if len(found) == 1:
                return found.pop()
            if len(found) > 1 and concluding:
                return None  # it decides for two
            if concluding and _REFUSES.search(lower):
                return None
    if task == "temporal" or closed:
        # These are answered by what is told, without a word of deciding.
        for sentence in reversed(said):
            if len(found := _mentioned(sentence, options) or _meant(sentence, options, question, task)) == 1:
                return found.pop()
    return None


def _announces(sentence: str) -> bool:
    """Whether the option is expected in the line below: "The correct answer is:", "Final answer"."""
    return sentence.endswith(":") or (len(sentence) < 25 and sentence[-1].isalpha() and "answer" in sentence.lower())


def _begins_with_answer(sentence: str, number: int) -> bool:
    """Whether a sentence is a yes or no, or is the first one and begins with it."""
    answer = _YES_NO.match(sentence)
    return answer is not None and (number == 0 or len(sentence) <= answer.end() + 1)


def _statements(text: str) -> list[str]:
    """The sentences and lines at the end of `text`, their markup left out."""
    text = _MARKUP.sub("", text[-2 * _TAIL :])
    start = max(0, len(text) - _TAIL)
    start = text.find("\n", start) + 1 if start and "\n" in text[start:] else start
    found = []
    for line, _ in lines(text[start:]):
        line = line.strip(" \t-\u2022")
        for start, end in _spans(line):
            found += _AGAIN.split(line[start:end].strip())
    return [sentence for sentence in found if sentence]


# The engine takes the letter of "options A or D. Therefore" for an initial.
_AGAIN = re.compile(r"(?<=[A-H]\.)\s+(?=[A-Z][a-z]+,?\s)")


def _spans(line: str) -> Iterable[tuple[int, int]]:
    """The sentences of a line, with the letters in front that the engine takes for bullets."""
    position = 0
    for _, end in sentences(line, 0, len(line)):
        if re.fullmatch(r"\W*[A-Ha-h][.)]\W*", line[position:end]) and end < len(line):
            continue
        yield position, end
        position = end


# -------------------------------------------------------------------------------------------------------- open-ended


def _open_answer(reasoning: str, tagged: str | None) -> Answer:
    if tagged is not None:
        return Answer(tagged, True) if tagged else _NONE
    said = _statements(reasoning)
    for number in range(len(said) - 1, -1, -1):
        if _CONCLUDES.search(said[number].lower()):
            told = said[number] + (" " + " ".join(said[number + 1 :]) if said[number].endswith(":") else "")
            if _claims(told):
                return Answer(told, True)
    return Answer(reasoning, True) if any(_claims(sentence) for sentence in said) else _NONE


def open_ended(told: Sequence[Finding], wanted: str, *, says: str = "") -> float:
    """F1 over findings of an open answer, in [0, 1]: what it tells (`told`) against the answer wanted.

    An item of the answer that the engine can't read counts as told where `says`, the answer's text, has its words. A
    normal film is answered by telling nothing that is there.
    """
    present = _distinct(claim for claim in told if claim.status != "absent")
    if says_normal(wanted):
        normal = says_normal(says) or any(c.name in WHOLE_FILM for c in told if c.status == "absent")
        return float(not present and normal)
    recalled, total = 0.0, 0
    goal: list[Finding] = []
    for item in items(wanted):
        findings = [claim for claim in stated(item) if claim.status != "absent"]
        goal += findings
        total += max(1, len(findings))
        if findings:
            recalled += sum(max((_credit(seen, claim) for seen in present), default=0.0) for claim in findings)
        else:
            recalled += f" {plain(item)} " in f" {plain(says)} "
    if not total:
        return 0.0
    recall = recalled / total
    unread = total - len(goal)
    said = len(present) + min(unread, round(recalled)) * (not goal)
    if not said:
        return 0.0
    correct = sum(max((_credit(seen, claim) for claim in goal), default=0.0) for seen in present)
    precision = min(1.0, (correct if goal else recalled) / said)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _credit(seen: Finding, wanted: Finding) -> float:
    if wanted.side and seen.side and not sides_meet(seen.side, wanted.side):
        return 0.0
    if is_a(seen.name, wanted.name):
        return 1.0
    return 0.5 if is_a(wanted.name, seen.name) else 0.0


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Each name and side once; what has no side goes where the same name has one."""
    found = {(finding.name, finding.side): finding for finding in findings}
    return [f for (name, side), f in found.items() if side or not any(n == name and s for n, s in found)]
