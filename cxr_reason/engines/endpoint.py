"""A server that speaks OpenAI's protocol (vLLM's own, SGLang, llama.cpp, Ollama), by OpenAI's own client.

**No text leaves the building.** The server's name is resolved before anything is sent, and every address of it must be
loopback or private; redirects are not followed and proxies of the environment not used. ``--allow-remote`` is for who
may send what is asked, and its films, elsewhere. The key, where one is needed, is read from OPENAI_API_KEY alone.

A server that is away is waited for, with growing pauses, so that one that is killed and restarted in mid-run costs time
and no item.
"""

from __future__ import annotations

import asyncio
import base64
import io
import ipaddress
import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

from cxr_reason import console, engines
from cxr_reason.engines.base import Completion, Message, Prompt, Sampling, seed_of
from cxr_reason.errors import CxrError, InputError

CONCURRENCY = 32
KEY = "OPENAI_API_KEY"
PATIENCE_SECONDS = 600.0
"""How long a server may be away before the run ends."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_TIMEOUT_SECONDS = 1800.0  # of one completion; long chains on a busy server take minutes
_CONNECT_SECONDS = 10.0
_AWAY = {408, 409, 425, 429, 500, 502, 503, 504}
_ENDS_THE_RUN = {401: "asks for a key that it knows", 403: "refuses us", 404: "has no such model or path"}
_OURS = tuple(
    map(ipaddress.ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
                               "::1/128", "fc00::/7", "fe80::/10"))
)  # fmt: skip


def is_private(address: str) -> bool:
    """Whether an IP address is loopback, link-local or of a private network."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip.version == network.version and ip in network for network in _OURS)


def check_address(url: str, *, allow_remote: bool) -> None:
    """Raise InputError unless `url` can be asked, and without leave only where all its host's addresses are private."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("this is no address of a server", where=url, hint="As in http://127.0.0.1:8000/v1.")
    if parts.username or parts.password:
        raise InputError(
            "an address with a password in it gets into logs", where=parts.hostname, hint=f"Put the key into {KEY}."
        )
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    except (OSError, UnicodeError) as error:
        raise InputError("there is no such host", where=url) from error
    addresses = sorted({str(entry[4][0]) for entry in found})
    remote = [address for address in addresses if not is_private(address)]
    if remote and not allow_remote:
        raise InputError(
            f"{remote[0]} is no private address: questions, films and reports would leave your network",
            where=url,
            hint="Ask a server of your own, or add --allow-remote if the data may go there.",
        )


class EndpointEngine:
    """See `cxr_reason.engines.base.Engine`. Requests run in an event loop of its own thread, so that they can be broken
    off at once when the run ends."""

    name = "endpoint"

    def __init__(
        self, url: str, model: str, *, concurrency: int | None = None, client: Any, patience: float = PATIENCE_SECONDS
    ) -> None:
        self.model = model
        self._url = url
        self._client = client
        self._concurrency = concurrency or CONCURRENCY
        self._patience = patience
        self._free = asyncio.Semaphore(self._concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    @classmethod
    def plan(
        cls, url: str, model: str | None, *, concurrency: int | None = None, allow_remote: bool = False
    ) -> engines.Plan:
        """Check the address, and ask the server what it serves."""
        check_address(url, allow_remote=allow_remote)
        served = asyncio.run(_served(url, allow_remote=allow_remote))
        if model is None and len(served) != 1:
            raise InputError(f"it serves {len(served)} models", where=url, hint=f"Name one of: {', '.join(served)}")
        if model is not None and model not in served:
            raise InputError(
                f"it doesn't serve {model}", where=url, hint=f"It serves: {', '.join(served) or 'nothing'}"
            )
        chosen = model or served[0]

        def loaded() -> EndpointEngine:
            return cls(url, chosen, concurrency=concurrency, client=_client(url, allow_remote=allow_remote))

        # Without the address: on a cluster a server comes back on another node, and the run goes on.
        return engines.Plan("endpoint", chosen, f"endpoint {chosen}", loaded)

    def complete(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        source = iter(prompts)
        order: deque[Future[Completion]] = deque()
        more = True
        try:
            while more or order:
                # Twice as many as are asked at once: so many may wait for a slow one before them.
                while more and len(order) < 2 * self._concurrency and not (order and order[0].done()):
                    prompt = next(source, None)
                    if prompt is None:
                        more = False
                    else:
                        asked = self._ask(self._request(prompt, sampling))
                        order.append(asyncio.run_coroutine_threadsafe(asked, self._loop))
                if order:
                    yield order.popleft().result()
        finally:
            for future in order:
                future.cancel()

    async def _ask(self, request: dict[str, Any]) -> Completion:
        """One completion. A server that is away is asked again until `_patience` is at its end."""
        import openai

        pause, since = _FIRST_PAUSE, 0.0
        while True:
            async with self._free:
                since = since or time.monotonic()
                try:
                    return _completion(await self._client.chat.completions.create(**request))
                except openai.APIStatusError as error:
                    if error.status_code in _ENDS_THE_RUN:
                        what = _ENDS_THE_RUN[error.status_code]
                        raise CxrError(f"the server {what} ({error.status_code})", where=self._url) from None
                    if error.status_code not in _AWAY:
                        # Its message may quote the prompt.
                        why = f"the server refused it ({error.status_code})"
                        return Completion(error=f"{why}; most often a prompt is too long for the model")
                    why = f"answers with {error.status_code}"
                    pause = max(pause, _retry_after(error))
                except openai.APIConnectionError:  # timeouts too
                    why = "can't be reached"
                except (openai.APIError, AttributeError, TypeError, ValueError) as error:
                    return Completion(error=f"the server's answer can't be read ({type(error).__name__})")
                if time.monotonic() - since > self._patience:
                    raise CxrError(
                        f"the server {why}, for {self._patience / 60:.0f} minutes now",
                        where=self._url,
                        hint="Start it again. The same command goes on where this one stopped.",
                    )
                console.warn(f"{self._url} {why}: trying again", kind="answers that had to be waited for")
                # Who waits keeps its place: a server that comes back is not met by more than it can take.
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _request(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": _messages(prompt),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "n": sampling.count,
        }
        beyond: dict[str, Any] = {}  # what OpenAI's own servers don't know
        if sampling.drawn:
            request["top_p"] = sampling.top_p
            # Servers differ in how long a seed may be.
            request["seed"] = seed_of(prompt, sampling) & 0x7FFFFFFF
            if sampling.top_k:
                beyond["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1:
            beyond["repetition_penalty"] = sampling.repetition_penalty
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if prompt.schema:
            schema = {"name": "answer", "schema": dict(prompt.schema), "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request | ({"extra_body": beyond} if beyond else {})

    def close(self) -> None:
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        ours = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not ours]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()


def _client(url: str, *, allow_remote: bool) -> Any:
    import httpx
    import openai

    # Proxies of the environment would carry what is asked out of the network, redirects too.
    http = httpx.AsyncClient(follow_redirects=False, trust_env=allow_remote)
    timeout = httpx.Timeout(_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS)
    key = os.environ.get(KEY) or "none"
    return openai.AsyncOpenAI(base_url=url, api_key=key, http_client=http, max_retries=0, timeout=timeout)


async def _served(url: str, *, allow_remote: bool) -> list[str]:
    """The names of the models that it serves."""
    import openai

    async with _client(url, allow_remote=allow_remote) as client:
        try:
            return [model.id async for model in client.models.list(timeout=_CONNECT_SECONDS)]
        except openai.APIStatusError as error:
            what = _ENDS_THE_RUN.get(error.status_code, "doesn't say which models it serves")
            hint = (
                f"Set {KEY}." if error.status_code in (401, 403) else "Most servers want /v1 at the end of the address."
            )
            raise CxrError(f"the server {what} ({error.status_code})", where=url, hint=hint) from None
        except openai.APIError:
            hint = "Is it running, and is the port right?"
            raise CxrError("the server can't be reached", where=url, hint=hint) from None


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    images = [{"type": "image_url", "image_url": {"url": _data_uri(image)}} for image in prompt.images]
    told = []
    for turn in prompt.messages:
        told.append(_turn(turn, images if turn.role == "user" else []))
        if turn.role == "user":
            images = []
    return told


def _turn(turn: Message, images: list[dict[str, Any]]) -> dict[str, Any]:
    if not images:  # a plain text: some servers and templates know no other
        return {"role": turn.role, "content": turn.text}
    return {"role": turn.role, "content": [*images, {"type": "text", "text": turn.text}]}


def _data_uri(image: Any) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _retry_after(error: Any) -> float:
    try:
        return min(float(error.response.headers.get("retry-after", 0)), 60.0)
    except ValueError:
        return 0.0


def _completion(answer: Any) -> Completion:
    choices = sorted(answer.choices or (), key=lambda choice: choice.index)
    if not choices:
        return Completion(error="the server's reply holds no text")
    usage = answer.usage
    return Completion(
        texts=tuple(choice.message.content or "" for choice in choices),
        ends=tuple("length" if choice.finish_reason == "length" else "stop" for choice in choices),
        prompt_tokens=usage.prompt_tokens if usage else 0,
        tokens=usage.completion_tokens if usage else 0,
    )
