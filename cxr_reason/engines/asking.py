"""Conversations with a language model, many at once, so that the engine is never idle while one of them is thought of.

A conversation (`Talk`) is a generator: it yields the prompts that it wants answered together, is sent a `Reply` for
each, and returns what came of it. `Asker.through` holds one with the model for each unit of a run, `together` several
as one. The engine gets one stream of prompts, in which a conversation's next question stands as soon as it is asked.

    def told(record) -> Talk[str]:
        [reply] = yield [Prompt(...)]
        return reply.text
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, Literal, TypeVar

from cxr_reason import console
from cxr_reason.engines import forms
from cxr_reason.engines.base import Completion, Engine, Prompt, Sampling
from cxr_reason.engines.cache import Cache
from cxr_reason.errors import CxrError
from cxr_reason.runner import Result

UNITS_AHEAD = 512
"""Units under way at once: more than engines take prompts at a time, so that follow-up questions wait in a queue."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model wrote to one prompt, or in `error` why there is nothing, without a word of the prompt."""

    text: str = ""
    end: Literal["stop", "length"] = "stop"
    prompt_tokens: int = 0
    tokens: int = 0
    error: str | None = None


Talk = Generator[list[Prompt], list[Reply], T]


def together(talks: Sequence[Talk[T]]) -> Talk[list[T]]:
    """`talks` side by side as one, which returns what each returned."""
    told: list[Any] = [None] * len(talks)
    asked: dict[int, list[Prompt]] = {}
    replies: dict[int, list[Reply]] = {}
    going = list(range(len(talks)))
    while going:
        for number in going:
            try:
                talk = talks[number]
                asked[number] = talk.send(replies[number]) if number in replies else next(talk)
            except StopIteration as end:
                told[number] = end.value
                asked.pop(number, None)
        going = sorted(asked)
        if going:
            answers = iter((yield [prompt for number in going for prompt in asked[number]]))
            replies = {number: [next(answers) for _ in asked[number]] for number in going}
    return told


class Asker:
    """Who asks a model, with a cache before it. `close` it.

    `load` makes the engine, once something is to be asked that the cache doesn't know. `identity` is what engine
    and model are, for the cache and for a run's `config`: the same identity, prompt and sampling give the same answer.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        *,
        model: str,
        identity: str,
        sampling: Sampling,
        cache: Cache | None = None,
        ahead: int = UNITS_AHEAD,
    ) -> None:
        assert sampling.n == 1
        self.model = model
        self.sampling = sampling
        self.identity: dict[str, Any] = {"model": model, "engine": identity, "sampling": asdict(sampling)}
        self.ahead = ahead
        self._load = load
        self._cache = cache
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._load()
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def through(self, units: Iterator[U], work: Callable[[U], Talk[Result]]) -> Iterator[Result | Exception]:
        """For each of `units` what its conversation came to, in their order: `runner.run`'s work `in_stream`.

        To the counts of each result are added those of its calls (`CALLS`). A conversation that breaks down gives its
        exception; CxrError ends the run.
        """
        yield from _Stream(self, units, work).results()

    # For _Stream

    def key(self, prompt: Prompt) -> str:
        """What decides the answer to `prompt`, as a hash. Whose prompt it is counts only where answers are drawn."""
        assert not prompt.images, "films are not part of the key"
        told = [
            self.identity,
            [[message.role, message.text] for message in prompt.messages],
            prompt.schema,
            prompt.key if self.sampling.temperature else "",
        ]
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=20).hexdigest()

    def known(self, key: str) -> Reply | None:
        told = self._cache.get(key) if self._cache else None
        try:
            return Reply(**told) if told else None
        except TypeError:
            return None

    def keep(self, key: str, reply: Reply) -> None:
        if self._cache and reply.error is None:
            self._cache.put(key, {name: getattr(reply, name) for name in ("text", "end", "prompt_tokens", "tokens")})


CALLS = ("calls", "retries", "cached", "prompt tokens", "tokens")
"""Counts of a result, under ``llm/``: prompts, those that ask once more, those answered by the cache or by the answer
to an equal prompt, and the tokens of all but these."""


@dataclass(slots=True, eq=False)
class _Open:
    """A conversation under way."""

    talk: Talk[Result]
    replies: list[Reply | None] = field(default_factory=list)
    missing: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    result: Result | Exception | None = None


class _Stream:
    """The conversations of one run. Units are taken, and answered, in the thread that asks for results."""

    def __init__(self, asker: Asker, units: Iterator[Any], work: Callable[[Any], Talk[Result]]) -> None:
        self.asker = asker
        self.units = units
        self.work = work
        self.exhausted = False
        self.open: deque[_Open] = deque()
        self.queue: deque[tuple[str, Prompt]] = deque()
        self.sent: deque[str] = deque()
        self.waiting: dict[str, list[tuple[_Open, int]]] = {}
        """Who waits for the answer to which prompt; equal prompts are asked once."""

    def results(self) -> Iterator[Result | Exception]:
        while not self.exhausted or self.open:
            prompts = self.prompts()
            # The engine is made only for a prompt that the cache can't answer.
            first = next(prompts, None)
            if first is not None:
                for completion in self.asker.engine.complete(chain([first], prompts), self.asker.sampling):
                    self.settle(completion)
                    yield from self.finished()
                assert not self.sent, "an answer was owed"
            yield from self.finished()

    def prompts(self) -> Iterator[Prompt]:
        """What is to be asked by now: the next questions of conversations under way, else those of new ones."""
        while True:
            if self.queue:
                key, prompt = self.queue.popleft()
                self.sent.append(key)
                yield prompt
            elif len(self.open) < self.asker.ahead and not self.exhausted:
                unit = next(self.units, None)
                if unit is None:
                    self.exhausted = True
                else:
                    self.start(unit)
            else:
                return

    def start(self, unit: Any) -> None:
        conversation = _Open(self.work(unit))
        self.open.append(conversation)
        self.go_on(conversation, first=True)

    def go_on(self, conversation: _Open, *, first: bool = False) -> None:
        """Let it speak until it waits for an answer that nobody knows, or ends."""
        while not conversation.missing:
            try:
                talk = conversation.talk
                asked = next(talk) if first else talk.send([reply for reply in conversation.replies if reply])
            except StopIteration as end:
                conversation.result = _with_counts(end.value, conversation.counts)
                return
            except CxrError:
                raise
            except Exception as error:
                conversation.result = error
                return
            first = False
            self.ask(conversation, asked)

    def ask(self, conversation: _Open, prompts: Sequence[Prompt]) -> None:
        conversation.replies = [None] * len(prompts)
        conversation.counts["llm/calls"] += len(prompts)
        conversation.counts["llm/retries"] += sum(map(forms.is_again, prompts))
        for place, prompt in enumerate(prompts):
            key = self.asker.key(prompt)
            if (others := self.waiting.get(key)) is not None:
                conversation.counts["llm/cached"] += 1
                others.append((conversation, place))
                conversation.missing += 1
            elif (reply := self.asker.known(key)) is not None:
                conversation.counts["llm/cached"] += 1
                conversation.replies[place] = reply
            else:
                self.waiting[key] = [(conversation, place)]
                self.queue.append((key, prompt))
                conversation.missing += 1

    def settle(self, completion: Completion) -> None:
        key = self.sent.popleft()
        reply = _reply(completion)
        self.asker.keep(key, reply)
        who = self.waiting.pop(key)
        who[0][0].counts.update({"llm/prompt tokens": reply.prompt_tokens, "llm/tokens": reply.tokens})
        for conversation, place in who:
            conversation.replies[place] = reply
            conversation.missing -= 1
            if not conversation.missing:
                self.go_on(conversation)

    def finished(self) -> Iterator[Result | Exception]:
        while self.open and self.open[0].result is not None:
            result = self.open.popleft().result
            assert result is not None
            yield result


def _reply(completion: Completion) -> Reply:
    tokens = completion.prompt_tokens, completion.tokens
    if completion.error is not None or not completion.texts:
        return Reply("", "stop", *tokens, error=completion.error or "The model gave no answer.")
    return Reply(completion.texts[0], completion.ends[0], *tokens)


def _with_counts(result: Result, counts: Counter[str]) -> Result:
    result.counts = {**counts, **result.counts}
    return result


def tell(counts: Mapping[str, int]) -> None:
    """On stderr what a run asked the model, and what it cost."""
    told = {name: counts.get(f"llm/{name}", 0) for name in CALLS}
    if told["calls"]:
        console.note(
            f"language model: {told['calls']:,} calls, {told['retries']:,} of them retries, {told['cached']:,} "
            f"answered before; {told['prompt tokens']:,} tokens read, {told['tokens']:,} written"
        )
