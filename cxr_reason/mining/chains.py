"""A chain of reasoning: what to look at and why, what is seen, and the answer that follows.

Plan, observations and conclusion are made from the findings of one reading. An observation says only what a span of
the report states, with its hedge, its bound and no more; what would be seen if something were there stands in the plan.
A denial rests on a statement about the finding itself (`stated`) or about its region (`region`), which the sentence
then gives too. Silence is never worded as an observation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cxr_reason.mining import wording
from cxr_reason.mining.dice import Dice
from cxr_reason.mining.language import CONCLUSIONS, MANNERS, PLANS, REGIONS
from cxr_reason.mining.wording import Details, Phrase
from cxr_reason.radiology import LEXICON, Finding

Step = dict[str, Any]

# An abnormal film's chain ends with a few things that it doesn't show, a normal one's has nothing else.
NEGATIVES_BESIDE = 2
NEGATIVES_ALONE = 7
TOGETHER = 3  # findings denied in one sentence


@dataclass(slots=True)
class Sight:
    """One finding, on one side, as the whole report tells it."""

    details: Details
    status: str
    certainty: str
    alternatives: list[str]
    spans: list[list[int]]
    change: str | None
    claim: dict[str, Any]
    """What a sentence made from `details` claims."""

    @property
    def name(self) -> str:
        return self.details.name


class Ground(NamedTuple):
    """Why a finding may be said to be absent: by a statement about itself, about its region, or by silence."""

    basis: str
    sight: Sight | None
    """The statement; None for silence."""


def plan(dice: Dice, task: str, names: Sequence[str], said: Phrase | None = None) -> Step:
    """What to look at for `names`, and what would give them away. `said` is the finding that a question asks about."""
    if task == "anomaly":
        return {"text": dice.pick(PLANS["anomaly"]), "kind": "plan"}
    wanted = {MANNERS[name].region for name in names}
    regions = [region for region in REGIONS if region in wanted]
    if task == "binary":
        first = dice.pick(REGIONS[regions[0]].look)
        sign = MANNERS[names[0]].sign
        return {"text": f"{first} {sign}" if sign else first, "kind": "plan"}
    if task == "temporal":
        assert said is not None
        return {"text": wording.fill(dice.pick(PLANS["temporal"]), said), "kind": "plan"}
    places = wording.listed([REGIONS[region].place for region in regions], "and")
    text = dice.pick(PLANS[task]).format(places=places)
    sign = MANNERS[dice.pick(names)].sign
    return {"text": f"{text} {sign}" if sign and task == "single" else text, "kind": "plan"}


def see(dice: Dice, sights: Sequence[Sight]) -> list[Step]:
    """One step for each thing that is there or suspected; findings that compete with each other share theirs."""
    steps = []
    told: set[int] = set()
    for number, sight in enumerate(sights):
        if number in told:
            continue
        rivals = [sight]
        if sight.certainty == "differential" and sight.alternatives:
            for other in range(number + 1, len(sights)):
                if sights[other].certainty == "differential" and sights[other].name in sight.alternatives:
                    rivals.append(sights[other])
                    told.add(other)
        if len(rivals) > 1:
            rivals.sort(key=lambda rival: rival.details.side is not None)  # a side is read on to what follows it
            text = dice.sentence(wording.versus(tuple(rival.details for rival in rivals)))
        elif sight.status == "present":
            says = wording.present if sight.certainty == "definite" else wording.borderline
            text = dice.sentence(says(sight.details))
        else:
            text = dice.sentence(wording.hedged(sight.details, sight.certainty))
        steps.append(_observation(text, [rival.claim for rival in rivals], "stated", rivals))
    return steps


def deny(dice: Dice, names: Iterable[str], grounds: Mapping[str, Ground]) -> list[Step]:
    """Steps that deny findings: a sentence for those that are denied by name, one for each region that speaks for more.

    Denials by silence give no step: nobody has looked.
    """
    by_region: dict[int, tuple[Sight, list[str]]] = {}
    alone: list[Sight] = []
    for name in names:
        basis, sight = grounds[name]
        if sight is None:
            continue
        if basis == "stated":
            alone.append(sight)
        else:
            by_region.setdefault(id(sight), (sight, []))[1].append(name)
    steps = absences(dice, alone)
    for sight, denied in by_region.values():
        text = dice.sentence(wording.absent(sight.details)).removesuffix(".")
        nouns = wording.listed([wording.phrase(Details(name), False).text for name in denied])
        so = "with no" if LEXICON.is_region(sight.name) else "and so no"
        claims = [sight.claim, *(wording.claim(Details(name), "absent", "definite") for name in denied)]
        steps.append(_observation(f"{text}, {so} {nouns}.", claims, "region", [sight]))
    return steps


def infer(dice: Dice, name: str) -> Step:
    """A step that infers the absence of `name` from silence."""
    claim = wording.claim(Details(name), "absent", "probable")
    return _observation(dice.sentence(wording.not_suggested(name)), [claim], "silent", ())


def absences(dice: Dice, sights: Sequence[Sight]) -> list[Step]:
    """Steps that give the report's own denials, with their bounds; plain ones are put together in one sentence."""
    steps = []
    plain: list[Sight] = []
    for sight in sights:
        details = sight.details
        manner = MANNERS[details.name]
        if manner.absent or details != Details(details.name) or manner.article == "plural":
            steps.append(_observation(dice.sentence(wording.absent(details)), [sight.claim], "stated", [sight]))
        else:
            plain.append(sight)
    for start in range(0, len(plain), TOGETHER):
        some = plain[start : start + TOGETHER]
        text = dice.sentence(wording.none_of(tuple(sight.name for sight in some)))
        steps.append(_observation(text, [sight.claim for sight in some], "stated", some))
    return steps


def change(dice: Dice, sights: Sequence[Sight]) -> list[Step]:
    """Steps that say how a finding has changed, on each of its sides."""
    steps = []
    for sight in sights:
        assert sight.change is not None
        bare = Details(sight.name, side=sight.details.side, site=sight.details.site, several=sight.details.several)
        claim = wording.claim(bare, sight.status, sight.certainty) | {"change": sight.change}
        steps.append(_observation(dice.sentence(wording.changed(bare, sight.change)), [claim], "stated", [sight]))
    return steps


def on_film(dice: Dice, sights: Sequence[Sight], film: str) -> list[Step]:
    """Steps that say what one of two films shows, "prior" or "current": what is there, or what is denied."""
    steps = []
    for sight in sights:
        details = sight.details._replace(tip=None)
        there = sight.status == "present"
        kind = f"{'before' if film == 'prior' else 'now'}_{'present' if there else 'absent'}"
        text = dice.sentence(wording.on_film(details, kind, article=there))
        steps.append(_observation(text, [sight.claim], "stated", [sight], film=film))
    return steps


def resolved(dice: Dice, gone: Sequence[Finding]) -> list[Step]:
    """Steps that say that something has gone."""
    steps = []
    for found in gone:
        bare = Details(found.name, side=found.side)
        claim = wording.claim(bare, "absent", "definite") | {"change": "resolved", "time": "resolved"}
        text = dice.sentence(wording.changed(bare, "resolved"))
        told: Step = {"text": text, "kind": "observe", "findings": [claim]}
        steps.append(told | {"basis": "stated", "evidence": [found.span]})
    return steps


def conclude(dice: Dice, kind: str, answer: str, letter: str = "", said: Phrase | None = None, **claims: Any) -> Step:
    """The answer. `said` is the finding that it is about, `claims` may give `findings` and their `basis`."""
    template = dice.pick(CONCLUSIONS[kind])
    text = (
        wording.fill(template, said, letter=letter, answer=answer)
        if said is not None
        else template.format(letter=letter, answer=answer)
    )
    return {"text": text, "kind": "conclude", **claims}


def _observation(
    text: str, claims: list[dict[str, Any]], basis: str, sights: Sequence[Sight], *, film: str = "current"
) -> Step:
    spans = sorted(span for sight in sights for span in sight.spans)
    of = {"film": film} if film == "prior" else {}
    return {"text": text, "kind": "observe", **of, "findings": claims, "basis": basis, "evidence": spans}
