"""The network is reached only where a recipe names a hub id or an endpoint, and never under `--offline`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pad_cli.endpoint.client import Chat, Endpoint
from pad_cli.errors import EndpointError
from pad_cli.recipe import JudgeSettings
from pad_cli.system.offline import is_this_machine
from tests.hostile.conftest import World

RECORDER = """
import json, sys
reached = []
def hear(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        reached.append([event, repr(arguments[-1] if event == "socket.connect" else arguments[0])])
sys.addaudithook(hear)
from pad_cli.cli.main import app
ends = []
for command in json.loads(sys.argv[1]):
    try:
        app(command)
        ends.append(0)
    except SystemExit as end:
        ends.append(end.code)
print(json.dumps({"ends": ends, "reached": reached}))
"""


def run(*commands: list[str], directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run commands one after the other in a process of its own, which says how they ended and whom they called."""
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "PAD_OFFLINE")}
    environment = {**kept, "HF_HOME": str(directory / "hf"), **environment}
    program = [sys.executable, "-c", RECORDER, json.dumps(commands)]
    return subprocess.run(program, capture_output=True, text=True, check=True, env=environment, cwd=directory)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_without_a_hub_id_or_an_endpoint_no_connection_is_opened(world: World) -> None:
    commands = world.commands()
    done = run(*commands, directory=world.root)
    assert told(done) == {"ends": [0] * len(commands), "reached": []}, done.stderr


def test_offline_reaches_nobody_and_says_how_to_fetch(world: World) -> None:
    data = {"train": {"dataset": "owner/data", "format": "pairs"}}
    content = {"kind": "train-rm", "output": "o", "backbone": {"model": str(world.policy)}, "data": data}
    train = world.recipe("hub", {**content, "stages": [{"stage": "heads", "steps": 1}]})
    done = run(
        ["--offline", "generate", "Hi", "--policy", "owner/policy", *world.models[2:]],
        ["--offline", "inspect", "owner/guide"],
        ["--offline", "train-rm", train],
        ["--offline", "generate", "Hi", *world.models, "--max-new-tokens", "4"],
        directory=world.root,
    )
    assert told(done) == {"ends": [1, 1, 2, 0], "reached": []}
    assert "Traceback" not in done.stderr
    for what in ("owner/policy", "owner/guide", "--repo-type dataset owner/data"):
        assert f"hf download {what}" in done.stderr


def test_whatever_connects_all_the_same_finds_no_network(tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    program = (
        "import pad_cli, socket, sys\n"
        "def reach(call, *arguments):\n"
        "    try: call(*arguments)\n"
        "    except ConnectionError as error: print(error)\n"
        "with socket.socket() as each: reach(each.connect, ('192.0.2.1', 80))\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each: reach(each.sendto, b'x', ('192.0.2.1', 53))\n"
        "reach(socket.getaddrinfo, 'example.org', 80)\n"
        "reach(socket.gethostbyname, 'example.org')\n"
        "with socket.socket() as each: each.connect(('127.0.0.1', int(sys.argv[1]))); print('here')\n"
    )
    port = str(listening.getsockname()[1])
    with listening:
        done = subprocess.run(
            [sys.executable, "-c", program, port],
            env={**os.environ, "PAD_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    first, *_, last = lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert first == "offline: no connection to 192.0.2.1"
    assert last == "here"


def test_offline_a_judge_has_to_be_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, elsewhere = JudgeSettings(model="m"), Endpoint("https://judge.example/v1", "sk-secret-key")
    Chat(settings, elsewhere)
    monkeypatch.setenv("PAD_OFFLINE", "1")
    with pytest.raises(EndpointError, match=r"judge\.example") as caught:
        Chat(settings, elsewhere)
    assert "--offline" in caught.value.hint
    for here in ("http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:1/v1"):
        Chat(settings, Endpoint(here, ""))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "LOCALHOST", "a.localhost"])
def test_these_are_this_machine(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "10.0.0.1", "localhost.example.org", "127.0.0.1.example.org", "::"])
def test_these_are_not(host: str) -> None:
    assert not is_this_machine(host)
