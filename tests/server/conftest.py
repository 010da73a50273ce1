"""A real server on this machine's loopback, with tiny models."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn

from pad_cli import DecodingSettings, Limits, PadEngine
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.recipe import ModelSettings
from pad_cli.server.http_server import build_app, make_server

SETTINGS = DecodingSettings(max_new_tokens=24, guidance_weight=1.5)
PROGRAM = "from pad_cli.cli.main import main; main()"
Start = Callable[..., tuple["subprocess.Popen[str]", str]]


@dataclass(frozen=True)
class Server:
    """One that runs."""

    port: int
    engine: PadEngine
    server: uvicorn.Server
    clients: contextlib.ExitStack

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> openai.OpenAI:
        """A client whose connections are closed with the server."""
        given = {"api_key": "none", "max_retries": 0, **options}
        return self.clients.enter_context(openai.OpenAI(base_url=f"{self.url}/v1", **given))

    def post(self, body: bytes | dict[str, Any], path: str = "/v1/chat/completions") -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/health", timeout=30) as response:
            health: dict[str, Any] = json.load(response)
        return health

    def settles(self, name: str, value: int) -> bool:
        """Does a figure of the health check come to this value soon?"""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.health()[name] == value:
                return True
            time.sleep(0.02)
        return False


Serve = Callable[..., Server]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be reached."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        assert address[0] in ("127.0.0.1", "::1"), "a test tried to reach the network"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def serve(policy: Any, reward_model: Any) -> Iterator[Serve]:
    """Starts servers, and ends them with the test."""
    with contextlib.ExitStack() as stack:

        def start(limits: Limits | None = None, *, engine: PadEngine | None = None, **options: Any) -> Server:
            engine = engine or PadEngine(policy, reward_model)
            app = build_app(engine, SETTINGS, limits or Limits(), **options)
            listener = stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0))))
            server = make_server(app, limits or Limits())
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            stack.callback(_end, server, thread)
            return Server(listener.getsockname()[1], engine, server, stack)

        yield start


def _end(server: uvicorn.Server, thread: threading.Thread) -> None:
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def models(model_directory: Path, reward_model: Any, tmp_path: Path) -> list[str]:
    """Options that name the tiny models, on disk."""
    saved = tmp_path / "rm"
    saved.mkdir()
    save_reward_model(reward_model, saved, ModelSettings(model=str(model_directory)))
    return ["--policy", str(model_directory), "--reward-model", str(saved)]


@pytest.fixture
def start(models: list[str]) -> Iterator[Start]:
    """Starts `pad serve` as a process; gives it and its address, and ends it with the test."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", "--port", "0", *models, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        running.append(process)
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"at (http://\S+)", line):
                return process, found[1]
        raise AssertionError(said)

    yield run
    for process in running:
        process.kill()
        process.communicate()
