"""Which questions one film gives, with their options, answers and chains; those about two are in `temporal`.

A question is a pure function of the seed, the study and the finding, so shards and processes change nothing. Nothing
that is related to something present or suspected is ever offered as wrong (`sights.kin`), a No rests on what the report
states of the finding or its region, as `--negatives` has it, and nothing that the report contradicts itself about is
asked.

Yes and no are asked about equally often per finding, without counting: each finding's answers are kept with a chance
that follows from how often reports assert and deny it (`rates` in `language.toml`). Archives differ, so the balance is
an approximate one; `--per-finding` makes it exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cxr_reason.mining import chains, wording
from cxr_reason.mining.chains import Ground, Sight, Step
from cxr_reason.mining.dice import Dice, coin
from cxr_reason.mining.language import DEFINITIONS, MANNERS, QUESTIONS, REGIONS
from cxr_reason.mining.sights import View, kin, urgency
from cxr_reason.mining.wording import Details
from cxr_reason.radiology import LEXICON, Reading
from cxr_reason.records import TASKS

# Of the answers that the balance leaves, this share is asked; without thinning out, normal films would drown the rest.
BINARY_SHARE = 0.3
BINARY_AT_MOST = 4
SET_AT_MOST = 3
WRONG = 3  # wrong options beside the right one
RARELY_WRONG = 0.15  # chance to be a right option for findings that can hardly be a wrong one
LETTERS = "ABCD"
SEPARATOR = "; "  # after a comma, a side would be read as that of the next finding too


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the questions; every field is told in the records' provenance or in their ids."""

    tasks: tuple[str, ...] = TASKS
    seed: int = 0
    negatives: str = "region"
    uncertain: str = "exclude"
    definition: str = "any"
    open_ended: bool = False
    tell_view: bool = False
    """Whether questions tell the films' views, where they are known."""
    thinned: bool = True
    """False under ``--per-finding``, which picks for itself."""


@dataclass(slots=True)
class Question:
    task: str
    finding: str
    """What it is about, for the id and for ``--per-finding``; "" for the whole film."""
    question: str
    options: list[str] | None
    answer: str
    steps: list[Step]
    cell: str = ""
    """Which answer it is for ``--per-finding``: yes, no, normal, abnormal, a course."""


Maker = Callable[[int, Reading, View, Options], Iterator[Question]]


def questions(study: int, reading: Reading, view: View, options: Options) -> list[Question]:
    """All questions of one report about its own film. `study` is its hash with the seed."""
    return [
        question for task in options.tasks if task in MAKERS for question in MAKERS[task](study, reading, view, options)
    ]


# ------------------------------------------------------------------------------------------------------------- binary


def binary(study: int, reading: Reading, view: View, options: Options) -> Iterator[Question]:
    """Does the film show it? Answered with Yes where it is present, with No where it is denied."""
    yes = _askable(view, suspected=options.uncertain == "present")
    made = 0
    for name, sights in yes.items():
        if made < BINARY_AT_MOST and _is_drawn(study, "yes", name, options):
            made += 1
            yield _binary(study, name, "Yes", sights, None)
    for name, ground in view.denials.items():
        if made < BINARY_AT_MOST and name not in yes and _is_drawn(study, "no", name, options):
            made += 1
            yield _binary(study, name, "No", [], ground)
    if options.uncertain == "absent":
        for name, sights in _by_name(view.suspected).items():
            told = name in yes or name in view.withheld
            if made < BINARY_AT_MOST and not told and _is_drawn(study, "no", name, options, "doubt"):
                made += 1
                yield _binary(study, name, "No", sights, None)


def _binary(study: int, name: str, answer: str, sights: Sequence[Sight], ground: Ground | None) -> Question:
    dice = Dice(study, "binary", name)
    manner = MANNERS[name]
    said = wording.phrase(Details(name))
    bare = wording.phrase(Details(name), article=False)
    general = not manner.asks or dice.roll(2)
    question = wording.fill(dice.pick(QUESTIONS["binary"]), said) if general else dice.pick(manner.asks)
    choices, letter = lettered(dice, ["Yes", "No"], answer)
    steps = [chains.plan(dice, "binary", [name]), *chains.see(dice, sights)]
    claims: dict[str, Any] = {}
    if ground is None:
        certain = any(sight.status == "present" for sight in sights)
        kind = "doubted" if answer == "No" else "yes" if certain else "suspected"
        if kind == "yes":
            claims = {"findings": [wording.claim(Details(name), "present", "definite")], "basis": "stated"}
    elif ground.sight is None:
        kind = "silent"
        steps.append(chains.infer(dice, name))
    else:
        kind = "no"
        steps += chains.deny(dice, [name], {name: ground})
        claims = {"findings": [wording.claim(Details(name), "absent", "definite")], "basis": ground.basis}
    steps.append(chains.conclude(dice, kind, answer, letter, bare if kind == "no" else said, **claims))
    return Question("binary", name, question, choices, letter, steps, answer.lower())


@cache
def _shares(name: str, negatives: str) -> dict[str, float]:
    manner = MANNERS[name]
    there, denied = manner.rates
    if negatives != "stated" and not manner.beyond:
        denied += REGIONS[manner.region].clear
        denied += REGIONS["chest"].clear if LEXICON.findings[name].acute else 0
    return {"yes": min(1.0, denied / there), "no": min(1.0, there / denied)} if there and denied else {}


def _is_drawn(study: int, answer: str, name: str, options: Options, why: str = "") -> bool:
    """Whether an `answer` about `name` is asked for: by such a chance that yes and no come out alike."""
    chance = _shares(name, options.negatives).get(answer, 0.0)
    return chance > 0 and coin(study, why or answer, name) < chance * (BINARY_SHARE if options.thinned else 1.0)


# ------------------------------------------------------------------------------------------------------------- single


def single(study: int, reading: Reading, view: View, options: Options) -> Iterator[Question]:
    """Which one of four findings is there? The others are denied, related to nothing that is there, and as detailed."""
    right = _rightful(study, view, options)
    if not right:
        return
    dice = Dice(study, "single")
    name, sights = dice.pick(right)
    sight = sights[0]
    wrong = _distractors(dice, view, name, WRONG)
    if len(wrong) == WRONG:
        said = wording.phrase(sight.details._replace(tip=None), article=False).text
        texts = [said, *(_disguised(dice, other, sight.details) for other in wrong)]
        choices, letter = lettered(dice, texts, said)
        steps = [
            chains.plan(dice, "single", [name, *wrong]),
            *chains.see(dice, [sight]),
            *chains.deny(dice, wrong, view.denials),
            chains.conclude(dice, "single", said, letter, findings=[sight.claim], basis="stated"),
        ]
        yield Question("single", name, dice.pick(QUESTIONS["single"]), choices, letter, steps)
    if options.open_ended and len(view.seen) == 1 and not (view.suspected or view.conflicts or view.withheld):
        yield _open(dice, "single", view.seen, view)


def _rightful(study: int, view: View, options: Options) -> list[tuple[str, list[Sight]]]:
    """What may be a right option. Findings that are seldom denied, and so seldom wrong options, are seldom right ones:
    else "degenerative changes" could be chosen with closed eyes."""
    return [
        (name, sights)
        for name, sights in _askable(view).items()
        if coin(study, "right", name) < max(RARELY_WRONG, _shares(name, options.negatives).get("yes", 0.0))
    ]


def _distractors(dice: Dice, view: View, name: str, count: int) -> list[str]:
    """Denied findings that could be taken for `name`: those of its region first, none related to another.

    The more often a finding is there in other films, the likelier it is chosen, and twice so if it is denied by name.
    What has no rate in language.toml is never the right option, so it's no wrong one either.
    """
    region = MANNERS[name].region

    def rank(other: str) -> tuple[bool, float]:
        # Weighted sampling by Efraimidis and Spirakis (2006): the largest u ** (1 / weight).
        weight = MANNERS[other].rates[0] * (2 if view.denials[other].basis == "stated" else 1)
        return MANNERS[other].region != region, -(dice.share() ** (1 / weight))

    ranked = sorted((other for other in view.denials if MANNERS[other].rates[0]), key=rank)
    found: list[str] = []
    for other in ranked:
        if len(found) == count:
            break
        if not any(other in kin(chosen) for chosen in found):
            found.append(other)
    return found


def _disguised(dice: Dice, name: str, like: Details) -> str:
    """A wrong option as detailed as the right one, so that the longest isn't always right."""
    manner = MANNERS[name]
    details = Details(name)
    if like.side and (manner.side == "before" or "{which}" in manner.noun):
        sides = ("left", "right", "bilateral") if like.side == "bilateral" else ("left", "right")
        details = details._replace(side=dice.pick(sides))
    if like.severity and (manner.size or (manner.article == "" and manner.region != "bones")):
        details = details._replace(severity=dice.pick(("mild", "moderate", "severe")))
    return wording.phrase(details, article=False).text


# ----------------------------------------------------------------------------------------------------------- multiple


def multiple(study: int, reading: Reading, view: View, options: Options) -> Iterator[Question]:
    """Which set of findings is there? In a wrong set at least one is denied; over the four, each comes up twice."""
    dice = Dice(study, "multiple")
    right = [sights[0] for _, sights in _rightful(study, view, options)]
    chosen: list[Sight] = []
    for sight in sorted(dice.shuffled(right), key=urgency):
        if len(chosen) < SET_AT_MOST and not any(sight.name in kin(other.name) for other in chosen):
            chosen.append(sight)
    size = len(chosen)
    if size > 1:
        wrong = _distractors(dice, view, chosen[0].name, size)
        if len(wrong) == size:
            there = [wording.phrase(sight.details._replace(tip=None), article=False).text for sight in chosen]
            other = [_disguised(dice, name, sight.details) for name, sight in zip(wrong, chosen, strict=True)]
            said = SEPARATOR.join(there)
            choices, letter = lettered(dice, [said, *_mixtures(there, other)], said)
            steps = [
                chains.plan(dice, "multiple", [*(sight.name for sight in chosen), *wrong]),
                *chains.see(dice, chosen),
                *chains.deny(dice, wrong, view.denials),
                chains.conclude(
                    dice, "multiple", said, letter, findings=[sight.claim for sight in chosen], basis="stated"
                ),
            ]
            yield Question("multiple", chosen[0].name, dice.pick(QUESTIONS["multiple"]), choices, letter, steps)
    if options.open_ended and view.seen and not (view.conflicts or view.withheld):
        yield _open(dice, "multiple", view.seen, view)


def _mixtures(there: Sequence[str], other: Sequence[str]) -> list[str]:
    """Three wrong sets such that, with the right one, every text comes up twice: counting doesn't give it away."""
    if len(there) == 2:
        (a, b), (x, y) = there, other
        sets = [[a, x], [y, b], [x, y]]
    else:
        (a, b, c), (x, y, z) = there, other
        sets = [[a, x, y], [x, b, z], [y, z, c]]
    return [SEPARATOR.join(texts) for texts in sets]


def _open(dice: Dice, task: str, sights: Sequence[Sight], view: View) -> Question:
    """A question without options. Its answer lists what is present."""
    answer = SEPARATOR.join(wording.phrase(sight.details._replace(tip=None), article=False).text for sight in sights)
    beside = [sight for sight in view.absent if sight.details.bound is None][: chains.NEGATIVES_BESIDE]
    steps = [
        chains.plan(dice, "list", [sight.name for sight in sights]),
        *chains.see(dice, sights),
        *chains.absences(dice, beside),
        chains.conclude(dice, "list", answer, findings=[sight.claim for sight in sights], basis="stated"),
    ]
    return Question(task, sights[0].name, dice.pick(QUESTIONS[f"{task}_open"]), None, answer, steps)


# ------------------------------------------------------------------------------------------------------------ anomaly


def anomaly(study: int, reading: Reading, view: View, options: Options) -> Iterator[Question]:
    """Is the film normal? By `--definition`, which the question says; what is only suspected counts as abnormal."""
    dice = Dice(study, "anomaly", options.definition)
    everything = view.seen + view.suspected
    counted = [sight for sight in everything if COUNTS[options.definition](sight)]
    normal = NORMAL[options.definition](reading)
    if normal and not view.whole:
        return
    if normal is None or normal is bool(counted) or (normal and options.definition == "any" and everything):
        return
    if counted and all(sight.name in view.withheld for sight in counted):
        return
    answer = "Normal" if normal else "Abnormal"
    choices, letter = lettered(dice, ["Normal", "Abnormal"], answer)
    steps = [chains.plan(dice, "anomaly", ())]
    if normal:
        statements = chains.absences(dice, _telling(view.absent))[: chains.NEGATIVES_ALONE]
        if not statements:
            return
        steps += chains.see(dice, everything) + statements
        kind = "discounted" if everything else "normal"
    else:
        steps += chains.see(dice, everything)
        steps += chains.absences(dice, _telling(view.absent)[: chains.NEGATIVES_BESIDE])
        kind = "abnormal" if any(sight.status == "present" for sight in counted) else "doubtful"
    steps.append(chains.conclude(dice, kind, answer, letter))
    question = dice.pick(DEFINITIONS[options.definition])
    yield Question("anomaly", "", question, choices, letter, steps, answer.lower())


def _telling(absent: Sequence[Sight]) -> list[Sight]:
    """Denials from which a film may be called normal: those of organs before those of everything at once."""
    organs = [sight for sight in absent if MANNERS[sight.name].region != "chest"]
    whole = [sight for sight in absent if MANNERS[sight.name].region == "chest"]
    return organs + whole


COUNTS: dict[str, Callable[[Sight], bool]] = {
    "any": lambda sight: True,
    "chexpert": lambda sight: MANNERS[sight.name].label not in (None, "Support Devices"),
    "acute": lambda sight: LEXICON.findings[sight.name].acute or sight.details.acuity == "acute",
}
"""What makes a film abnormal, by definition."""

NORMAL: dict[str, Callable[[Reading], bool | None]] = {
    "any": lambda reading: reading.normal,
    "chexpert": lambda reading: reading.labels.get("No Finding") == 1,
    "acute": lambda reading: None if reading.acute is None else not reading.acute,
}


MAKERS: dict[str, Maker] = {
    "binary": binary,
    "single": single,
    "multiple": multiple,
    "anomaly": anomaly,
}


# ------------------------------------------------------------------------------------------------------------- common


def _askable(view: View, *, suspected: bool = False) -> dict[str, list[Sight]]:
    """What a Yes or a right option may be made of: what is certainly there, and what is `suspected` if that counts."""
    sights = [sight for sight in view.seen if sight.certainty == "definite"] + (view.suspected if suspected else [])
    doubted = set() if suspected else {sight.name for sight in view.suspected}
    left = doubted | view.withheld
    return {name: found for name, found in _by_name(sights).items() if MANNERS[name].asked and name not in left}


def _by_name(sights: Iterable[Sight]) -> dict[str, list[Sight]]:
    found: dict[str, list[Sight]] = {}
    for sight in sights:
        found.setdefault(sight.name, []).append(sight)
    return found


def lettered(dice: Dice, texts: Sequence[str], right: str) -> tuple[list[str], str]:
    """The options in an order of their own, and the letter of the right one."""
    choices = dice.shuffled(texts)
    return choices, LETTERS[choices.index(right)]
