"""`pad serve` as a process: where it says it listens, it answers; told to stop, it stops."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pad_cli.models.checkpoint import save_reward_model
from pad_cli.recipe import ModelSettings
from tests.test_cli import refused

PROGRAM = "from pad_cli.cli.main import main; main()"
Started = tuple["subprocess.Popen[str]", str]


@pytest.fixture
def models(model_directory: Path, reward_model: Any, tmp_path: Path) -> list[str]:
    saved = tmp_path / "rm"
    saved.mkdir()
    save_reward_model(reward_model, saved, ModelSettings(model=str(model_directory)))
    return ["--policy", str(model_directory), "--reward-model", str(saved)]


@pytest.fixture
def start(models: list[str]) -> Iterator[Callable[..., Started]]:
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> Started:
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


def get(url: str, key: str = "") -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_where_it_says_and_stops_when_told(start: Callable[..., Started], how: signal.Signals) -> None:
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
