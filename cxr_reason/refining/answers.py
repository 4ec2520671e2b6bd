"""Which answer follows: from what a chain observed, and from what the report says.

A question asks for findings (`asked`), and an option states some (`rewrite.stated`). Both are read by the engine that
reads reports. `entails` says whether one observed claim is enough for another, `follows` whether the answer of a chain
follows from its observations, `named` which option a conclusion names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from cxr_reason import courses
from cxr_reason.radiology import LEXICON, Finding, claims
from cxr_reason.refining.chain import Chain, plain, says_normal
from cxr_reason.refining.rewrite import stated, wholly_read

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
    r"^[^,?]*\b(?:film|radiograph|x-ray|image)\b[^,?]*, (?=is|are|do|can|could)"
    r"|,? (?:on|in|from) (?:this|the|these) (?:\w+ )?(?:\w+ )?(?:film|radiograph|x-ray|image)s?\b",
    re.IGNORECASE,
)
# "This is a portable AP film. Does …": mine's ``--tell-view``.
_VIEW_TOLD = re.compile(r"^(?:This is|These are|The current study has) [^.?]*\bfilm\b[^.?]*\.\s+")
_ABNORMAL = re.compile(r"\b(?:abnormal|abnormality|not normal)\b", re.IGNORECASE)
_COURSES = {
    "improved": re.compile(r"\b(?:improv\w+|better|smaller|less|decreas\w+|resolv\w+|clear\w+)\b", re.IGNORECASE),
    "stable": re.compile(r"\b(?:stable|unchanged|the same|no change|similar)\b", re.IGNORECASE),
    "worse": re.compile(r"\b(?:wors\w+|larger|more|increas\w+|progress\w+|new)\b", re.IGNORECASE),
}
# "The answer is B, …", "option (C)", "so: D."; never the article of "the answer is a small effusion".
_LETTER = [
    re.compile(
        r"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?:\s+is)?\s*[:=]?\s*(?:(?:the\s+)?(?:[Oo]ption|[Aa]nswer|[Cc]hoice)\s*)?"
        r"[^\w\s]{0,3}([A-H])\b(?!\s+[a-z])"
    ),
    re.compile(r"\b(?:[Oo]ption|[Cc]hoice)\s+[^\w\s]{0,3}([A-H])\b"),
    re.compile(r"\(([A-H])\)"),
    re.compile(r"\b(?:[Ss]o|[Tt]herefore|[Hh]ence|[Tt]hus)[,:]?\s+([A-H])[.,:;)](?:\s|$)"),
]
_SAYS_YES_NO = re.compile(
    r"(?:\banswer(?:\s+\w+){0,4}?\s+(?:is|:)|^|[,:(])\s*[^\w\s]?(yes|no)(?=[^\w\s]?(?:[.,;:)]|$))", re.IGNORECASE
)


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
    wanted = asked(chain.question)
    if not wanted:
        return "What the question asks for can't be read."
    answer = plain(chain.answer_text)
    if answer not in ("yes", "no"):
        return "A yes-no question is answered with neither."
    observed = chain.observed
    policy = chain.policies.get("uncertain")
    for claim in wanted:
        if claim.status == "absent":  # "Are the lungs clear?"
            yes, no = claim, replace(claim, status="present", bound=None)
        else:
            yes = chain.as_counted([replace(claim, status="present", certainty="definite")])[0]
            no = _denial(claim)
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


def rests_on_silence(chain: Chain) -> bool:
    """Whether the answer is a No about something that the report doesn't mention, and may be."""
    wanted = asked(chain.question) if chain.task == "binary" and plain(chain.answer_text) == "no" else ()
    return bool(wanted) and all(claim.status != "absent" and _may_be_silent(chain, _denial(claim)) for claim in wanted)


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
                return f"Option {_letter(other)} is offered as wrong, and the report is normal."
        elif wholly_read(option) and (
            all_entailed(observed, wanted) or all(chain.judge.verdict(claim).verdict == "supported" for claim in wanted)
        ):
            return f"Option {_letter(other)} is offered as wrong, and it holds too."
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


@lru_cache(maxsize=4096)
def related(one: str, other: str) -> bool:
    return one == other or LEXICON.related(one, other)


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
    answer = next((course for course, words in _COURSES.items() if words.search(chain.answer_text)), None)
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
    for pattern in _LETTER:
        letters = set(pattern.findall(text))
        if letters:
            indexes = {ord(letter) - ord("A") for letter in letters}
            return indexes.pop() if len(indexes) == 1 else None
    options = [plain(option) for option in chain.options]
    if set(options) == {"yes", "no"}:
        words = {word.lower() for word in _SAYS_YES_NO.findall(text)}
        if len(words) == 1:
            return options.index(words.pop())
        return _yes_no_told(chain, options, told)
    said = f" {plain(text)} "
    found = [option for option in options if f" {option} " in said]
    found = [option for option in found if not any(option != longer and option in longer for longer in found)]
    if len(found) == 1:
        return options.index(found[0])
    if chain.task == "temporal":
        courses = [course for course, words in _COURSES.items() if words.search(text)]
        fitting = [i for i, option in enumerate(options) if len(courses) == 1 and _COURSES[courses[0]].search(option)]
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


def _letter(index: int) -> str:
    return chr(ord("A") + index)
