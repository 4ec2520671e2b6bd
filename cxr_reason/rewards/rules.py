"""The `rules` judge: one prediction against its report and its reference chain, by the engine that reads reports.

The claims of the prediction are verified against the report, silence taken as normal as the published factuality does.
The findings of the reference chain are looked up among them (`state`):

- told: with the same status, on that side, no more limited; a kind of a present finding tells it, and a denial of the
  whole region tells a denial
- opposite: only called the opposite
- named: spoken of, but less surely or on another side
- missed

`topics` are all findings that the reference chain speaks of, those included that it only looks for or explains, each
place of one apart; coverage asks whether the prediction speaks of them there at all. Whole regions ("the lungs") are
left out.

A step is effective where it speaks of a finding that the reference chain speaks of and says nothing against it. The
last step draws the conclusion, and the reference chain ends in the right answer: it is effective where the answer is
right, for open questions half right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from cxr_reason.radiology import LEXICON, Finding, Reading, Verdict, read
from cxr_reason.radiology.mentions import sides_meet
from cxr_reason.radiology.places import same_height
from cxr_reason.radiology.verify import Silence
from cxr_reason.records import index_of
from cxr_reason.rewards import prose
from cxr_reason.rewards.answers import Answer, open_ended, read_answer
from cxr_reason.rewards.options import CERTAINTY, all_entailed, asked, entails, is_a, plain, says_normal, stated
from cxr_reason.rewards.ratios import ratios, unjudged
from cxr_reason.rewards.statements import judged
from cxr_reason.streams import stable_hash

_OF_A_BATCH = 1024
"""Predictions whose answers are kept for the next reward of the same batch."""


class Examined(NamedTuple):
    """A prediction, taken apart and judged."""

    line: dict[str, Any]
    """The fields of a details line but the record's own."""
    steps: tuple[prose.Step, ...]
    """The steps of its reasoning, in order."""
    reasoning: str
    """What they were found in."""
    reference: tuple[Finding, ...]
    """The findings of the reference chain, as ``line["reference"]`` has them."""
    before: tuple[Finding, ...]
    """What the reference chain claims of the film before."""
    judged: bool
    """Whether there were a report and a reference chain to judge by."""


def judge_by_rules(record: Mapping[str, Any], *, silence: Silence = "normal") -> dict[str, Any]:
    """What the rules make of a record with a prediction: the fields of a details line but the record's own."""
    return examine(record, silence=silence).line


def examine(record: Mapping[str, Any], *, silence: Silence = "normal") -> Examined:
    """The same, with the steps and findings that it was made of."""
    prediction, report = record.get("prediction"), record.get("report")
    options, question = _texts(record.get("options")), _text(record.get("question"))
    told = prediction if isinstance(prediction, str) else ""
    answer, reasoning = read_prediction(record, told)
    steps = tuple(prose.steps(reasoning, options))
    said = _claims(steps)
    result: dict[str, Any] = {
        "chosen": answer.chosen,
        "answer_read": answer.read,
        "correct": _correct(answer, _text(record.get("answer")).strip(), options),
    }
    reading = read(report) if isinstance(report, str) else None
    chain = record.get("steps")
    if not isinstance(prediction, str) or reading is None or reading.rejection or not isinstance(chain, list):
        line = result | unjudged() | {
            "claims": [], "reference": [], "topics": [],
            "steps": [{"text": step.text, "effective": None} for step in steps],
            "supports_answer": _supports(answer, [claim for claim, _ in said], question, options),
        }  # fmt: skip
        return Examined(line, steps, reasoning, (), (), judged=False)
    key = record.get("id") or stable_hash(question, told)
    claims = [_judged(claim, step, key, reading, silence) for claim, step in said]
    if (before := _before(record)) is not None:
        earlier_claims = _claims(steps, before=True)
        claims += [_judged(claim, step, key, before, silence, film="prior") for claim, step in earlier_claims]
    found, earlier, spoken = _reference(_texts_of(chain))
    told_claims = [claim for claim, _ in said]
    reference = [_as_reference(finding, _state(finding, told_claims)) for finding in found]
    topics = _topics(spoken, steps)
    names = frozenset(topic.name for topic in spoken)
    worked = [{"text": step.text, "effective": _effective(step, found, names)} for step in steps]
    if worked:
        worked[-1]["effective"] = float(result["correct"]) >= 0.5
    line = result | ratios(claims, reference, topics, worked) | {
        "claims": claims, "reference": reference, "topics": topics, "steps": worked,
        "supports_answer": _supports(answer, told_claims, question, options),
    }  # fmt: skip
    return Examined(line, steps, reasoning, found, earlier, judged=True)


def _before(record: Mapping[str, Any]) -> Reading | None:
    """The report of the film before, read; None where there is none that could be."""
    report = record.get("prior_report")
    reading = read(report) if isinstance(report, str) else None
    return None if reading is None or reading.rejection else reading


def correctness(record: Mapping[str, Any]) -> float:
    """How right the prediction's answer is, in [0, 1]: ``correct`` of a details line, and nothing else judged."""
    told = _text(record.get("prediction"))
    return float(
        _correct(read_prediction(record, told)[0], _text(record.get("answer")).strip(), _texts(record.get("options")))
    )


def read_prediction(record: Mapping[str, Any], told: str) -> tuple[Answer, str]:
    """The answer and the reasoning of a prediction, `told`, to the question of `record`."""
    question, task = _text(record.get("question")), _text(record.get("task")) or None
    return _read_prediction(told, question, _texts(record.get("options")), task)


@lru_cache(maxsize=_OF_A_BATCH)
def _read_prediction(told: str, question: str, options: tuple[str, ...], task: str | None) -> tuple[Answer, str]:
    reasoning, tagged = prose.parts(told)
    concluding = prose.concluding(told, reasoning)
    return read_answer(concluding, tagged, question=question, options=options, task=task), reasoning


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else ()


# ------------------------------------------------------------------------------------------------------------- claims


def _claims(steps: Sequence[prose.Step], *, before: bool = False) -> list[tuple[Finding, int]]:
    """What a prediction claims, each finding of a side once, as present or as absent: told twice, the surer counts.

    `before`: of the film before.
    """
    found: dict[tuple[str, str | None, bool], tuple[Finding, int]] = {}
    for number, step in enumerate(steps):
        for claim in step.before if before else step.claims:
            key = claim.name, claim.side, claim.status == "absent"
            known = found.get(key)
            if known is None:
                found[key] = claim, number
            elif CERTAINTY[claim.certainty] > CERTAINTY[known[0].certainty]:
                found[key] = claim, known[1]
    placed = {(name, absent) for name, side, absent in found if side}
    return [told for (name, side, absent), told in found.items() if side or (name, absent) not in placed]


def _judged(
    claim: Finding, step: int, record: Any, reading: Reading, silence: Silence, *, film: str = "current"
) -> dict[str, Any]:
    """A claim of a details line, judged by the report of its film."""
    verdict = judged(claim, reading, silence)
    side_error = hedge_as_fact = False
    reported = _reported(claim, reading) if claim.status != "absent" else None
    if verdict.verdict != "supported" and claim.status == "present":
        side_error = claim.side in ("left", "right") and _elsewhere(claim, verdict, reading)
        hedge_as_fact = _suspected(claim, reading)
    prior = film == "prior"
    place = (str(record), claim.name, claim.side or "", claim.status == "absent", *(["prior"] if prior else []))
    return {
        "id": f"c{stable_hash('claim', *place):016x}",
        "text": claim_in_words(claim) + (" on the film before" if prior else ""),
        "step": step,
        **({"film": "prior"} if prior else {}),
        "finding": claim.name,
        "label": claim.label,
        "status": claim.status,
        "certainty": claim.certainty,
        "side": claim.side,
        "verdict": verdict.verdict,
        "basis": verdict.basis,
        "spans": verdict.spans,
        "reported": reported,
        "side_error": side_error,
        "hedge_as_fact": hedge_as_fact,
    }


def _reported(claim: Finding, reading: Reading) -> str | None:
    """Whether the report has the finding itself, "present" or "uncertain", whatever its side, severity or course."""
    statuses = {f.status for f in reading.facts() if f.time == "current" and is_a(f.name, claim.name)}
    return next((status for status in ("present", "uncertain") if status in statuses), None)


def _elsewhere(claim: Finding, verdict: Verdict, reading: Reading) -> bool:
    """Whether the report has the finding, on the other side only."""
    sides = {
        f.side for f in reading.facts() if f.status == "present" and f.time == "current" and is_a(f.name, claim.name)
    }
    return verdict.verdict == "contradicted" and sides == {"left" if claim.side == "right" else "right"}


def _suspected(claim: Finding, reading: Reading) -> bool:
    """Whether the report only says that the finding may be there, and the claim says that it is."""
    facts = [
        f
        for f in reading.facts()
        if f.time == "current" and is_a(f.name, claim.name) and sides_meet(f.side, claim.side)
    ]
    return any(f.status == "uncertain" for f in facts) and not any(f.status == "present" for f in facts)


def claim_in_words(claim: Finding) -> str:
    """A claim as a short text: "no left pleural effusion", "possible pneumonia"."""
    grade = {"absent": "no", "uncertain": claim.certainty.replace("differential", "possible")}.get(claim.status)
    return " ".join(filter(None, (grade, claim.bound, claim.severity, claim.side, claim.name)))


# ---------------------------------------------------------------------------------------------------------- reference


def _texts_of(chain: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    """The texts of a chain's steps, and what each claims something of: the "current" film, the "prior" one or, as a
    plan, none.
    """
    found = []
    for step in chain:
        fields: Mapping[str, Any] = step if isinstance(step, Mapping) else {"text": step}
        if isinstance(fields.get("text"), str):
            film = "prior" if fields.get("film") == "prior" else "current"
            found.append((fields["text"], "" if fields.get("kind") == "plan" else film))
    return tuple(found)


@lru_cache(maxsize=512)
def _reference(
    texts: tuple[tuple[str, str], ...],
) -> tuple[tuple[Finding, ...], tuple[Finding, ...], frozenset[prose.Topic]]:
    """The findings of a reference chain, those of the film before, and all that it speaks of, its plans included.

    Each name and side comes once; what is there goes before what isn't. Kept, since all answers to one question share
    their reference.
    """
    found: dict[tuple[str, str | None], Finding] = {}
    before: dict[tuple[str, str | None], Finding] = {}
    spoken: set[prose.Topic] = set()
    for text, film in texts:
        spoken |= prose.named_in(text)
        _take(before if film == "prior" else found, prose.claims_of(text) if film else ())
        _take(before, prose.claims_before(text) if film else ())
    return tuple(found.values()), tuple(before.values()), frozenset(spoken)


def _take(found: dict[tuple[str, str | None], Finding], claims: Sequence[Finding]) -> None:
    for claim in claims:
        key = claim.name, claim.side
        if key not in found or (found[key].status == "absent" and claim.status != "absent"):
            found[key] = claim


def _state(wanted: Finding, claims: Sequence[Finding]) -> str:
    if any(_tells(claim, wanted) for claim in claims):
        return "told"
    near = [claim for claim in claims if same_thing(claim.name, wanted.name)]
    meeting = [claim for claim in near if sides_meet(claim.side, wanted.side)]
    if meeting and all((claim.status == "absent") != (wanted.status == "absent") for claim in meeting):
        return "opposite"
    return "named" if near else "missed"


@lru_cache(maxsize=4096)
def same_thing(one: str, other: str) -> bool:
    """Whether two names may speak of one finding: one is a kind of the other, and no whole region."""
    if one == other:
        return True
    return (is_a(one, other) or is_a(other, one)) and not (LEXICON.is_region(one) or LEXICON.is_region(other))


def _tells(claim: Finding, wanted: Finding) -> bool:
    """Whether a claim tells a finding of the reference: same status, same side, and no less."""
    if claim.status != wanted.status:
        return False
    if wanted.status == "absent":
        return (
            is_a(wanted.name, claim.name)
            and claim.bound in (None, wanted.bound)
            and claim.side in (None, "bilateral", wanted.side)
        )
    return is_a(claim.name, wanted.name) and (wanted.side is None or claim.side in (wanted.side, "bilateral"))


def _as_reference(finding: Finding, state: str) -> dict[str, Any]:
    return {
        "finding": finding.name,
        "label": finding.label,
        "status": finding.status,
        "side": finding.side,
        "urgency": LEXICON.findings[finding.name].urgency,
        "state": state,
    }


def _topics(spoken: frozenset[prose.Topic], steps: Sequence[prose.Step]) -> list[dict[str, Any]]:
    """What the reference chain speaks of, and whether the prediction does."""
    told: dict[str, list[prose.Topic]] = {}
    for topic in frozenset().union(*(step.named for step in steps)):
        told.setdefault(topic.name, []).append(topic)
    special = [topic for topic in spoken if not LEXICON.is_region(topic.name)]
    ordered = sorted(special or spoken, key=lambda topic: (topic.name, topic.side or "", topic.site or ""))
    return [
        {
            "finding": topic.name,
            "side": topic.side,
            "site": topic.site,
            "named": any(_there(seen, topic) for seen in told.get(topic.name, ())),
        }
        for topic in ordered
    ]


def _there(seen: prose.Topic, topic: prose.Topic) -> bool:
    """Whether who speaks of `seen` speaks of the place of `topic`: of that side or of none, and at that height."""
    return sides_meet(seen.side, topic.side) and (topic.site is None or same_height(seen.site, topic.site))


def _effective(step: prose.Step, reference: Sequence[Finding], spoken: frozenset[str]) -> bool:
    """`spoken`: the names of all that the reference chain speaks of."""
    if all(topic.name not in spoken for topic in step.named):
        return False
    return not any(_opposes(claim, finding) for claim in step.claims for finding in reference)


def takes_back(claim: Finding, finding: Finding) -> bool:
    """Whether a claim says the opposite of a finding; "the lungs are clear" beside an opacity doesn't."""
    denied = claim if claim.status == "absent" else finding
    return _opposes(claim, finding) and (claim.name == finding.name or not LEXICON.is_region(denied.name))


def _opposes(claim: Finding, finding: Finding) -> bool:
    """Whether a claim says the opposite of a finding of the reference."""
    if (claim.status == "absent") == (finding.status == "absent") or not sides_meet(claim.side, finding.side):
        return False
    present, absent = (finding, claim) if claim.status == "absent" else (claim, finding)
    return absent.bound is None and is_a(present.name, absent.name)


# ------------------------------------------------------------------------------------------------------------- answer


@lru_cache(maxsize=_OF_A_BATCH)
def _correct(answer: Answer, wanted: str, options: tuple[str, ...]) -> bool | float:
    if options:
        return answer.read and answer.chosen == wanted
    if not answer.read or answer.chosen is None:
        return 0.0
    told = (*stated(answer.chosen), *prose.claims_of(answer.chosen)) if len(answer.chosen) < 300 else ()
    told = told or tuple(claim for step in prose.steps(answer.chosen) for claim in step.claims)
    return round(open_ended(told, wanted, says=answer.chosen), 6)


def _supports(answer: Answer, claims: Sequence[Finding], question: str, options: Sequence[str]) -> bool | None:
    """Whether the reasoning supports the answer that it ends in; None where it says nothing of it."""
    if not answer.read or answer.chosen is None or not options:
        return None
    index = index_of(answer.chosen, options)
    assert index is not None, "what was chosen is one of the options"
    option = options[index]
    word = plain(option)
    if word in ("yes", "no"):
        wanted = list(asked(question))
        if word == "no":
            wanted = [_reversed(claim) for claim in wanted]
    else:
        wanted = list(stated(option))
    if says_normal(option):
        return not any(claim.status != "absent" for claim in claims) if claims else None
    if not wanted:
        return None
    loose = [replace(claim, status="present") if claim.status == "uncertain" else claim for claim in claims]
    wanted = [
        replace(claim, severity=None, status="present" if claim.status == "uncertain" else claim.status)
        for claim in wanted
    ]
    if all_entailed(loose, wanted):
        return True
    return False if any(_denied(claim, loose) for claim in wanted) else None


def _reversed(claim: Finding) -> Finding:
    return replace(
        claim,
        status="absent" if claim.status != "absent" else "present",
        certainty="definite",
        bound=None,
        severity=None,
    )


def _denied(claim: Finding, claims: Sequence[Finding]) -> bool:
    return any(entails(seen, _reversed(claim)) for seen in claims)
