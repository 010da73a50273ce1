"""`pad serve` as a process: where it says it listens, it answers; told to stop, it stops."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from typing import Any

import pytest

from tests.cli.test_commands import refused
from tests.server.conftest import Start


def get(url: str, key: str = "") -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_where_it_says_and_stops_when_told(start: Start, how: signal.Signals) -> None:
    process, url = start("--pref", "humorous", PAD_API_KEY="sesame")
    assert url.startswith("http://127.0.0.1:")
    assert "pad/humorous" in [model["id"] for model in get(f"{url}/models", "sesame")["data"]]
    process.send_signal(how)
    assert process.wait(30) == 0


def test_a_port_in_use_is_refused_before_anything_loads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused("serve", "--port", str(taken.getsockname()[1]), "--policy", "/nothing")
    assert "Cannot listen at 127.0.0.1" in said
    assert "--port" in said


def test_an_unknown_default_preference_and_an_empty_key_are_refused(
    models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Did you mean humorous?" in refused("serve", "--port", "0", *models, "--pref", "humerous")
    monkeypatch.setenv("PAD_API_KEY", " ")
    assert "PAD_API_KEY is empty" in refused("serve", "--port", "0", *models)
