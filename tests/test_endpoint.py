"""Asking servers: who may be asked, what is sent, and what is done when they fail."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from chat_server import MODEL, ChatServer, asked, images

from cxr_reason import engines
from cxr_reason.engines import Message, Prompt, Sampling, endpoint
from cxr_reason.errors import CxrError, InputError


@pytest.fixture
def server() -> Iterator[ChatServer]:
    made = ChatServer(lambda request: f"said: {asked(request)}")
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(endpoint, "_LONGEST_PAUSE", 0.05)


def prompts(count: int) -> list[Prompt]:
    return [Prompt((Message("user", f"question {number}"),), key=str(number)) for number in range(count)]


def ask(server: ChatServer, count: int = 40, sampling: Sampling | None = None) -> list[engines.Completion]:
    engine = engines.load("endpoint", None, endpoint=server.url, batch_size=4)
    try:
        return list(engine.complete(prompts(count), sampling or Sampling()))
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("172.31.0.1", True), ("192.168.7.7", True), ("169.254.1.1", True),
        ("::1", True), ("fd00::1", True), ("fe80::1%eth0", True), ("::ffff:10.0.0.1", True),
        ("8.8.8.8", False), ("172.32.0.1", False), ("2001:4860:4860::8888", False), ("::ffff:8.8.8.8", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("192.0.2.1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_private(address: str, private: bool) -> None:
    assert endpoint.is_private(address) == private


def test_a_remote_address_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InputError, match="no private address"):
        engines.plan("endpoint", "any", endpoint="http://8.8.8.8/v1")


def test_every_address_of_a_name_must_be_private(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, 0, 0, "", ("10.0.0.1", 80)), (socket.AF_INET, 0, 0, "", ("8.8.8.8", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: both)
    with pytest.raises(InputError, match=r"8\.8\.8\.8"):
        endpoint.check_address("http://inside.example/v1", allow_remote=False)
    endpoint.check_address("http://inside.example/v1", allow_remote=True)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "file:///etc/passwd", "http://", "http://me:secret@127.0.0.1/v1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InputError) as caught:
        endpoint.check_address(url, allow_remote=True)
    assert "secret" not in str(caught.value)


def test_the_server_tells_its_model_and_another_is_refused(server: ChatServer) -> None:
    assert engines.plan("auto", None, endpoint=server.url).model == MODEL
    with pytest.raises(InputError, match="doesn't serve other"):
        engines.plan("auto", "other", endpoint=server.url)


def test_completions_come_in_order_and_many_are_under_way(server: ChatServer) -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def slow(request: dict[str, object]) -> str:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05 if asked(request).endswith("3") else 0.005)
        with lock:
            under_way -= 1
        return asked(request)

    server.answer = slow
    told = ask(server)
    assert [completion.texts for completion in told] == [(f"question {number}",) for number in range(40)]
    assert 1 < most <= 4


def test_what_a_request_holds(server: ChatServer) -> None:
    from PIL import Image

    engine = engines.load("endpoint", None, endpoint=server.url)
    sampling = Sampling(max_tokens=7, temperature=0.5, top_p=0.9, top_k=5, n=2, stop=("END",), seed=1)
    image = Image.new("RGB", (4, 4))
    prompt = Prompt((Message("user", "what is seen?"),), (image, image), schema={"type": "object"}, key="a")
    told = list(engine.complete([prompt], sampling))
    engine.close()
    assert told[0].texts == ("said: what is seen?",) * 2
    assert (told[0].prompt_tokens, told[0].tokens, told[0].ends) == (10, 10, ("stop", "stop"))
    (request,) = server.requests
    assert [uri.partition(",")[0] for uri in images(request)] == ["data:image/png;base64"] * 2
    expected = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "n": 2, "stop": ["END"]}
    assert expected.items() <= request.items()
    assert request["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert request["seed"] == engines.seed_of(prompt, sampling) & 0x7FFFFFFF


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_away_is_waited_for(server: ChatServer) -> None:
    server.failures = [503, 429, 500]
    assert [completion.texts[0] for completion in ask(server, 6)] == [f"said: question {n}" for n in range(6)]
    assert len(server.requests) == 9


def test_a_reply_without_a_text_is_an_error_of_its_prompt(server: ChatServer) -> None:
    server.silent = True
    assert {completion.error for completion in ask(server, 2)} == {"the server's reply holds no text"}


def test_a_refused_prompt_is_one_completion_and_its_words_stay_out(server: ChatServer) -> None:
    server.failures = [400]
    told = ask(server, 8)
    (refused,) = [completion.error for completion in told if completion.error]
    assert "400" in refused
    assert "question" not in refused
    assert sum(bool(completion.texts) for completion in told) == 7


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_no_retry_mends_ends_the_run(server: ChatServer, code: int) -> None:
    server.failures = [code] * 100
    with pytest.raises(CxrError, match=str(code)) as caught:
        ask(server)
    assert "question" not in str(caught.value)


def test_a_redirect_is_not_followed(server: ChatServer) -> None:
    server.failures = [307]
    assert "307" in str(ask(server, 1)[0].error)


@pytest.mark.usefixtures("quick")
def test_patience_has_an_end(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines.load("endpoint", None, endpoint=server.url)
    monkeypatch.setattr(engine, "_patience", 0.2)
    server.close()
    with pytest.raises(CxrError, match="can't be reached"):
        list(engine.complete(prompts(3), Sampling()))
    engine.close()


def test_no_more_is_taken_than_keeps_it_busy(server: ChatServer) -> None:
    taken = 0

    def counted() -> Iterator[Prompt]:
        nonlocal taken
        for prompt in prompts(1000):
            taken += 1
            yield prompt

    engine = engines.load("endpoint", None, endpoint=server.url, batch_size=4)
    stream = engine.complete(counted(), Sampling())
    next(stream)
    assert taken <= 8
    stream.close()  # type: ignore[attr-defined]
    engine.close()
