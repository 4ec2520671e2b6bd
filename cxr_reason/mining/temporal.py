"""How has it changed? Questions about two films of a patient, and why there are none.

The answer is the report's own word for this finding ("has decreased"), the same on all of its sides. Where it has
none, two reports tell by what each states: two grades that don't overlap, the same word of degree twice, or presence
after a denial and a denial after presence. Anything less gives no question: hedges, denials within a bound, sides that
differ, a word that the two reports contradict, a comparison with another film, a heart that was taken PA and then AP.
Every reason is counted, once a study (`miner`) or once a finding (`questions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

from cxr_reason import courses
from cxr_reason.courses import Course
from cxr_reason.mining import chains, wording
from cxr_reason.mining.chains import Sight, Step
from cxr_reason.mining.dice import Dice
from cxr_reason.mining.language import FINE_GRADES, LASTING, MANNERS, QUESTIONS, VIEWS
from cxr_reason.mining.priors import Compared
from cxr_reason.mining.sights import as_sights, mentions_of
from cxr_reason.mining.tasks import Options, Question, lettered
from cxr_reason.mining.views import Told, sentence_of
from cxr_reason.mining.wording import Details
from cxr_reason.radiology import LEXICON, Finding
from cxr_reason.radiology.mentions import sides_meet
from cxr_reason.radiology.places import same_place

UNTOLD = "nothing tells how it changed"
HEDGED = "it is only suspected, in one of the reports or in both"
CONFLICT = "one of the reports contradicts itself about it"
BOUNDED = "it is denied within a bound only"
MIXED = "its sides went different ways"
ONE_SIDE = "a change is told of one side only"
OTHER_PLACE = "the reports speak of different sides or places"
OVERLAP = "the grades overlap, or their words differ"
LASTS = "it doesn't come and go"
CONTRADICTED = "the report's word for the change and what the two reports state don't agree"
TECHNIQUE = "it looks otherwise with another technique, and the films differ in it"
OTHER_FILM = "its sentence compares with another film than the prior"

ANSWERS = {"improved": "Improved", "stable": "Stable", "worse": "Worse"}
# A nodule of another size by less than this may be the same: half of all readers differ by more.
SAME_SIZE = 1.25


class Change(NamedTuple):
    """How one finding changed, and what tells so."""

    answer: str
    """A key of `ANSWERS`."""
    by: str | None
    """ "word" where the report says it, else as `courses.Course` has it."""
    before: Sequence[Sight]
    """What the report before states of it."""
    now: Sequence[Sight]
    gone: Sequence[Finding]
    """What the report calls resolved."""


def questions(
    study: int,
    now: Told,
    before: Told | None,
    options: Options,
    *,
    compared: Compared | None = None,
    days: Sequence[date] = (),
) -> tuple[list[Question], Counter[str]]:
    """The questions about two films, and for how many findings there is none, by reason.

    `before` is None where the report of the prior isn't known: then only the report's own words count. `compared` is
    what the report compares with and `days` the prior's. One finding is asked about; without thinning out, all are.
    """
    reasons: Counter[str] = Counter()
    found: dict[str, Change] = {}
    for name in _candidates(now, before):
        change = _change(name, now, before)
        if isinstance(change, Change):
            change = _hindered(name, change, now, before, compared, days) or change
        if isinstance(change, Change):
            found[name] = change
        else:
            reasons[change] += 1
    if not found:
        return [], reasons
    if not options.thinned:
        return [_question(Dice(study, "temporal", name), name, change) for name, change in found.items()], reasons
    dice = Dice(study, "temporal")
    name = dice.pick(list(found))
    return [_question(dice, name, found[name])], reasons


# ------------------------------------------------------------------------------------------------------ what changed


def _candidates(now: Told, before: Told | None) -> list[str]:
    """What may have changed: what is there, or was, and is spoken of now. In the order in which a film is read."""
    names = dict.fromkeys(sight.name for sight in now.view.seen)
    names |= dict.fromkeys(found.name for found in now.reading.findings if found.time == "resolved")
    spoken = {sight.name for sight in now.view.suspected}
    names |= dict.fromkeys(sight.name for sight in now.view.suspected if sight.change)
    names |= dict.fromkeys(fact.name for fact in now.reading.facts() if fact.conflict)
    if before is not None:
        spoken |= {fact.name for fact in now.reading.facts() if fact.status == "absent" and fact.time == "current"}
        names |= dict.fromkeys(sight.name for sight in before.view.seen if sight.name in spoken)
    return [name for name in names if MANNERS[name].asked and not MANNERS[name].device]


def _change(name: str, now: Told, before: Told | None) -> Change | str:
    """How `name` changed, or why that can't be said."""
    facts = [fact for fact in now.reading.facts() if fact.name == name]
    if any(fact.conflict for fact in facts):
        return CONFLICT
    seen = [sight for sight in now.view.seen if sight.name == name]
    gone = [fact for fact in facts if fact.time == "resolved"]
    hedged = any(sight.name == name for sight in now.view.suspected)
    if hedged or any(sight.certainty != "definite" for sight in seen):
        return HEDGED
    word = _word(seen, gone)
    if before is None:
        return word if not isinstance(word, Course) else Change(word.answer, "word", (), seen, gone)
    earlier = [fact for fact in before.reading.facts() if fact.name == name and fact.time == "current"]
    there = [sight for sight in before.view.seen if sight.name == name]
    suspected = any(sight.name == name for sight in before.view.suspected)
    if suspected or any(fact.conflict for fact in earlier) or any(sight.certainty != "definite" for sight in there):
        there, told_before = [], []
    else:
        told_before = [*there, *_denials(name, before)]
    told_now = [*seen, *([] if seen else _denials(name, now))]
    films = courses.course(map(_finding, told_before), map(_finding, told_now))
    if isinstance(word, Course):
        denied = bool(told_before) and not there
        if _disagree(word, films, seen, gone, there, denied=denied) or _sizes(there, seen) not in (None, word.answer):
            return CONTRADICTED
        shown = told_before if word.by == "appeared" else [sight for sight in there if _meets(sight, seen, gone)]
        return Change(word.answer, "word", shown, seen, gone)
    if word is not UNTOLD:
        return word
    if films is None:
        return _why_untold(earlier, there, seen, facts)
    if films.by in ("appeared", "gone") and (name in LASTING or any(_old(sight) for sight in seen or there)):
        return LASTS
    if films.answer == "stable" and not _same_words(there, seen, before, now):
        return OVERLAP
    if _sizes(there, seen) not in (None, films.answer):
        return CONTRADICTED
    return Change(films.answer, films.by, told_before, told_now, ())


def _word(seen: Sequence[Sight], gone: Sequence[Finding]) -> Course | str:
    """The course by the report's own words, the same on all sides; else why there is none, `UNTOLD` for no word."""
    told = [courses.OF_CHANGE.get(sight.change or "") for sight in seen] + ["improved"] * len(gone)
    words = set(told) - {None}
    if not words:
        return UNTOLD
    if len(words) > 1 or (seen and gone):
        return MIXED
    if None in told:
        return ONE_SIDE
    answer = told[0]
    assert answer is not None
    new = bool(seen) and all(sight.change == "new" for sight in seen)
    return Course(answer, "gone" if gone else "appeared" if new else None)


def _disagree(
    word: Course,
    films: Course | None,
    seen: Sequence[Sight],
    gone: Sequence[Finding],
    there: Sequence[Sight],
    *,
    denied: bool,
) -> bool:
    """Whether the report's word for the change can't be true of what the two reports state."""
    if films is not None and films.answer != "stable" and films.answer != word.answer:
        return True
    if denied and (gone or word.answer != "worse"):
        return True
    return word.by == "appeared" and any(_meets(sight, seen, ()) for sight in there)


def _meets(sight: Sight, seen: Sequence[Sight], gone: Sequence[Finding]) -> bool:
    """Whether what was there may be what the report now speaks of: a side and a place in common."""
    places = [(other.details.side, other.details.site) for other in seen] + [(fact.side, fact.site) for fact in gone]
    own = sight.details
    return any(sides_meet(own.side, side) and same_place(own.site, site) for side, site in places)


def _why_untold(
    earlier: Sequence[Finding], there: Sequence[Sight], seen: Sequence[Sight], facts: Sequence[Finding]
) -> str:
    if any(fact.conflict for fact in earlier):
        return CONFLICT
    if any(fact.status == "uncertain" or fact.certainty != "definite" for fact in (*earlier, *facts)):
        return HEDGED
    if any(fact.status == "absent" and fact.bound for fact in (*earlier, *facts)):
        return BOUNDED
    if there and seen:
        sides = {sight.details.side for sight in there}
        if sides != {sight.details.side for sight in seen} or not any(_meets(sight, seen, ()) for sight in there):
            return OTHER_PLACE
        if all(sight.details.severity for sight in (*there, *seen)):
            return OVERLAP if len(seen) == 1 else MIXED
    return UNTOLD


def _denials(name: str, told: Told) -> list[Sight]:
    """Plain denials of the finding by its name, where nothing of its kind is there or suspected.

    What merely goes with it may be there: effusions outlast the edema that "no edema" denies.
    """
    facts = told.reading.facts()
    line = LEXICON.ancestors(name) | LEXICON.descendants(name)
    if any(fact.name in line and fact.status != "absent" for fact in facts if fact.time == "current"):
        return []
    plain = [
        fact
        for fact in facts
        if (fact.name, fact.status, fact.time, fact.certainty) == (name, "absent", "current", "definite")
        and not (fact.bound or fact.site or fact.conflict)
    ]
    return as_sights(plain, told.reading, mentions_of(told.reading))


def _finding(sight: Sight) -> Finding:
    """A sight as a statement to be compared."""
    details = sight.details
    return Finding(
        details.name,
        None,
        sight.status,
        certainty=sight.certainty,
        bound=details.bound,
        side=details.side,
        site=details.site,
        severity=details.severity,
    )


def _old(sight: Sight) -> bool:
    return sight.details.acuity in ("old", "chronic") or sight.details.calcified


def _same_words(there: Iterable[Sight], seen: Iterable[Sight], before: Told, now: Told) -> bool:
    """Whether both reports grade a finding in words of the same degree: "tiny" and "small" are both mild."""
    grades = [
        {grade for sight in sights for span in sight.spans for grade in _grades(sentence_of(told.reading, span))}
        for sights, told in ((there, before), (seen, now))
    ]
    return grades[0] == grades[1]


def _grades(sentence: str) -> Iterable[int]:
    words = sentence.replace(",", " ").replace(".", " ").split()
    return (FINE_GRADES[word] for word in words if word in FINE_GRADES)


def _sizes(there: Sequence[Sight], seen: Sequence[Sight]) -> str | None:
    """What two measurements of one thing say of its course; None where there aren't two."""
    if len(there) != 1 or len(seen) != 1:
        return None
    before, now = (wording.millimeters(sight.details.size) for sight in (there[0], seen[0]))
    if not before or not now:
        return None
    return "worse" if now > before * SAME_SIZE else "improved" if before > now * SAME_SIZE else None


def _hindered(
    name: str, change: Change, now: Told, before: Told | None, compared: Compared | None, days: Sequence[date]
) -> str | None:
    """Why a change that is told isn't asked about: other technique, another film."""
    spans = [span for sight in change.now for span in sight.spans] + [found.span for found in change.gone]
    if name in VIEWS.technical:
        differ = before is not None and now.films.differ(before.films)
        if differ or any(VIEWS.technique_words.search(sentence_of(now.reading, span)) for span in spans):
            return TECHNIQUE
    if compared is not None and compared.apart(spans, days):
        return OTHER_FILM
    return None


# ------------------------------------------------------------------------------------------------------ the question


def _question(dice: Dice, name: str, change: Change) -> Question:
    answer = ANSWERS[change.answer]
    sights = change.now if change.now and change.now[0].status == "present" else change.before
    details = Details(name)
    if change.gone:
        details = Details(name, side=change.gone[0].side if len(change.gone) == 1 else None)
    elif len(sights) == 1:
        details = Details(name, side=sights[0].details.side, several=sights[0].details.several)
    bare = wording.phrase(details, article=False)
    choices, letter = lettered(dice, list(ANSWERS.values()), answer)
    steps = [
        chains.plan(dice, "temporal", [name], wording.Phrase(f"the {bare.text}", bare.plural)),
        *_shown(dice, change),
        chains.conclude(dice, _kind(change), answer, letter),
    ]
    question = wording.fill(dice.pick(QUESTIONS["temporal"]), bare)
    return Question("temporal", name, question, choices, letter, steps, change.answer)


def _shown(dice: Dice, change: Change) -> list[Step]:
    """What each film shows, and the change where the report has a word for it."""
    if change.by != "word":
        return [*chains.on_film(dice, change.before, "prior"), *chains.on_film(dice, change.now, "current")]
    graded = [sight for sight in change.now if sight.details.severity]
    steps = chains.on_film(dice, change.before, "prior")
    if change.before and len(graded) == len(change.now):
        steps += chains.on_film(dice, graded, "current")
    return steps + chains.change(dice, change.now) + chains.resolved(dice, change.gone)


def _kind(change: Change) -> str:
    """Which conclusion fits."""
    if change.by in ("appeared", "gone"):
        return change.by
    if change.gone:
        return "gone"
    if change.by == "word" and all(sight.change == "new" for sight in change.now):
        return "appeared"
    return change.answer
