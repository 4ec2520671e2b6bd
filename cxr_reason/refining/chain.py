"""A record as the checks see it: its question, its report and its steps, whoever wrote them.

`Chain.of` takes steps as objects (ours), as plain strings, or as RadRBench's ``reason_steps``. Where kinds are missing
they are inferred: a sentence that plans or explains in general makes a plan, the last step that concludes is the
conclusion, everything else observes. What a step claims is read from its text, whatever its author says that it claims:
the text is what a model learns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from cxr_reason.radiology import Finding, Reading, Verdict, read, verify
from cxr_reason.radiology.verify import Silence
from cxr_reason.readings import sealed
from cxr_reason.records import STEP_KINDS, index_of
from cxr_reason.refining.rewrite import NUMBER, Numbering, Passage, Said, matches, passage, quoting, what_counts
from cxr_reason.rewards.options import plain, says_normal
from cxr_reason.rewards.prose import WHOLE_FILM

BASES = ("stated", "region", "silent")  # from the firmest to the least firm
DECISIONS = ("supported", "unverifiable", "contradicted")  # from the best to the worst
_THE_ANSWER = Verdict("supported", "region")
OWN_FIELDS = frozenset({"text", "kind", "film", "findings", "basis", "evidence", "verdict"})


class NotAChain(ValueError):
    """A record that can't be judged, and why: no question, no steps, no report that could be read."""


@dataclass(slots=True)
class Problem:
    """Something that a check found. `step` is the step's number in the record as it came, from 1."""

    check: str
    message: str
    step: int | None = None
    fatal: bool = False
    """Whether the chain must go; otherwise what was wrong has been mended."""

    def as_reason(self) -> dict[str, Any]:
        place = {} if self.step is None else {"step": self.step}
        return {"check": self.check, "message": self.message, **place}


class Judge:
    """One report, read once, that says of sentences whether it bears them out."""

    def __init__(self, report: str, *, reading: Reading | None = None, silence: Silence = "normal") -> None:
        self.report = report
        self.reading: Reading = reading or read(report)
        self.silence = silence
        self._known: dict[tuple[Any, ...], Verdict] = {}

    @cached_property
    def lower(self) -> str:
        """The report in lower case, its hyphens as blanks."""
        return self.report.lower().replace("-", " ")

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The figures in the report, as they stand there."""
        return frozenset(NUMBER.findall(self.report))

    def verdict(self, claim: Finding, mark: tuple[Any, ...] | None = None) -> Verdict:
        """The verdict on `claim`. Chains of one study claim the same again in other words, so verdicts are kept.

        `mark` is what counts of the claim, where that is known already.
        """
        mark = mark or what_counts(claim)
        known = self._known.get(mark)
        if known is None:
            known = self._known[mark] = verify(claim, self.reading, silence=self.silence)
        return known


@dataclass(slots=True)
class Step:
    """One step of a chain. Its sentences may get fewer or be mended (`keep`); without any it is dropped."""

    number: int
    kind: str
    passage: Passage
    given: Mapping[str, Any]
    prior: bool = False
    """Whether it says what the film before shows, so that the report before has to bear it out."""
    numbering: Numbering | None = None
    verdicts: list[Verdict] | None = None
    """On its claims, once they are known: `Chain.verdicts`."""

    @property
    def key(self) -> str:
        """Its words and the film that it is about, to tell repetitions."""
        return f"{self.passage.key} (prior)" if self.prior else self.passage.key

    def keep(self, sentences: tuple[Said, ...]) -> None:
        """Say `sentences` instead."""
        self.passage, self.verdicts = Passage(sentences), None


@dataclass(slots=True)
class Chain:
    """A question with its steps, and the judge who has read its report. The checks take steps away or mend them."""

    record: Mapping[str, Any]
    task: str
    question: str
    options: tuple[str, ...]
    answer: str
    judge: Judge
    steps: list[Step]
    max_steps: int
    max_chars: int
    policies: Mapping[str, str]
    """What mine noted as its policies in the record's provenance."""
    before: Judge | None = None
    """Who has read the report of the film before; None where there is none that could be read."""
    seen: set[Any] = field(default_factory=set)
    """What the kept chains of the same study asked and said."""

    @classmethod
    def of(
        cls,
        record: Mapping[str, Any],
        judges: dict[str, Judge],
        *,
        silence: Silence = "normal",
        max_steps: int = 24,
        max_chars: int = 6000,
        seen: set[Any] | None = None,
    ) -> Chain:
        """The chain of `record`. `judges` keeps the reports that were read, by their text. Raises NotAChain."""
        given = record.get("steps")
        if given is None:
            given = record.get("reason_steps")
        question, report, answer = record.get("question"), record.get("report"), record.get("answer")
        options = record.get("options")
        if not isinstance(question, str) or not question.strip():
            raise NotAChain("It asks no question: only records with a question and its steps can be judged.")
        if not isinstance(given, list) or not given:
            raise NotAChain("It has no steps that could be judged.")
        if not isinstance(report, str) or not report.strip():
            raise NotAChain("It has no report against which its claims could be checked.")
        if not isinstance(answer, str) or not answer.strip():
            raise NotAChain("It has no answer.")
        if options is not None and not (
            isinstance(options, list) and len(options) > 1 and all(isinstance(option, str) for option in options)
        ):
            raise NotAChain("Its options must be a list of at least two texts, or null where the question is open.")
        judge = judges.get(report)
        if judge is None:
            judge = judges[report] = Judge(report, reading=sealed(record, report), silence=silence)
        if judge.reading.rejection:
            raise NotAChain(f"Its report can't be used: {_REJECTIONS[judge.reading.rejection]}.")
        choices = tuple(options or ())
        before, prior_report = None, record.get("prior_report")
        if isinstance(prior_report, str) and any(map(_is_of_prior, given)):
            before = judges.get(prior_report)
            if before is None:
                before = judges[prior_report] = Judge(prior_report, silence=silence)
        return cls(
            record=record,
            task=str(record.get("task") or _task_of(choices)),
            question=question,
            options=choices,
            answer=answer.strip(),
            judge=judge,
            steps=_steps(given, _quotable(answer.strip(), choices)),
            max_steps=max_steps,
            max_chars=max_chars,
            policies=_policies(record.get("provenance")),
            before=None if before is None or before.reading.rejection else before,
            seen=set() if seen is None else seen,
        )

    def of_kind(self, kind: str) -> list[Step]:
        return [step for step in self.steps if step.kind == kind]

    @property
    def conclusion(self) -> Step | None:
        return self.steps[-1] if self.steps and self.steps[-1].kind == "conclude" else None

    @property
    def observed(self) -> list[Finding]:
        """What the observations of the current film claim."""
        return self._observed(prior=False)

    @property
    def observed_before(self) -> list[Finding]:
        """What the observations of the film before claim."""
        return self._observed(prior=True)

    def _observed(self, *, prior: bool) -> list[Finding]:
        steps = (step for step in self.steps if step.kind == "observe" and step.prior is prior)
        return [claim for step in steps for claim in step.passage.claims]

    def judge_of(self, step: Step) -> Judge:
        """Who has read the report that has to bear `step` out."""
        return self.before if step.prior and self.before is not None else self.judge

    def keys(self) -> dict[str, tuple[Any, ...]]:
        """What no other chain of the same study may share with this one, by what it is."""
        keys: dict[str, tuple[Any, ...]] = {
            "question": ("question", self.question, *sorted(self.options)),
            "steps": ("steps", *[step.key for step in self.steps]),
        }
        if self.record.get("id"):
            keys["id"] = ("id", self.record["id"])
        return keys

    @property
    def right(self) -> int | None:
        """Which option the answer is, by its letter or its text. None where there is no such option."""
        if len(self.answer) == 1 and self.answer.isalpha():
            return index_of(self.answer, self.options)
        wanted = plain(self.answer)
        return next((index for index, option in enumerate(self.options) if plain(option) == wanted), None)

    @property
    def answer_text(self) -> str:
        """The text of the right option, or the open answer."""
        index = self.right if self.options else None
        return self.answer if index is None else self.options[index]

    def as_counted(self, claims: Sequence[Finding]) -> Sequence[Finding]:
        """`claims` of an answer as they are meant: with mine's ``--uncertain present``, suspected is present."""
        if self.policies.get("uncertain") != "present":
            return claims
        return [
            replace(claim, status="uncertain", certainty="differential") if claim.status == "present" else claim
            for claim in claims
        ]

    def verdicts(self, step: Step) -> list[Verdict]:
        """The verdict on each claim of `step`."""
        if step.verdicts is None:
            passage = step.passage
            if step.kind == "conclude":
                step.verdicts = [self.verdict(step, claim) for claim in passage.claims]
            else:
                step.verdicts = list(map(self.judge_of(step).verdict, passage.claims, passage.marks))
        return step.verdicts

    def verdict(self, step: Step, claim: Finding) -> Verdict:
        """The verdict on `claim` of `step`.

        That the whole film is normal is no claim of a conclusion among others but its answer: whether it follows is
        not asked of single statements, but by the check of the conclusion.
        """
        if step.kind == "conclude":
            if claim.name in WHOLE_FILM and claim.status == "absent" and says_normal(self.answer_text):
                return _THE_ANSWER
            claim = self.as_counted([claim])[0]
        return self.judge_of(step).verdict(claim)

    def as_steps(self) -> list[dict[str, Any]]:
        """The steps as they are written: numbered anew, with their claims, basis, evidence and verdict."""
        return [self._written(step, number) for number, step in enumerate(self.steps, 1)]

    def _written(self, step: Step, number: int) -> dict[str, Any]:
        text = step.passage.text
        if step.numbering:
            text = step.numbering.with_number(number) + text
        written: dict[str, Any] = {"text": text, "kind": step.kind}
        if step.prior:
            written["film"] = "prior"
        if step.kind != "plan":
            written["findings"] = step.passage.as_dicts
            verdicts = self.verdicts(step)
            if verdicts:
                written["basis"] = max([verdict.basis for verdict in verdicts], key=BASES.index)
                written["evidence"] = _together([span for verdict in verdicts for span in verdict.spans])
                written["verdict"] = max([verdict.verdict for verdict in verdicts], key=DECISIONS.index)
        if not step.given.keys() <= OWN_FIELDS:
            written |= {name: value for name, value in step.given.items() if name not in OWN_FIELDS}
        return written


def _is_of_prior(step: Any) -> bool:
    return isinstance(step, dict) and step.get("film") == "prior"


def _together(spans: list[list[int]]) -> list[list[int]]:
    """`spans` in order, each once."""
    return spans if len(spans) < 2 else [list(span) for span in sorted(set(map(tuple, spans)))]


_REJECTIONS = {
    "empty": "it is empty",
    "language": "it isn't English",
    "not-chest": "it isn't about the chest",
    "not-understood": "too little of it could be understood",
    "no-finding": "it names no finding",
}
_YES_NO = frozenset({"yes", "no"})


@lru_cache(maxsize=1024)
def _task_of(options: tuple[str, ...]) -> str:
    """The task that a question with these options sets, where its record doesn't say."""
    words = {option.lower().strip(" .") for option in options}
    if not options:
        return "open"
    if words <= _YES_NO:
        return "binary"
    if any("abnormal" in word for word in words) and len(options) == 2:
        return "anomaly"
    if any(word.startswith(("improved", "better")) for word in words):
        return "temporal"
    return "single"


def _quotable(answer: str, options: tuple[str, ...]) -> str:
    """The findings of the answer, as a conclusion may quote them: the option or the open answer."""
    index = index_of(answer, options)
    text = answer if index is None else options[index]
    return text if len(text.split()) > 1 else ""  # not "Yes"


def _policies(provenance: Any) -> dict[str, str]:
    """The policies in a record's `provenance`, the first word on each counting."""
    policies: dict[str, str] = {}
    for entry in provenance if isinstance(provenance, list) else ():
        if isinstance(entry, dict):
            policies = {name: value for name, value in entry.items() if isinstance(value, str)} | policies
    return policies


def _steps(given: Iterable[Any], quotable: str) -> list[Step]:
    steps = []
    for number, entry in enumerate(given, 1):
        fields: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
        text = fields.get("text") if fields else entry
        text = text if isinstance(text, str) else ""
        kind = fields.get("kind")
        kind = kind if kind in STEP_KINDS else ""
        quotes = kind == "conclude" and quotable and quotable in text
        own, said = quoting(text, quotable) if quotes else passage(text)
        steps.append(Step(number, kind, said, fields, _is_of_prior(entry), own))
    for step in steps:
        if not step.kind:
            step.kind = _kind_of(step.passage, last=step is steps[-1])
            if step.kind == "conclude" and quotable and quotable in step.passage.text:
                step.passage = quoting(step.passage.text, quotable)[1]
    return steps


def _kind_of(said: Passage, *, last: bool) -> str:
    if last and matches("conclude", said.text):
        return "conclude"
    return "plan" if said.sentences and all(sentence.general for sentence in said.sentences) else "observe"
