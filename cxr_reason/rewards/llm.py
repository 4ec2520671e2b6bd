"""The `llm` judge: what a language model makes of a prediction; the answer and the lists that it judges are the rules'.

Three calls, independent of each other (``prompts.toml``): each claim of the prediction against the report; each finding
that the reference chain speaks of against the prediction; each step of the prediction against the reference chain. A
claim is `stated` where the model names sentences of the report for its verdict, else `silent`.

A call whose answer can't be used is made again, `tries` times in all; where one stays without a usable answer the item
isn't judged: a shape that wasn't met says nothing of a prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_reason.engines import forms, schemas
from cxr_reason.engines.asking import Talk, together
from cxr_reason.engines.base import Prompt
from cxr_reason.radiology import read
from cxr_reason.radiology.verify import Silence
from cxr_reason.records import VERDICTS
from cxr_reason.rewards import prose
from cxr_reason.rewards.ratios import ratios, unjudged
from cxr_reason.rewards.rules import judge_by_rules

FORMS = forms.load(__package__)
STATES = ("told", "opposite", "named", "missed")
RELATIONS = ("supported", "contradicted", "unrelated")

_NOTHING: dict[str, Any] = {}


def judge_as_told(record: Mapping[str, Any], *, silence: Silence = "normal", told: Mapping[str, Any]) -> dict[str, Any]:
    """What came of `judging` the record; a judge is no conversation itself, so whoever runs it holds that first."""
    return dict(told)


def judging(record: Mapping[str, Any], *, silence: Silence = "normal", tries: int = 3) -> Talk[dict[str, Any]]:
    """A conversation with a language model that comes to the fields of a details line, as other judges give them."""
    line = judge_by_rules(record, silence=silence)
    if line["factuality"] is None:
        return line
    topics = [
        topic for topic in line["topics"] if topic["finding"] not in {one["finding"] for one in line["reference"]}
    ]
    calls = [_claims(record, line, silence), _reference(record, line, topics), _steps(record, line)]
    told = yield from together([_asked(prompt, tries) for prompt in calls])
    if any(answer is None for answer in told):
        unknown = [{**step, "effective": None} for step in line["steps"]]
        return {**line, **unjudged(), "claims": [], "reference": [], "topics": [], "steps": unknown}
    verdicts, states, relations = (_in_order(answer or {}) for answer in told)
    sentences = _sentences(record)
    told_of = dict(zip((claim["id"] for claim in _of_this_film(line)), verdicts, strict=True))
    claims = [
        _judged(claim, told_of[claim["id"]], sentences) if claim["id"] in told_of else claim for claim in line["claims"]
    ]
    known, others = states[: len(line["reference"])], states[len(line["reference"]) :]
    reference = [{**one, "state": state} for one, state in zip(line["reference"], known, strict=True)]
    named = {one["finding"] for one in reference if one["state"] != "missed"}
    named |= {topic["finding"] for topic, state in zip(topics, others, strict=True) if state != "missed"}
    topics = [{**topic, "named": topic["finding"] in named} for topic in line["topics"]]
    steps = [
        {**step, "effective": relation == "supported"} for step, relation in zip(line["steps"], relations, strict=True)
    ]
    scores = ratios(claims, reference, topics, steps)
    return {**line, **scores, "claims": claims, "reference": reference, "topics": topics, "steps": steps}


def _asked(prompt: Prompt | None, tries: int) -> Talk[dict[str, Any] | None]:
    """The answer to `prompt`, {} where there is nothing to ask, None where none can be used."""
    if prompt is None:
        return _NOTHING
    first, schema = prompt, prompt.schema or {}
    for _ in range(tries):
        [reply] = yield [prompt]
        if reply.error is not None:
            return None
        try:
            if reply.end == "length":
                raise schemas.Unusable("It was too long and broke off.")
            answer: dict[str, Any] = schemas.value_of(reply.text, schema)
        except schemas.Unusable as unusable:
            following = forms.again(first, None, [str(unusable)])
            if following == prompt:  # the same question would have the same answer
                return None
            prompt = following
        else:
            return answer
    return None


# -------------------------------------------------------------------------------------------------------------- calls


def _of_this_film(line: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The claims that the model is asked about: those of the film before stay the rules', by its own report."""
    return [claim for claim in line["claims"] if claim.get("film") != "prior"]


def _claims(record: Mapping[str, Any], line: Mapping[str, Any], silence: Silence) -> Prompt | None:
    texts = [claim["text"] for claim in _of_this_film(line)]
    report = [record["report"][start:end] for start, end in _sentences(record)]
    of_sentence = {"type": "integer", "minimum": 1, "maximum": max(len(report), 1)}
    verdict = {
        "type": "object",
        "required": ["verdict", "sentences"],
        "properties": {
            "verdict": {"type": "string", "enum": list(VERDICTS)},
            "sentences": {"type": "array", "minItems": 0, "maxItems": 8, "items": of_sentence},
        },
    }
    return _prompt(record, "claims", texts, verdict, parts=(silence,), report=report, claims=texts)


def _reference(
    record: Mapping[str, Any], line: Mapping[str, Any], topics: Sequence[Mapping[str, Any]]
) -> Prompt | None:
    texts = [_in_words(one) for one in line["reference"]] + [topic["finding"] for topic in topics]
    reasoning = prose.parts(record["prediction"])[0]
    state = {"type": "string", "enum": list(STATES)}
    return _prompt(record, "reference", texts, state, reasoning=reasoning, findings=texts)


def _steps(record: Mapping[str, Any], line: Mapping[str, Any]) -> Prompt | None:
    texts = [step["text"] for step in line["steps"]]
    good = [str(step["text"] if isinstance(step, Mapping) else step) for step in record["steps"]]
    relation = {"type": "string", "enum": list(RELATIONS)}
    return _prompt(record, "steps", texts, relation, reference=good, steps=texts)


def _prompt(
    record: Mapping[str, Any],
    name: str,
    items: Sequence[str],
    judgement: Mapping[str, Any],
    *,
    parts: Sequence[str] = (),
    **slots: str | Sequence[str],
) -> Prompt | None:
    """The prompt of a form, its schema wanting a `judgement` on each of the `items`; None where there are none."""
    if not items:
        return None
    numbers = [str(number) for number in range(1, len(items) + 1)]
    schema = {"type": "object", "required": numbers, "properties": dict.fromkeys(numbers, judgement)}
    return FORMS[name].filled(slots, key=f"{record.get('id')}/{name}", schema=schema, parts=parts)


def _in_order(answer: Mapping[str, Any]) -> list[Any]:
    return [answer[str(number)] for number in range(1, len(answer) + 1)]


def _in_words(finding: Mapping[str, Any]) -> str:
    place = f", {finding['side']}" if finding["side"] else ""
    return f"{finding['finding']}{place}: {finding['status']}"


def _sentences(record: Mapping[str, Any]) -> list[list[int]]:
    """The spans of the report's sentences that are evidence."""
    return [[sentence.start, sentence.end] for sentence in read(record["report"]).sentences if sentence.evidence]


def _judged(claim: Mapping[str, Any], told: Mapping[str, Any], sentences: Sequence[list[int]]) -> dict[str, Any]:
    spans = [sentences[number - 1] for number in sorted(set(told["sentences"]))] if sentences else []
    return {**claim, "verdict": told["verdict"], "basis": "stated" if spans else "silent", "spans": spans}
