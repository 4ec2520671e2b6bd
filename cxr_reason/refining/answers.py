"""Which answer follows: from what a chain observed, and from what the report says.

`follows` says whether the answer of a chain follows from its observations, `named` which option a conclusion names.
What a question asks and an option states is read in `rewards.options`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from cxr_reason import courses
from cxr_reason.radiology import LEXICON, Finding
from cxr_reason.records import index_of, letter
from cxr_reason.refining.chain import Chain
from cxr_reason.rewards.options import (
    COURSES,
    LETTERS,
    YES_NO,
    all_entailed,
    asked,
    entails,
    is_a,
    names,
    plain,
    related,
    says_normal,
    stated,
    wholly_read,
)

_ABNORMAL = re.compile(r"\b(?:abnormal|abnormality|not normal)\b", re.IGNORECASE)


def follows(chain: Chain) -> str | None:
    """Why the answer doesn't follow from the observations, or isn't the report's; None where it does and is."""
    match chain.task:
        case "binary":
            return _binary(chain)
        case "anomaly":
            return _anomaly(chain)
        case "temporal":
            return _temporal(chain)
    if chain.options:
        return _choice(chain)
    return _open(chain)


def _binary(chain: Chain) -> str | None:
    wanted = _opposites(chain.question)
    if not wanted:
        return "What the question asks for can't be read."
    answer = plain(chain.answer_text)
    if answer not in ("yes", "no"):
        return "A yes-no question is answered with neither."
    observed = chain.observed
    policy = chain.policies.get("uncertain")
    for claim, yes, no in wanted:
        if claim.status != "absent":
            yes = chain.as_counted([yes])[0]
        sought, other = (yes, no) if answer == "yes" else (no, yes)
        if any(entails(seen, other) for seen in observed):
            return f"The observations speak for “{'no' if answer == 'yes' else 'yes'}”, not for “{answer}”."
        if any(entails(seen, sought) for seen in observed):
            continue
        if answer == "no" and policy == "absent" and any(is_a(seen.name, claim.name) for seen in observed):
            continue
        if answer == "no" and _may_be_silent(chain, no):
            continue
        return f"No observation tells of {claim.name}, so “{answer}” doesn't follow."
    return None


@lru_cache(maxsize=2048)
def _opposites(question: str) -> tuple[tuple[Finding, Finding, Finding], ...]:
    """Each finding that a yes-no question asks for, and what a Yes and a No state of it."""
    return tuple(
        (claim, claim, replace(claim, status="present", bound=None))  # "Are the lungs clear?"
        if claim.status == "absent"
        else (claim, replace(claim, status="present", certainty="definite"), _denial(claim))
        for claim in asked(question)
    )


def rests_on_silence(chain: Chain) -> bool:
    """Whether the answer is a No about something that the report doesn't mention, and may be."""
    wanted = _opposites(chain.question) if chain.task == "binary" and plain(chain.answer_text) == "no" else ()
    return bool(wanted) and all(claim.status != "absent" and _may_be_silent(chain, no) for claim, _, no in wanted)


def _denial(claim: Finding) -> Finding:
    return replace(claim, status="absent", certainty="definite", bound=None)


def _may_be_silent(chain: Chain, denial: Finding) -> bool:
    """A No that rests on silence holds only for what readers always report."""
    verdict = chain.judge.verdict(denial)
    return verdict.verdict == "supported" and verdict.basis == "silent" and LEXICON.findings[denial.name].reported


def _choice(chain: Chain) -> str | None:
    index = chain.right
    if index is None:
        return "The answer is none of the options."
    observed = chain.observed
    for other, option in enumerate(chain.options):
        wanted = chain.as_counted(stated(option))
        if other == index:
            if says_normal(option):
                if not chain.judge.reading.normal:
                    return "The answer is “normal”, and the report isn't."
                if any(seen.status != "absent" for seen in observed):
                    return "The answer is “normal”, and the steps observe something."
            elif not wanted:
                return "What the right option states can't be read."
            elif not all_entailed(observed, wanted):
                return "The observations don't show what the right option states."
        elif says_normal(option):
            if chain.judge.reading.normal:
                return f"Option {letter(other)} is offered as wrong, and the report is normal."
        elif wholly_read(option) and (
            all_entailed(observed, wanted) or all(chain.judge.verdict(claim).verdict == "supported" for claim in wanted)
        ):
            return f"Option {letter(other)} is offered as wrong, and it holds too."
    return None


def _open(chain: Chain) -> str | None:
    wanted, observed = chain.as_counted(stated(chain.answer)), chain.observed
    if says_normal(chain.answer):
        return None if chain.judge.reading.normal else "The answer is “normal”, and the report isn't."
    if not wanted:
        return "What the answer states can't be read."
    if not all_entailed(observed, wanted):
        return "The answer states something that no step observed."
    if chain.task == "multiple":
        missing = [seen for seen in observed if seen.status == "present" and not _told(seen, wanted)]
        if missing:
            return f"The answer leaves out what the steps observed: {missing[0].name}."
    return None


def _told(seen: Finding, answer: Sequence[Finding]) -> bool:
    return any(related(seen.name, told.name) for told in answer)


def _anomaly(chain: Chain) -> str | None:
    reading, observed = chain.judge.reading, chain.observed
    definition = chain.policies.get("definition") or _definition_of(chain.question)
    says_abnormal = _ABNORMAL.search(chain.answer_text) is not None
    if definition == "any":
        abnormal: bool | None = not reading.normal
    elif definition == "chexpert":
        abnormal = reading.labels.get("No Finding") != 1
    else:
        abnormal = reading.acute
    if abnormal is not says_abnormal:
        return f"By the question's definition the film is {_WORDS[abnormal]}, and the answer says otherwise."
    found = [seen for seen in observed if seen.status != "absent" and _counts(seen, definition)]
    if says_abnormal and not found:
        return "The answer is “abnormal”, and no step observes anything abnormal."
    if not says_abnormal and found:
        return f"The answer is “normal”, and a step observes {found[0].name}."
    return None


_WORDS = {True: "abnormal", False: "normal", None: "neither normal nor abnormal for certain"}


@lru_cache(maxsize=1024)
def _definition_of(question: str) -> str:
    if re.search(r"\bacute", question, re.IGNORECASE):
        return "acute"
    return "chexpert" if re.search(r"\bchexpert|\b14\b", question, re.IGNORECASE) else "any"


def _counts(finding: Finding, definition: str) -> bool:
    """Whether `finding` makes a film abnormal by `definition`."""
    if definition == "any":
        return True
    if definition == "chexpert":
        return finding.label not in (None, "Support Devices")
    return bool(LEXICON.findings[finding.name].acute) or finding.acuity == "acute"


def _temporal(chain: Chain) -> str | None:
    wanted = names(asked(chain.question))
    told = {
        courses.OF_CHANGE[seen.change]
        for seen in chain.observed
        if seen.change and (not wanted or any(related(seen.name, name) for name in wanted))
    }
    films = _by_films(chain, wanted)
    # Two films may show the same grade of what a report calls smaller; they can't show more of it.
    told |= {course for course in films if course != "stable" or not told}
    if not told:
        return "No observation tells how it changed."
    if len(told) > 1:
        return "The observations change in different directions."
    answer = next((course for course, words in COURSES.items() if words.search(chain.answer_text)), None)
    return None if answer in told else "The observations change in another direction than the answer."


def _by_films(chain: Chain, wanted: frozenset[str]) -> set[str]:
    """How what is asked for changed from the film before to the current one, by what the steps observed on each."""
    before, now = chain.observed_before, chain.observed
    found = set()
    for name in names(before) & names(now) & wanted:
        # A statement about the change ("has increased") is none about the current film alone.
        current = [seen for seen in now if seen.name == name and not seen.change]
        course = courses.course((seen for seen in before if seen.name == name), current)
        if course is not None:
            found.add(course.answer)
    return found


def named(chain: Chain, text: str, told: Sequence[Finding]) -> int | None:
    """Which option a conclusion with this `text` and the claims `told` names; None where it names none, or several."""
    for pattern in LETTERS:
        letters = set(pattern.findall(text))
        if letters:
            return index_of(letters.pop(), chain.options) if len(letters) == 1 else None
    options = [plain(option) for option in chain.options]
    if set(options) == {"yes", "no"}:
        words = {word.lower() for word in YES_NO.findall(text)}
        if len(words) == 1:
            return options.index(words.pop())
        return _yes_no_told(chain, options, told)
    said = f" {plain(text)} "
    found = [option for option in options if f" {option} " in said]
    found = [option for option in found if not any(option != longer and option in longer for longer in found)]
    if len(found) == 1:
        return options.index(found[0])
    if chain.task == "temporal":
        courses = [course for course, words in COURSES.items() if words.search(text)]
        fitting = [i for i, option in enumerate(options) if len(courses) == 1 and COURSES[courses[0]].search(option)]
    else:
        fitting = [i for i, option in enumerate(chain.options) if stated(option) and all_entailed(told, stated(option))]
    return fitting[0] if len(fitting) == 1 else None


def states_answer(chain: Chain, text: str, told: Sequence[Finding]) -> bool:
    """Whether a conclusion with this `text` and the claims `told` states the answer to an open question."""
    wanted = stated(chain.answer)
    return f" {plain(chain.answer)} " in f" {plain(text)} " or (bool(wanted) and all_entailed(told, wanted))


def _yes_no_told(chain: Chain, options: list[str], told: Sequence[Finding]) -> int | None:
    for claim in asked(chain.question):
        if any(entails(seen, replace(claim, bound=None)) for seen in told):
            return options.index("yes")
        opposite = "absent" if claim.status == "present" else "present"
        if any(entails(seen, replace(claim, status=opposite, bound=None)) for seen in told):
            return options.index("no")
    return None
