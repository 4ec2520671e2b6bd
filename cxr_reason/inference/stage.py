"""Inference as the runner sees it: records with questions in, records with predictions out, in the same order.

Films are read ahead by threads, prompts go to the engine as it asks for them, and what it has completed is written at
once: nobody waits for a batch. An item that can't be asked is rejected by name, and the others go on.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_reason import console, engines, radrbench, records, runner
from cxr_reason.engines import prompts
from cxr_reason.engines.base import Completion, Prompt, Sampling
from cxr_reason.errors import TooManyFailures
from cxr_reason.films import FilmError, Films
from cxr_reason.films.ahead import ahead
from cxr_reason.inference import blind as blinding
from cxr_reason.inference import voting
from cxr_reason.streams import Input, Row, folder_of, with_id

if TYPE_CHECKING:
    from PIL.Image import Image

STAGE = "infer"
READERS = 4
"""Threads that read films, at most."""
SAVE_SECONDS = 0.2
"""A completion may have cost minutes of a GPU: it waits no longer than this until it is saved."""
# What was said of an earlier prediction.
_OF_ANOTHER = frozenset(
    {name for name, known in records.FIELDS.items() if known.stages in (("infer",), ("score",))}
    | {name for name in radrbench.JUDGEMENTS if name != "gt_key_finding"}
)
# Rejections that are no judgement of the question: too many of them are a failure of the run.
BROKEN = ("film", "engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is asked, and what becomes of it."""

    think: bool = True
    instruction: str | None = None
    vote: bool = False
    blind: str | None = None
    """One of `blind.BLIND`."""
    reports: bool = True
    """Whether the reports stay in the records."""


@dataclass(slots=True)
class _Item:
    """One row on its way: with a prompt, or with the reject that became of it."""

    record: dict[str, Any]
    prompt: Prompt | None = None
    reject: runner.Reject | None = None


@dataclass(slots=True)
class Pace:
    """How long loading took, and what was written since, in how long. In seconds."""

    loading: float = 0.0
    started: float = 0.0
    taken: float = 0.0
    tokens: int = 0

    def add(self, tokens: int) -> None:
        self.tokens += tokens
        self.taken = time.monotonic() - self.started


def infer(
    source: Input,
    plan: engines.Plan,
    *,
    films: Films,
    sampling: Sampling,
    settings: Settings,
    max_failed: float = 0.05,
    dry_run: bool = False,
    **stream: Any,
) -> tuple[runner.Summary, Pace]:
    """Answer the questions of `source` by the engine of `plan`; `stream` is the rest of `runner.run`.

    With `dry_run` no model is loaded: questions and films are looked at.
    Gives the counts and the pace. Raises TooManyFailures where more than `max_failed` of the rows had films that can't
    be used or were refused by the engine, when all else is written.
    """
    shuffle = None
    if settings.blind == "shuffle":
        assert source.path is not None
        shuffle = blinding.Shuffle(
            radrbench.records_of(Input(source.path, formats=("jsonl",)).rows()), seed=sampling.seed
        )
    config = {
        "model": plan.model,
        "engine": plan.identity,
        "sampling": asdict(sampling),
        "settings": asdict(settings),
        "wording": [prompts.THINK, prompts.ANSWER],
        "max_pixels": films.max_pixels,
        "image_root": str(films.root),
        "shuffle": shuffle and shuffle.identity,
    }
    asker = _Asker(films, folder_of(source.name, [source.path]) if source.path else None, settings, shuffle)
    answerer = _Answerer(plan.model, plan.name, records.config_hash(config), settings)
    pace = Pace()
    summary = runner.run(
        source,
        lambda rows: _work(rows, None if dry_run else plan, asker, answerer, sampling, pace),
        stage=STAGE,
        units=radrbench.records_of,
        config=config,
        in_stream=True,
        dry_run=dry_run,
        max_failed=max_failed,
        checkpoint_seconds=SAVE_SECONDS,
        rates=("tokens",),
        **stream,
    )
    broken = sum(summary.checks[check] for check in BROKEN)
    if broken > max_failed * summary.rows:
        raise TooManyFailures(
            f"{broken:,} of {summary.rows:,} questions could not be asked (allowed are {max_failed:.1%}). "
            "Everything else is written.",
            where=source.name,
            hint="--rejects FILE holds them with their reasons; --image-root says where the films lie.",
        )
    return summary, pace


def _work(
    rows: Iterator[Row], plan: engines.Plan | None, asker: _Asker, answerer: _Answerer, sampling: Sampling, pace: Pace
) -> Iterator[runner.Result]:
    waiting: deque[_Item] = deque()  # in the order of the input, from the first that isn't answered

    def asked() -> Iterator[Prompt]:
        for item in asker.items(rows):
            waiting.append(item)
            if item.prompt is not None:
                yield item.prompt

    def refused() -> Iterator[runner.Result]:
        while waiting and waiting[0].reject is not None:
            yield runner.Result(rejects=[waiting.popleft().reject])  # type: ignore[list-item]

    stream = asked()
    first = next(stream, None)
    if first is not None:
        for completion in _completions(first, stream, plan, sampling, pace):
            yield from refused()
            pace.add(completion.tokens)
            yield answerer.result(waiting.popleft(), completion)
            yield from refused()
    yield from refused()


def _completions(
    first: Prompt, rest: Iterator[Prompt], plan: engines.Plan | None, sampling: Sampling, pace: Pace
) -> Iterator[Completion]:
    def prompts() -> Iterator[Prompt]:
        yield first
        yield from rest

    if plan is None:
        yield from (Completion() for _ in prompts())
        return
    with contextlib.ExitStack() as stack:
        # Whatever libraries print is no data.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        began = time.monotonic()
        engine = plan.load()
        stack.callback(engine.close)
        pace.started = time.monotonic()
        pace.loading = pace.started - began
        yield from engine.complete(prompts(), sampling)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Rows to prompts, with their films."""

    films: Films
    base: Path | None
    settings: Settings
    shuffle: blinding.Shuffle | None

    def items(self, rows: Iterable[Row]) -> Iterator[_Item]:
        """Each row's, in order; films are read by threads, some rows ahead."""
        return ahead(self._item, rows, most=READERS)

    def _item(self, row: Row) -> _Item:
        record, told = with_id(dict(row.data or {})), self.settings
        try:
            prompt = prompts.prompt_of(record, think=told.think, instruction=told.instruction)
            images = self._images(record)
        except FilmError as error:
            console.warn(f"{row.file}:{row.line}: {error.where}: {error.what}", kind="films that can't be used")
            return _Item(record, reject=_reject(record, "film", f"{error.where}: {error.what}"))
        except _NotAsked as error:
            return _Item(record, reject=_reject(record, error.check, str(error)))
        except ValueError as error:
            return _Item(record, reject=_reject(record, "question", str(error)))
        return _Item(record, replace(prompt, images=tuple(images)))

    def _images(self, record: Mapping[str, Any]) -> Sequence[Image]:
        if not record.get("images"):
            raise _NotAsked("film", "the record names no film, so there is nothing to look at")
        if self.shuffle:
            others = self.shuffle.images_for(record)
            if others is None:
                raise _NotAsked("blind", "no other patient has as many films")
            return self._of(others)
        images = self._of(record["images"])
        return blinding.blank(images) if self.settings.blind == "blank" else images

    def _of(self, images: Sequence[Any]) -> list[Image]:
        return self.films.of({"images": radrbench.prior_first(images)}, base=self.base)


class _NotAsked(Exception):
    def __init__(self, check: str, why: str) -> None:
        super().__init__(why)
        self.check = check


def _reject(record: Mapping[str, Any], check: str, message: str) -> runner.Reject:
    return runner.Reject(record.get("id"), STAGE, [{"check": check, "message": message}], record)


@dataclass(frozen=True, slots=True)
class _Answerer:
    """Completions to records."""

    model: str
    engine: str
    config: str
    settings: Settings

    def result(self, item: _Item, completion: Completion) -> runner.Result:
        if completion.error is not None:
            return runner.Result(rejects=[_reject(item.record, "engine", completion.error)])
        if not completion.texts:  # a dry run
            return runner.Result(counts={"asked": 1})
        dropped = _OF_ANOTHER | (frozenset() if self.settings.reports else frozenset(records.REPORT_TEXT))
        record = {name: value for name, value in item.record.items() if name not in dropped}
        record |= self._prediction(record, completion)
        policies = {"blind": self.settings.blind} if self.settings.blind else {}
        records.stamp(record, stage=STAGE, config=self.config, backend=self.engine, model=self.model, **policies)
        counts = {
            "tokens": completion.tokens,
            "prompt_tokens": completion.prompt_tokens,
            "cut_off": completion.ends.count("length"),
        }
        return runner.Result(records=[record], counts=counts)

    def _prediction(self, record: Mapping[str, Any], completion: Completion) -> dict[str, Any]:
        generation: dict[str, Any] = {
            "prompt_tokens": completion.prompt_tokens,
            "tokens": completion.tokens,
            "ends": list(completion.ends),
        }
        chosen = 0
        if self.settings.vote:
            generation["votes"] = voting.answers(record, completion.texts)
            chosen = voting.elected(generation["votes"])
        told: dict[str, Any] = {"prediction": completion.texts[chosen]}
        if len(completion.texts) > 1:
            told["predictions"] = list(completion.texts)
        return told | {"model": self.model, "generation": generation}
