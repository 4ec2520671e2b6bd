"""A server on this machine that speaks OpenAI's protocol and answers by a function: for tests of who asks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "scripted"
Answer = Callable[[dict[str, Any]], str]


def asked(request: dict[str, Any]) -> str:
    """The text of a request's last turn."""
    content = request["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def images(request: dict[str, Any]) -> list[str]:
    """The data URIs of a request."""
    turns = (turn["content"] for turn in request["messages"] if not isinstance(turn["content"], str))
    return [part["image_url"]["url"] for content in turns for part in content if part["type"] == "image_url"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many connect at once


class ChatServer:
    """Serves until closed. `failures` are HTTP codes that the next requests get, before they are answered again."""

    def __init__(self, answer: Answer = lambda request: "<think>Clear.</think><answer>A</answer>") -> None:
        self.answer = answer
        self.failures: list[int] = []
        self.silent = False
        """Whether its replies hold no choice."""
        self.requests: list[dict[str, Any]] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(request)
                if server.failures:
                    code = server.failures.pop(0)
                    self.reply(code, {"error": {"message": f"as scripted: {asked(request)}"}})
                    return
                texts = [server.answer(request) for _ in range(request.get("n", 1))]
                choices = [
                    {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                    for i, text in enumerate(texts)
                ]
                usage = {"prompt_tokens": 10, "completion_tokens": 5 * len(texts), "total_tokens": 10 + 5 * len(texts)}
                base = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL}
                self.reply(200, {**base, "choices": [] if server.silent else choices, "usage": usage})

            def reply(self, code: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                if 300 <= code < 400:
                    self.send_header("Location", "http://192.0.2.1/v1/chat/completions")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *values: object) -> None:
                pass

        return Handler
