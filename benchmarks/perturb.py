"""Chains of reasoning that are wrong in known ways, made from mined records: for robustness.py and for the examples.

    python benchmarks/perturb.py        # writes examples/predictions.jsonl and examples/predictions-hasty.jsonl again

A chain is a list of findings in our own words, a sentence each. A perturbation changes one finding (or the wording, or
the order) and gives pairs: the chain before and after.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_reason.radiology import LEXICON
from cxr_reason.streams import stable_hash

Claim = Mapping[str, Any]
Pair = tuple[list[str], list[str]]
"""The sentences of a chain before and after."""

COUNTERPART = {"left": "right", "right": "left"}
OTHER_GRADE = {"mild": "severe", "moderate": "severe", "severe": "mild"}
OTHER_COURSE = {"better": "worse", "worse": "better", "stable": "worse", "new": "stable"}
INVENTED = (
    "pneumothorax", "pleural effusion", "lung mass", "pulmonary edema", "rib fracture", "cardiomegaly", "lung nodule",
)  # fmt: skip
PADDING = (
    "I will look at the film step by step.",
    "A chest radiograph is a projection, so structures overlap.",
    "It is important to compare both sides carefully.",
    "Let me now think about what this means for the question.",
)

# How a finding is told: present, absent, uncertain. The first is how chains are told, the others say the same.
STYLES: tuple[dict[str, str], ...] = (
    {
        "present": "There is {a} {it}.",
        "absent": "There is no {it}.",
        "probable": "There is probably {a} {it}.",
        "possible": "There may be {a} {it}.",
    },
    {
        "present": "{A} {it} is present.",
        "absent": "No {it} is identified.",
        "probable": "Probable {it}.",
        "possible": "Possible {it}.",
    },
    {
        "present": "The film shows {a} {it}.",
        "absent": "I see no evidence of {it}.",
        "probable": "{A} {it} is likely.",
        "possible": "{A} {it} is possible.",
    },
    {
        "present": "Looking closely, {a} {it} can be seen.",
        "absent": "There are no signs of {it}.",
        "probable": "This most likely represents {a} {it}.",
        "possible": "{A} {it} cannot be excluded.",
    },
)
COURSES = {
    "better": "The {it} has decreased.",
    "worse": "The {it} has increased.",
    "stable": "The {it} is unchanged.",
    "new": "There is a new {it}.",
}


def tell(claim: Claim, style: int = 0) -> str:
    """`claim` as a sentence."""
    entry = LEXICON.findings[claim["name"]]
    words = [claim.get("bound"), (claim.get("severity") or "").replace("-", " to "), claim.get("side")]
    it = " ".join(filter(None, [*words, entry.noun or claim["name"]]))
    grade = claim["status"] if claim["status"] != "uncertain" else claim.get("certainty", "possible")
    sentence = STYLES[style][{"differential": "possible", "definite": "possible"}.get(grade, grade)]
    article = "" if entry.article in ("", "plural") or claim.get("side") == "bilateral" else _article(it)
    told = " ".join(sentence.format(a=article, A=article.capitalize(), it=it).split())
    return told[:1].upper() + told[1:]


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def observed(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the reference chain of `record` observes, each finding of a side once."""
    found: dict[Any, dict[str, Any]] = {}
    for step in record["steps"]:
        if step["kind"] == "observe" and step.get("film") != "prior":
            for claim in step.get("findings") or ():
                found.setdefault((claim["name"], claim.get("side")), _bare(claim))
    return list(found.values())


def _bare(claim: Claim) -> dict[str, Any]:
    """A claim without what the sentences of `STYLES` don't tell."""
    return {
        name: claim[name] for name in ("name", "status", "certainty", "bound", "severity", "side") if claim.get(name)
    }


def tells(claims: Sequence[Claim], style: int = 0) -> list[str]:
    return [tell(claim, style) for claim in claims]


# ------------------------------------------------------------------------------------------------------ perturbations


def _changed(
    claims: Sequence[Claim], change: Callable[[Claim], Claim | None], extra: Sequence[Claim] = ()
) -> Iterator[Pair]:
    """A pair for each of `claims` (and of `extra`, told beside them) that `change` makes something else of."""
    for claim in (*claims, *extra):
        other = change(claim)
        if other is not None:
            own = claims if any(one is claim for one in claims) else (*claims, claim)
            yield tells(own), [tell(other if one is claim else one) for one in own]


def negation(record: Mapping[str, Any]) -> Iterator[Pair]:
    def flip(claim: Claim) -> Claim | None:
        if claim["status"] == "uncertain" or claim.get("bound"):
            return None
        return {**claim, "status": "absent" if claim["status"] == "present" else "present"}

    yield from _changed(observed(record), flip)


def side(record: Mapping[str, Any]) -> Iterator[Pair]:
    def flip(claim: Claim) -> Claim | None:
        other = COUNTERPART.get(claim.get("side") or "")
        return {**claim, "side": other} if other and claim["status"] != "absent" else None

    yield from _changed(observed(record), flip)


def severity(record: Mapping[str, Any]) -> Iterator[Pair]:
    def flip(claim: Claim) -> Claim | None:
        other = OTHER_GRADE.get(claim.get("severity") or "")
        return {**claim, "severity": other} if other and claim["status"] == "present" else None

    yield from _changed(observed(record), flip)


def certainty(record: Mapping[str, Any]) -> Iterator[Pair]:
    """A hedge told as a fact."""

    def flip(claim: Claim) -> Claim | None:
        return {**claim, "status": "present", "certainty": "definite"} if claim["status"] == "uncertain" else None

    yield from _changed(observed(record), flip, _others(record, lambda told: told["status"] == "uncertain"))


def bound(record: Mapping[str, Any]) -> Iterator[Pair]:
    """A bounded denial told without its bound."""

    def flip(claim: Claim) -> Claim | None:
        return {**claim, "bound": None} if claim.get("bound") and claim["status"] == "absent" else None

    yield from _changed(observed(record), flip, _others(record, lambda told: bool(told.get("bound"))))


def time(record: Mapping[str, Any]) -> Iterator[Pair]:
    """What has resolved told as there, and a course told the other way."""
    claims = observed(record)
    for told in record["findings"]:
        claim = _bare(told)
        it = " ".join(filter(None, [claim.get("side"), LEXICON.findings[claim["name"]].noun or claim["name"]]))
        own = tells([one for one in claims if (one["name"], one.get("side")) != (claim["name"], claim.get("side"))])
        if told.get("time") == "resolved":
            yield [*own, f"The {it} has resolved."], [*own, tell({**claim, "status": "present"})]
        elif told["status"] == "present" and told.get("change") in OTHER_COURSE and not told.get("device"):
            yield (
                [*own, COURSES[told["change"]].format(it=it)],
                [*own, COURSES[OTHER_COURSE[told["change"]]].format(it=it)],
            )


def device_event(record: Mapping[str, Any]) -> Iterator[Pair]:
    """A device that was taken out told as there, and one that is there as taken out."""
    claims = observed(record)
    for told in record["findings"]:
        if not told.get("device") or told["status"] == "uncertain":
            continue
        claim = _bare(told)
        it = LEXICON.findings[claim["name"]].noun or claim["name"]
        own = tells([one for one in claims if one["name"] != claim["name"]])
        there, gone = tell({**claim, "status": "present"}), f"The {it} has been removed."
        if told["device"].get("event") == "removed":
            yield [*own, gone], [*own, there]
        elif told["status"] == "present":
            yield [*own, there], [*own, gone]


def _others(record: Mapping[str, Any], wanted: Callable[[Claim], bool]) -> list[dict[str, Any]]:
    """Findings of the report that the reference chain doesn't tell."""
    known = {claim["name"] for claim in observed(record)}
    own: dict[str, dict[str, Any]] = {}
    for told in record["findings"]:
        if wanted(told) and not told.get("time") and not told.get("conflict") and told["name"] not in known:
            own.setdefault(told["name"], _bare(told))
    return list(own.values())


def dropped(record: Mapping[str, Any]) -> Iterator[Pair]:
    """A finding left out."""
    claims = observed(record)
    if len(claims) > 1:
        for place in range(len(claims)):
            yield tells(claims), tells(claims[:place] + claims[place + 1 :])


def added(record: Mapping[str, Any]) -> Iterator[Pair]:
    """A finding that isn't there."""
    named = {told["name"] for told in record["findings"]}
    for name in INVENTED:
        if not any(name == other or LEXICON.related(name, other) for other in named):
            own = tells(observed(record))
            yield own, [*own, tell({"name": name, "status": "present"})]
            return


def paraphrase(record: Mapping[str, Any]) -> Iterator[Pair]:
    """The same in other words."""
    claims = observed(record)
    if claims:
        for style in range(1, len(STYLES)):
            yield tells(claims), tells(claims, style)


def padding(record: Mapping[str, Any]) -> Iterator[Pair]:
    """Sentences that say nothing of the film between the others."""
    own = tells(observed(record))
    if own:
        yield own, [PADDING[0], PADDING[1], *own[:1], PADDING[2], *own[1:], PADDING[3]]


def shuffle(record: Mapping[str, Any]) -> Iterator[Pair]:
    """Another order."""
    own = tells(observed(record))
    if len(own) > 1:
        yield own, sorted(own, key=lambda sentence: stable_hash("shuffle", record["id"], sentence))


FLIPS: dict[str, Callable[[Mapping[str, Any]], Iterator[Pair]]] = {
    "negation flipped": negation,
    "side flipped": side,
    "severity flipped": severity,
    "hedge told as fact": certainty,
    "bound left out": bound,
    "time or course flipped": time,
    "device event flipped": device_event,
    "finding dropped": dropped,
    "false finding added": added,
}
HARMLESS: dict[str, Callable[[Mapping[str, Any]], Iterator[Pair]]] = {
    "paraphrase": paraphrase,
    "padding": padding,
    "shuffle": shuffle,
}


def prediction(sentences: Sequence[str], answer: str) -> str:
    """A prediction as a model writes it."""
    return "<think>" + "\n\n".join(sentences) + f"</think><answer>{answer}</answer>"


# -------------------------------------------------------------------------------------------------- two made-up models

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MODELS = {"careful": 0.06, "hasty": 0.22}
"""How often each of two made-up models errs at a finding."""
KEPT = ("id", "study_id", "patient_id", "task", "question", "options", "answer", "report", "prior_report")
CHOSEN = 72


def chains(reports: Path) -> list[dict[str, Any]]:
    """Mined and refined records of `reports`, with the columns that scores may be told by."""
    cxr = [sys.executable, "-m", "cxr_reason"]
    mined = subprocess.run([*cxr, "mine", "-q", str(reports), "--open-ended"], capture_output=True, check=True)
    refined = subprocess.run([*cxr, "refine", "-q"], input=mined.stdout, capture_output=True, check=True)
    with open(reports, encoding="utf-8", newline="") as file:
        about = {row["study_id"]: row for row in csv.DictReader(file)}
    records = [json.loads(line) for line in refined.stdout.splitlines()]
    return [{**record, **{name: about[record["study_id"]][name] for name in ("sex", "view")}} for record in records]


class Whim:
    """Choices of a made-up model at one record: a function of both."""

    def __init__(self, *about: object) -> None:
        self.about = about
        self.asked = 0

    def number(self) -> float:
        """In [0, 1)."""
        self.asked += 1
        return stable_hash("whim", self.asked, *self.about) / 2**64

    def one_of(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.number() * len(choices))]


def reasoned(record: Mapping[str, Any], model: str) -> dict[str, Any]:
    """`record` as a model answered it that errs at some of its findings."""
    whim, rate = Whim(record["id"], model), MODELS[model]
    style = whim.one_of(range(len(STYLES)))
    said = [tell(_slip(claim, whim) if whim.number() < rate else claim, style) for claim in observed(record)]
    said = [sentence for sentence in said if whim.number() >= rate / 2]
    if whim.number() < rate:
        named = {told["name"] for told in record["findings"]}
        free = [n for n in INVENTED if not any(n == other or LEXICON.related(n, other) for other in named)]
        said += [tell({"name": whim.one_of(free), "status": "present"}, style)] if free else []
    if whim.number() < 0.3:
        said.insert(0, whim.one_of(PADDING))
    answer = record["answer"]
    if whim.number() < 1.5 * rate:
        letters = [chr(65 + number) for number in range(len(record["options"] or ()))]
        answer = whim.one_of([letter for letter in letters if letter != answer] or ["No finding"])
    kept = {name: record[name] for name in KEPT if name in record}
    steps = [{name: step[name] for name in ("text", "kind", "film") if name in step} for step in record["steps"]]
    told = prediction(said, answer)
    if whim.number() < rate / 2:
        told = " ".join([*said, "I can't tell from this film."])
    elif record["options"] and whim.number() < 0.15:
        told = " ".join([*said, f"Therefore the answer is {answer}."])
    about = {name: record[name] for name in ("sex", "view") if record[name]}
    return {**kept, **about, "steps": steps, "prediction": told, "model": model}


def _slip(claim: Claim, whim: Whim) -> Claim:
    """What a model that errs makes of a finding."""
    if claim["status"] == "uncertain":
        return {**claim, "status": "present", "certainty": "definite"}
    if claim.get("side") in COUNTERPART and whim.number() < 0.5:
        return {**claim, "side": COUNTERPART[claim["side"]]}
    if claim.get("severity") in OTHER_GRADE and whim.number() < 0.5:
        return {**claim, "severity": OTHER_GRADE[claim["severity"]]}
    return {**claim, "status": "absent" if claim["status"] == "present" else "present"}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    records = sorted(chains(EXAMPLES / "reports.csv"), key=lambda record: stable_hash("chosen", record["id"]))
    chosen = {record["id"] for record in records[:CHOSEN]}
    for model in MODELS:
        name = "predictions.jsonl" if model == "careful" else f"predictions-{model}.jsonl"
        lines = [
            json.dumps(reasoned(record, model), ensure_ascii=False, separators=(",", ":")) + "\n"
            for record in sorted(records, key=lambda record: record["id"])
            if record["id"] in chosen
        ]
        (EXAMPLES / name).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
