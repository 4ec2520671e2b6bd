"""Chains of reasoning by a language model (`--backend llm`), in three calls, each of them checked.

1. *plan*: where to look and what would be seen there. The model gets the question alone; a plan that says what is seen
   is refused.
2. *evidence*: what the report says that bears on the question, statement by statement. Each is held against the report
   by the checks of `refining.checks`.
3. *chain*: plan, observations and conclusion, written from the statements that held and the answer. The chain passes
   all checks, `verify` on each claim among them.

What fails is asked for again with the faults named, `Writer.tries` times a call; of a chain that still has some, what
the checks could mend is kept, and the rest is refused with its reasons. Question and answer are never the model's.

In the paper (arXiv 2504.20930) the first call sees report and answer, and nothing is checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from cxr_reason import console, records
from cxr_reason.engines import asking, forms, schemas
from cxr_reason.engines.asking import Asker, Talk, together
from cxr_reason.engines.base import Prompt
from cxr_reason.radiology.verify import Silence
from cxr_reason.refining import answers, study
from cxr_reason.refining.chain import Chain, Judge, NotAChain, Problem
from cxr_reason.refining.checks import CHECKS, judge
from cxr_reason.refining.rewrite import WHY, passage
from cxr_reason.runner import Reject, Result, StreamWork, Unit
from cxr_reason.streams import Group, Row

OnFailure = Literal["reject", "rules"]

FORMS = forms.load(__package__)
# What statements have to hold, and that the answer follows from them; the rest of the checks is about whole chains.
_OF_STATEMENTS = ("mask", "leak", "prior", "history", "advice", "claims", "invented", "conclusion")
_OF_CHAINS = tuple(name for name in CHECKS if name != "duplicate")  # which takes all chains of a study


@dataclass(frozen=True, slots=True)
class Writer:
    """All that decides a chain but the record and the model."""

    tries: int = 3
    """How often each call is made until its answer holds."""
    on_failure: OnFailure = "reject"
    """What becomes of a question whose chain doesn't hold: "rules" leaves it the chain that it came with."""
    silence: Silence = "normal"
    max_steps: int = 24
    max_chars: int = 6000

    def as_dict(self) -> dict[str, Any]:
        """For `records.config_hash`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"prompts": forms.fingerprint(FORMS)}


@dataclass(slots=True)
class Written:
    """What came of one record: a `chain` that holds, or the `problems` of the last try and its `steps`."""

    chain: Chain | None
    problems: list[Problem]
    """Of a chain that holds, what was mended."""
    steps: list[dict[str, str]]

    @property
    def counts(self) -> dict[str, int]:
        """Under ``llm/``, for a run's summary."""
        counts = {"llm/chains": 1}
        if self.chain is None:
            return counts | {f"llm/failed/{self.problems[-1].check}": 1}
        return counts | {f"llm/mended/{name}": 1 for name in {problem.check for problem in self.problems}}

    def reject(self, record: Mapping[str, Any], stage: str, line: int | None = None) -> Reject:
        reasons = [problem.as_reason() for problem in self.problems]
        identity = record.get("id")
        last = {**record, "steps": self.steps} if self.steps else record
        return Reject(None if identity is None else str(identity), stage, reasons, last, line)


def write(
    record: Mapping[str, Any], judges: dict[str, Judge], writer: Writer, *, rewrites: bool = False
) -> Talk[Written]:
    """A chain for a record with question, answer and report. `judges` keeps the reports that were read.

    With `rewrites` the steps that the record has are told anew, as far as they hold: where the answer follows from
    those, only the last call is needed.
    """
    try:
        return (yield from _Author(record, judges, writer, rewrites=rewrites).write())
    except _Refused as refused:
        return Written(None, refused.problems, refused.steps)


class _Look(NamedTuple):
    """What was made of an answer, what is wrong with it, and the texts that the problems' steps mean."""

    made: Any
    problems: list[Problem]
    texts: Sequence[str]

    @property
    def fatal(self) -> bool:
        return bool(self.problems) and self.problems[-1].fatal


class _Refused(Exception):
    """No answer held, however often it was asked for."""

    def __init__(self, problems: list[Problem], steps: list[dict[str, str]]) -> None:
        self.problems = problems
        self.steps = steps


class _Author:
    """Who asks the three calls for one record."""

    def __init__(self, record: Mapping[str, Any], judges: dict[str, Judge], writer: Writer, *, rewrites: bool) -> None:
        self.record = record
        self.judges = judges
        self.writer = writer
        self.rewrites = rewrites
        self.two_films = record.get("task") == "temporal" and isinstance(record.get("prior_report"), str)

    def write(self) -> Talk[Written]:
        # Reads the report, or tells why it can't be used.
        given = self.given = self.chain([{"text": "…", "kind": "observe"}])
        asked = {"question": given.question, "options": _options(given.options)}
        plan, evidence = self.brought() if self.rewrites else ([], [])
        plan = plan or (yield from self.plan(asked))
        evidence = evidence or (yield from self.evidence(asked, plan))
        prompt = self.filled(
            "chain",
            **asked,
            plan=plan,
            evidence=[("On the film before: " if "film" in told else "") + told["text"] for told in evidence],
            answer=_answer(given),
        )
        look = yield from self.until(prompt, self.judged)
        if look.fatal:
            raise _Refused(look.problems, look.made.record["steps"])
        return Written(look.made, look.problems, look.made.record["steps"])

    def brought(self) -> tuple[list[str], list[dict[str, str]]]:
        """Plan and statements of the chain that the record came with, mended; neither where it can't be kept."""
        try:
            chain = self.chain(self.record.get("steps") or self.record.get("reason_steps") or [])
        except _Refused:
            return [], []
        problems = judge(chain, checks=_OF_CHAINS)
        if problems and problems[-1].fatal:
            return [], []
        return [step.passage.text for step in chain.of_kind("plan")], _statements(chain)

    def plan(self, asked: Mapping[str, str]) -> Talk[list[str]]:
        """The sentences of a plan that say nothing of what is seen."""
        look = yield from self.until(self.filled("plan", **asked), self.planned)
        if not look.made:
            raise _Refused([*look.problems, Problem("plan", "No sentence of its plan can be kept.", fatal=True)], [])
        return list(dict.fromkeys(look.made))

    def evidence(self, asked: Mapping[str, str], plan: list[str]) -> Talk[list[dict[str, str]]]:
        """Statements that the report bears out and that the answer follows from."""
        before: Sequence[str] = ()
        if self.two_films:
            before = _evidence_of(self.read(self.record["prior_report"]))
        prompt = self.filled("evidence", **asked, plan=plan, report=_evidence_of(self.given.judge), prior_report=before)
        look = yield from self.until(prompt, self.stated)
        if look.fatal:
            raise _Refused(look.problems, [{"text": text, "kind": "observe"} for text in look.texts])
        statements: list[dict[str, str]] = look.made
        return statements

    # What is made of an answer

    def planned(self, answer: Mapping[str, Any]) -> _Look:
        texts: list[str] = answer["plan"]
        faults = [self.fault_of_plan(text) for text in texts]
        problems = [Problem("plan", f"Step {n} {fault}.", n) for n, fault in enumerate(faults, 1) if fault]
        return _Look([text for text, fault in zip(texts, faults, strict=True) if not fault], problems, texts)

    def fault_of_plan(self, text: str) -> str | None:
        said = passage(text)[1]
        if said.claims:
            return "says what is seen, which nobody knows yet: say only where to look and what would be seen there"
        if said.masked:
            return "holds a mask"
        allowed = {"prior"} if self.record.get("task") == "temporal" else set()
        return next((WHY[kind] for kind in sorted(said.talk - allowed)), None)

    def stated(self, answer: Mapping[str, Any]) -> _Look:
        steps = [_observation(told) for told in answer["evidence"]]
        if not steps:
            silent = answers.rests_on_silence(self.given)
            nothing = Problem("degenerate", "It lists nothing that is seen.", fatal=True)
            return _Look([], [] if silent else [nothing], ())
        chain = self.chain(steps)
        problems = judge(chain, checks=_OF_STATEMENTS)
        return _Look(_statements(chain), problems, [step["text"] for step in steps])

    def judged(self, answer: Mapping[str, Any]) -> _Look:
        steps = [
            {"text": answer["plan"], "kind": "plan"},
            *map(_observation, answer["observations"]),
            {"text": answer["conclusion"], "kind": "conclude"},
        ]
        chain = self.chain(steps)
        return _Look(chain, judge(chain, checks=_OF_CHAINS), [step["text"] for step in steps])

    # How it is asked

    def until(self, prompt: Prompt, look: Callable[[Any], _Look]) -> Talk[_Look]:
        """Ask until `look` finds no problem: the last look of those that found least. Raises _Refused where no answer
        was usable.
        """
        schema = prompt.schema or {}
        first, best, fault = prompt, None, ""
        for _ in range(self.writer.tries):
            [reply] = yield [prompt]
            if reply.error is not None:
                raise _Refused([Problem("llm", f"The model gave no answer: {reply.error}", fatal=True)], [])
            try:
                if reply.end == "length":
                    raise schemas.Unusable("It was too long and broke off: write less.")
                seen = look(schemas.value_of(reply.text, schema))
            except schemas.Unusable as unusable:
                fault = str(unusable)
                following = forms.again(first, None, [fault])
            else:
                if best is None or best.fatal or not seen.fatal:
                    best = seen
                if not seen.problems:
                    break
                faults = [_named(problem, seen.texts) for problem in seen.problems]
                following = forms.again(first, reply.text, faults)
            if following == prompt:  # the same question would have the same answer
                break
            prompt = following
        if best is None:
            raise _Refused([Problem("llm", f"None of the model's answers can be used. {fault}", fatal=True)], [])
        return best

    def filled(self, name: str, **slots: str | Sequence[str]) -> Prompt:
        """The prompt of a form. Of two films it has all its parts, and statements say of which they are."""
        form, key = FORMS[name], f"{self.record.get('id')}/{name}"
        if not self.two_films:
            return form.filled(slots, key=key)
        return form.filled(slots, key=key, parts=form.parts, schema=_with_film(form.schema))

    def chain(self, steps: list[dict[str, str]]) -> Chain:
        writer = self.writer
        limits: dict[str, Any] = {"max_steps": writer.max_steps, "max_chars": writer.max_chars}
        try:
            return Chain.of({**self.record, "steps": steps}, self.judges, silence=writer.silence, **limits)
        except NotAChain as error:
            raise _Refused([Problem("record", str(error), fatal=True)], steps) from None

    def read(self, report: str) -> Judge:
        if report not in self.judges:
            self.judges[report] = Judge(report, silence=self.writer.silence)
        return self.judges[report]


def _observation(told: Mapping[str, str]) -> dict[str, str]:
    """A statement as a step of a chain."""
    return {"text": told["text"], "kind": "observe"} | ({"film": "prior"} if told.get("film") == "prior" else {})


def _statements(chain: Chain) -> list[dict[str, str]]:
    """The observations of a chain, as they are now."""
    return [
        {"text": step.passage.text} | ({"film": "prior"} if step.prior else {}) for step in chain.of_kind("observe")
    ]


def _named(problem: Problem, texts: Sequence[str]) -> str:
    """`problem` as the model is told of it: with the statement instead of its number, and without what became of it."""
    message = problem.message
    for what_became in (" It was dropped.", " The words were taken out."):
        message = message.removesuffix(what_became)
    if problem.step is None:
        return message
    statement = f"“{texts[problem.step - 1]}”"
    number = f"Step {problem.step} "
    return f"{statement} {message.removeprefix(number)}" if message.startswith(number) else f"{statement}: {message}"


def _evidence_of(judge: Judge) -> list[str]:
    """The sentences of a report that are evidence: indication, history and technique are not shown to the model."""
    told = judge.reading.sentences
    return [judge.report[sentence.start : sentence.end] for sentence in told if sentence.evidence]


def _options(options: Sequence[str]) -> str:
    lettered = (f"{records.letter(number)}: {' '.join(option.split())}" for number, option in enumerate(options))
    return "\n".join(lettered) or "(none: the answer is a short text)"


def _answer(chain: Chain) -> str:
    """The answer as a conclusion gives it: "B, Yes"."""
    return chain.answer_text if chain.right is None else f"{records.letter(chain.right)}, {chain.answer_text}"


def _with_film(own: Mapping[str, Any]) -> Mapping[str, Any]:
    """A form's schema, its statements saying of which film they are."""
    schema: dict[str, Any] = deepcopy(dict(own))
    for part in schema["properties"].values():
        statement = part.get("items", {})
        if statement.get("type") != "object":
            continue
        statement["properties"] = {"film": {"type": "string", "enum": ["current", "prior"]}, **statement["properties"]}
        statement["required"] = ["film", *statement["required"]]
    return schema


# ----------------------------------------------------------------------------------------------------------- refining


def refining(asker: Asker, writer: Writer, finish: Callable[[Unit], Result]) -> StreamWork:
    """The work of `cxr refine --backend llm`, for `runner.run` with ``in_stream``; see `refined`."""
    config = records.config_hash(asker.identity | writer.as_dict())
    work = partial(refined, writer=writer, model=asker.model, config=config, finish=finish)
    return partial(asker.through, work=work)


def refined(unit: Unit, *, writer: Writer, model: str, config: str, finish: Callable[[Unit], Result]) -> Talk[Result]:
    """Have the chains of `unit` told anew, and let `finish`, which is `study.refine` with its options, judge them.

    A chain that this model wrote under the same `config` is left as it is, so that a second run changes nothing.
    """
    rows = unit.rows if isinstance(unit, Group) else [unit]
    entry = provenance(study.STAGE, model=model, config=config)
    fresh = [row for row in rows if entry not in (_data(row).get("provenance") or ())]
    judges: dict[str, Judge] = {}
    talks = [write(_data(row), judges, writer, rewrites=True) for row in fresh]
    written = dict(zip(map(id, fresh), (yield from together(talks)), strict=True))
    kept: list[Row] = []
    rejects: list[Reject] = []
    counts: Counter[str] = Counter()
    for row in rows:
        came = written.get(id(row))
        counts.update(came.counts if came else {})
        if came is None or (came.chain is None and writer.on_failure == "rules"):
            kept.append(row)
        elif came.chain is None:
            rejects.append(came.reject(_data(row), study.STAGE, row.line))
            counts[f"rejected/{came.problems[-1].check}"] += 1
        else:
            record = {**_data(row), "steps": came.chain.as_steps()}
            kept.append(replace(row, data={**record, "provenance": [*(record.get("provenance") or ()), entry]}))
    result = Result()
    if kept:
        result = finish(replace(unit, rows=kept) if isinstance(unit, Group) else kept[0])
    result.rejects = [*rejects, *result.rejects]
    result.counts = Counter(result.counts) + counts
    return result


def tell(counts: Mapping[str, int]) -> None:
    """On stderr, what became of the chains that the model was asked for, and what that cost."""
    if not (chains := counts.get("llm/chains", 0)):
        return
    failed = {key.removeprefix("llm/failed/"): number for key, number in counts.items() if "llm/failed/" in key}
    mended = {key.removeprefix("llm/mended/"): number for key, number in counts.items() if "llm/mended/" in key}
    if names := sorted(failed.keys() | mended.keys(), key=lambda name: (-failed.get(name, 0), name)):
        rows: list[tuple[str, int, int]] = [(name, mended.get(name, 0), failed.get(name, 0)) for name in names]
        console.table("What the checks found in the model's last tries", ["check", "mended", "failed"], rows)
    console.note(f"{chains:,} chains asked of the language model, {sum(failed.values()):,} of them failed")
    asking.tell(counts)


def provenance(stage: str, *, model: str, config: str, **policies: str) -> dict[str, str]:
    """What is noted of a chain by a language model."""
    stamped: dict[str, Any] = {}
    entry: dict[str, str] = records.stamp(stamped, stage=stage, config=config, backend="llm", model=model, **policies)[
        "provenance"
    ][0]
    return entry


def _data(row: Row) -> dict[str, Any]:
    assert row.data is not None
    return row.data
