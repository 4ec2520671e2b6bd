"""What a chain must be: `CHECKS`, a table of small functions.

A check looks at a chain, yields the problems that it finds, and mends what it can: it takes words out of a sentence,
or drops a sentence or a step. A problem that can't be mended is fatal. Checks run in the order of the table, whatever
the order in which they were asked for, because later ones look at what earlier ones have left; `judge` repeats them on
a mended chain until nothing is found any more, so that what it keeps is kept unchanged by a second run.

`verify` decides what the report bears out. No check ever makes a statement stronger: see `refining.rewrite`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from cxr_reason.radiology import LEXICON, Finding, Verdict
from cxr_reason.refining import answers, rewrite
from cxr_reason.refining.chain import Chain, Judge, Problem, Step
from cxr_reason.refining.rewrite import WHY, Said
from cxr_reason.rewards.options import asked, entails, is_a, names, related, says_normal, stated

Problems = Iterator[Problem]

# More rounds than a chain can have reasons to change in turn: text, claims, steps.
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Check:
    """`look` yields problems, and mends the chain where it can; `doc` is its line in ``--list-checks``."""

    look: Callable[[Chain], Problems]
    doc: str


def judge(chain: Chain, *, checks: Collection[str]) -> list[Problem]:
    """Look at `chain` with `checks` (names of `CHECKS`) and mend it. It is kept if no problem is fatal."""
    wanted = [CHECKS[name].look for name in CHECKS if name in checks]
    found: list[Problem] = []
    for _ in range(ROUNDS):
        before = len(found)
        for look in wanted:
            for problem in look(chain):
                found.append(problem)
                if problem.fatal:
                    return found
        if len(found) == before:
            return found
    last = found[-1]
    found.append(Problem(last.check, "It can't be mended: each mend gives rise to another.", last.step, fatal=True))
    return found


# --------------------------------------------------------------------------------------------------- what it talks of


def _talk(kind: str, chain: Chain) -> Problems:
    """Take talk of `kind` out of every step."""
    if kind == "prior":
        if chain.task == "temporal":
            return
        for step in [step for step in chain.steps if step.prior]:
            yield _dropped(chain, step, kind, "tells of the film before, which the model can't see")
    for step in list(chain.steps):
        if kind in step.passage.talk:
            told = step.passage.sentences
            kept = [rewrite.mend(sentence, (kind,)) if kind in sentence.talk else sentence for sentence in told]
            yield _shortened(chain, step, kept, kind, WHY[kind])


def mask(chain: Chain) -> Problems:
    for what, texts in (("question", (chain.question,)), ("answer", (chain.answer,)), ("options", chain.options)):
        if rewrite.masked(*texts):
            yield Problem("mask", f"Its {what} holds a mask, a word that was taken out of the report.", fatal=True)
    for step in list(chain.steps):
        if step.passage.masked:
            kept = [None if sentence.masked else sentence for sentence in step.passage.sentences]
            yield _shortened(chain, step, kept, "mask", "holds a mask, a word that was taken out of the report")


# ---------------------------------------------------------------------------------------------------- what it claims


def claims(chain: Chain) -> Problems:
    """Hold every claim of every step against the report."""
    for step in list(chain.steps):
        if step.prior and step.kind == "observe" and chain.before is None:
            yield _dropped(chain, step, "claims", "tells of the film before, of which there is no readable report")
            continue
        if (step.kind != "observe" or step.passage.checkable) and all(map(_firm, chain.verdicts(step))):
            continue
        kept: list[Said | None] = []
        why = ""
        for sentence in step.passage.sentences:
            fault = _fault(chain, step, sentence)
            if fault is None:
                kept.append(sentence)
            else:
                why = why or fault
                kept.append(rewrite.without_claims(sentence, partial(_stands, chain, step, sentence)))
        if step.kind == "observe" and not any(sentence and sentence.claims for sentence in kept):
            yield _dropped(chain, step, "claims", why or "observes nothing that could be checked")
        elif why:
            yield _shortened(chain, step, kept, "claims", why)


def _firm(verdict: Verdict) -> bool:
    return verdict.verdict == "supported" and verdict.basis != "silent"


def _fault(chain: Chain, step: Step, sentence: Said) -> str | None:
    """What is wrong with what `sentence` claims."""
    if step.kind == "observe" and not sentence.claims and not sentence.general:
        return "says something that can't be checked"
    for claim in sentence.claims:
        verdict = chain.verdict(step, claim)
        if verdict.verdict != "supported":
            return f"{_claimed(claim)}: {verdict.reason}"
        if verdict.basis == "silent" and not _may_be_silent(sentence, claim):
            return f"{_claimed(claim)}: the report doesn't mention it, so nobody says that it was looked for"
    return None


def _stands(chain: Chain, step: Step, sentence: Said, claim: Finding) -> bool:
    verdict = chain.verdict(step, claim)
    return verdict.verdict == "supported" and (verdict.basis != "silent" or _may_be_silent(sentence, claim))


def _may_be_silent(sentence: Said, claim: Finding) -> bool:
    """Silence bears a denial only of what readers always report, and only as an inference, never as an observation."""
    return LEXICON.findings[claim.name].reported and sentence.inferred


def _claimed(claim: Finding) -> str:
    what = " ".join(filter(None, (claim.bound, claim.severity, claim.side, claim.name)))
    certainty = "" if claim.status != "uncertain" else f" ({claim.certainty})"
    return f"calls {what} {claim.status}{certainty}"


def invented(chain: Chain) -> Problems:
    """Drop observations with a sign, a number or a detail that nothing in the report states."""
    for step in list(chain.steps):
        if step.kind != "observe" or not step.passage.detailed:
            continue
        kept: list[Said | None] = []
        why = ""
        for sentence in step.passage.sentences:
            fault = _invention(chain.judge_of(step), sentence)
            why = why or fault
            kept.append(None if fault else sentence)
        if why:
            yield _shortened(chain, step, kept, "invented", why)


def _invention(judge: Judge, sentence: Said) -> str:
    for sign in sentence.signs:
        if sign.replace("-", " ") not in judge.lower:
            return f"describes a sign that the report doesn't ({sign})"
    for number in sentence.numbers:
        if number not in judge.numbers and not _measured(sentence.claims, judge.reading.findings):
            return f"gives a figure that the report doesn't ({number})"
    for claim in sentence.claims:
        if rewrite.has_details(claim):
            detail = _unstated_detail(claim, judge.reading.findings)
            if detail:
                return f"gives a detail of {claim.name} that the report doesn't ({detail})"
    return ""


def _measured(claims: Sequence[Finding], findings: Sequence[Finding]) -> bool:
    """Whether the sizes of `claims` are all in the report, maybe in another unit."""
    sizes = [claim.size_mm for claim in claims if claim.size_mm is not None]
    told = [found.size_mm for found in findings if found.size_mm is not None]
    return bool(sizes) and all(any(abs(size - other) < 0.5 for other in told) for size in sizes)


def _unstated_detail(claim: Finding, findings: Sequence[Finding]) -> str | None:
    """A detail of `claim` that no finding of its kind has in the report."""
    same = [found for found in findings if found.status != "absent" and _alike(found.name, claim.name)]
    if not same:
        return None
    sides = {found.side for found in same}
    if claim.side and not ({claim.side, "bilateral"} & sides or {"left", "right"} <= sides):
        return claim.side
    # A device's place is its tip's.
    for name in ("severity", "acuity") if claim.device else ("severity", "site", "acuity"):
        told = getattr(claim, name)
        stated = [value for found in same if (value := getattr(found, name))]
        if told and not any(told in value or value in told for value in stated):
            return str(told)
    tip = (claim.device or {}).get("tip")
    if tip and not any((found.device or {}).get("tip") for found in same):
        return str(tip)
    return None


@lru_cache(maxsize=2048)
def _alike(one: str, other: str) -> bool:
    return is_a(one, other) or is_a(other, one)


# ------------------------------------------------------------------------------------------------------- what it is


def relevant(chain: Chain) -> Problems:
    """Drop observations that don't bear on the question."""
    asked = _asked(chain)
    if not asked:
        return
    for step in list(chain.steps):
        told = step.passage.claims if step.kind == "observe" else ()
        if told and not any(_bears(claim.name, asked) for claim in told):
            yield _dropped(chain, step, "relevant", f"tells of {told[0].name}, which the question doesn't ask for")


def _asked(chain: Chain) -> frozenset[str]:
    """The findings that the question is about; empty where it is about the whole film, or can't be read."""
    match chain.task:
        case "binary" | "temporal":
            return names(asked(chain.question))
        case "single" | "multiple" if chain.options and not any(map(says_normal, chain.options)):
            return _asked_by_options(chain.options)
    return frozenset()


@lru_cache(maxsize=2048)
def _asked_by_options(options: tuple[str, ...]) -> frozenset[str]:
    return names(claim for option in options for claim in stated(option))


@lru_cache(maxsize=2048)
def _bears(name: str, asked: frozenset[str]) -> bool:
    region = LEXICON.findings[name].region
    return region == "chest" or any(related(name, other) or region == LEXICON.findings[other].region for other in asked)


def degenerate(chain: Chain) -> Problems:
    """Drop steps that are empty, broken off or repeated; refuse chains that then lack an observation or an end.

    Only a No that rests on silence goes without an observation: there is none to make.
    """
    told: set[str] = set()
    for step in list(chain.steps):
        key = step.key
        if " " not in key:
            yield _dropped(chain, step, "degenerate", "says nothing")
        elif key in told:
            yield _dropped(chain, step, "degenerate", "repeats an earlier step")
        elif step.passage.unfinished:
            yield _dropped(chain, step, "degenerate", "breaks off")
        told.add(key)
    if not chain.of_kind("observe") and not answers.rests_on_silence(chain):
        yield Problem("degenerate", "No observation is left that could carry an answer.", fatal=True)
    elif chain.conclusion is None or len(chain.of_kind("conclude")) > 1:
        yield Problem("degenerate", "It must end with its one conclusion.", fatal=True)


def conclusion(chain: Chain) -> Problems:
    """Work the answer out again from what the steps observed, and see that the conclusion adds nothing."""
    fault = answers.follows(chain)
    if fault:
        yield Problem("conclusion", fault, fatal=True)
        return
    last, observed = chain.conclusion, chain.observed
    if last is None:
        return
    for claim, counted in zip(last.passage.claims, chain.as_counted(last.passage.claims), strict=True):
        if counted.status != "absent" and not any(entails(seen, counted) for seen in observed):
            yield Problem("conclusion", f"It {_claimed(claim)}, which no step observed.", last.number, fatal=True)
            return


def answer(chain: Chain) -> Problems:
    """See that the answer is one of the options, and the one that the conclusion names."""
    last = chain.conclusion
    if not chain.options:
        if last and not answers.states_answer(chain, last.passage.text, last.passage.claims):
            yield Problem("answer", "The conclusion doesn't state the answer.", last.number, fatal=True)
        return
    right = chain.right
    if right is None:
        yield Problem("answer", "The answer is none of the options.", fatal=True)
        return
    if len(set(chain.options)) < len(chain.options):
        yield Problem("answer", "Two options are the same.", fatal=True)
        return
    if last is None:
        return
    named = answers.named(chain, last.passage.text, last.passage.claims)
    if named is None:
        yield Problem("answer", "The conclusion doesn't say which option it chooses.", last.number, fatal=True)
    elif named != right:
        yield Problem("answer", "The conclusion names another option than the answer.", last.number, fatal=True)


def length(chain: Chain) -> Problems:
    characters = sum(len(step.passage.text) for step in chain.steps)
    if len(chain.steps) > chain.max_steps:
        yield Problem("length", f"It has {len(chain.steps)} steps; {chain.max_steps} are allowed.", fatal=True)
    elif characters > chain.max_chars:
        yield Problem("length", f"It has {characters:,} characters; {chain.max_chars:,} are allowed.", fatal=True)


def duplicate(chain: Chain) -> Problems:
    """Refuse what a kept chain of the same study has asked or said already."""
    for what, key in chain.keys().items():
        if key in chain.seen:
            yield Problem("duplicate", f"An earlier chain of this study has the same {what}.", fatal=True)
            return


# ---------------------------------------------------------------------------------------------------------- mending


def _shortened(chain: Chain, step: Step, kept: Sequence[Said | None], check: str, why: str) -> Problem:
    """Leave `kept` of `step`, a sentence or None for each of its own. Without any the step is dropped."""
    left = tuple(sentence for sentence in kept if sentence is not None)
    lost = (sentence for sentence, rest in zip(step.passage.sentences, kept, strict=True) if rest is None)
    if not left or any(map(_hedges_another, lost)):
        return _dropped(chain, step, check, why)
    step.keep(left)
    return Problem(check, f"Step {step.number} {why}. The words were taken out.", step.number)


def _hedges_another(sentence: Said) -> bool:
    """Whether `sentence` takes back some of what another says ("This may be artifact."), so that it can't go alone."""
    return not sentence.claims and not sentence.general and rewrite.matches("hedge", sentence.text)


def _dropped(chain: Chain, step: Step, check: str, why: str) -> Problem:
    if step.kind == "conclude":
        return Problem(check, f"The conclusion {why}.", step.number, fatal=True)
    chain.steps.remove(step)
    return Problem(check, f"Step {step.number} {why}. It was dropped.", step.number)


CHECKS: dict[str, Check] = {
    "mask": Check(mask, "no XXXX, ___ or [**…**] in question, options, answer or steps"),
    "leak": Check(partial(_talk, "leak"), "no talk of the report or the radiologist"),
    "prior": Check(partial(_talk, "prior"), "no comparison with studies that the model can't see (temporal aside)"),
    "history": Check(partial(_talk, "history"), "no history, symptoms or indication"),
    "advice": Check(partial(_talk, "advice"), "no tests, treatment or follow-up"),
    "claims": Check(claims, "the report bears out every claim of every step"),
    "invented": Check(invented, "no sign, figure or detail in an observation that the report doesn't state"),
    "relevant": Check(relevant, "every observation bears on the question"),
    "degenerate": Check(degenerate, "no empty, broken-off or repeated step; observations, then one conclusion"),
    "conclusion": Check(conclusion, "the answer follows from the observations"),
    "answer": Check(answer, "the answer is an option, and the one that the conclusion names"),
    "length": Check(length, "within --max-steps and --max-chars"),
    "duplicate": Check(duplicate, "no question or chain twice in a study"),
}
