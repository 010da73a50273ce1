"""A judge on this machine: an OpenAI-compatible HTTP server whose taste, position bias and faults the tests plant."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Material = Mapping[str, Any]
"""What the judge is to judge: the JSON object of its question."""


@dataclass
class Asked:
    """One request that arrived."""

    when: float
    body: dict[str, Any]
    key: str

    @property
    def material(self) -> Material:
        """What is to be judged."""
        return _read(self.body)


Fault = Callable[["Handler"], None]


@dataclass
class JudgeServer:
    """What the server does, and what it has seen.

    Attributes:
        reply: material to the text of the reply.
        faults: taken one a request before it is answered; None answers it.
        check: a request's body to the message of a 400, or None.
        asked: requests so far.
        tokens: a request's body to the (prompt, completion) tokens that its reply states; None states none.
        billed: (prompt, completion) tokens of every request that was worked on, whether its reply arrived or not.
        most_at_once: the most requests that it worked on together.
        seconds: that a reply takes.
    """

    reply: Callable[[Material], str]
    address: str = ""
    faults: deque[Fault | None] = field(default_factory=deque)
    check: Callable[[dict[str, Any]], str | None] = lambda body: None
    asked: list[Asked] = field(default_factory=list)
    tokens: Callable[[dict[str, Any]], tuple[int, int] | None] = lambda body: (100, 20)
    billed: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0.0
    most_at_once: int = 0
    _now: int = 0
    _lock: Any = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def next_fault(self) -> Fault | None:
        with self._lock:
            return self.faults.popleft() if self.faults else None

    def __enter__(self) -> Self:
        handler = type("Bound", (Handler,), {"judge": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them, so that no socket outlives its test

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    judge: JudgeServer
    protocol_version = "HTTP/1.0"  # one request a connection: none is left waiting when the server closes

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.body = body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/chat/completions"
        self.judge.asked.append(Asked(time.monotonic(), body, self.headers.get("Authorization", "")))
        with self.judge.working():
            if (fault := self.judge.next_fault()) is not None:
                fault(self)
            elif (problem := self.judge.check(body)) is not None:
                self.send(400, {"error": {"message": problem, "type": "invalid_request_error"}})
            else:
                self.judge.closing.wait(self.judge.seconds)
                self.send(200, self.completion(self.judge.reply(_read(body))))

    def completion(self, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        found: dict[str, Any] = {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 0,
            "model": "judge",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        if (counts := self.judge.tokens(self.body)) is not None:
            read, written = counts
            found["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return found

    def bill(self) -> None:
        if (counts := self.judge.tokens(self.body)) is not None:
            self.judge.billed.append(counts)

    def send(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        self.send_bytes(status, json.dumps(content).encode(), headers)

    def send_bytes(
        self, status: int, data: bytes, headers: Mapping[str, str] | None = None, length: int | None = None
    ) -> None:
        if status == 200:
            self.bill()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _read(body: Mapping[str, Any]) -> Material:
    found: Material = json.loads(body["messages"][1]["content"])
    return found


def choice(winner: str) -> str:
    return json.dumps({"reason": "because", "winner": winner})


def status(code: int, *, headers: Mapping[str, str] | None = None, message: str = "no") -> Fault:
    return lambda handler: handler.send(code, {"error": {"message": message}}, headers)


def says(text: str) -> Fault:
    return lambda handler: handler.send(200, handler.completion(text))


def stall(handler: Handler) -> None:
    """Never answer; but bill it, as a real server may."""
    handler.bill()
    handler.judge.closing.wait(10)


def truncated_json(handler: Handler) -> None:
    data = json.dumps(handler.completion(choice("first"))).encode()
    handler.send_bytes(200, data[: len(data) // 2])


def truncated_body(handler: Handler) -> None:
    data = json.dumps(handler.completion(choice("first"))).encode()
    handler.send_bytes(200, data[: len(data) // 2], length=len(data))


def wrong_json(handler: Handler) -> None:
    handler.send(200, {"object": "list", "data": [], "choices": []})


def no_json(handler: Handler) -> None:
    handler.send_bytes(200, b"<html>Welcome to the proxy</html>")


def reset(handler: Handler) -> None:
    """Drop the connection with a TCP reset."""
    handler.bill()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
