"""Every long command, and what it gives when nothing disturbs it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import NAMES, Command, Place, Undisturbed, make_commands
from tests.faults.faults import CountChanges


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for all tests, but for sockets of this machine: the fork server listens at one."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX, "a test tried to reach the network"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of what commands read."""
    return tmp_path_factory.mktemp("material")


@pytest.fixture(scope="session")
def commands(policy: Any, material: Path) -> dict[str, Command]:
    return make_commands(material, policy)


@pytest.fixture(params=NAMES)
def command(request: pytest.FixtureRequest, commands: dict[str, Command]) -> Command:
    return commands[request.param]


@pytest.fixture
def make_place(tmp_path: Path) -> Callable[[str], Place]:
    """A new place to work in, by name."""

    def make(name: str) -> Place:
        place = Place(tmp_path / name, tmp_path / f"{name}.logs")
        place.run.mkdir()
        place.logs.mkdir()
        return place

    return make


@pytest.fixture
def place(make_place: Callable[[str], Place]) -> Place:
    return make_place("place")


@pytest.fixture(scope="session")
def _undisturbed() -> dict[str, Undisturbed]:
    return {}


@pytest.fixture
def undisturbed(
    command: Command, _undisturbed: dict[str, Undisturbed], tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    """The command in a place of its own, carried out once for all tests."""
    if command.name not in _undisturbed:
        root = tmp_path_factory.mktemp(command.name)
        place = Place(root / "run", root / "logs")
        place.run.mkdir()
        place.logs.mkdir()
        ended = command.carry_out(place, CountChanges(root / "changes"))
        assert ended.code == 0, ended.err
        changes = int((root / "changes").read_text(encoding="utf-8"))
        sizes = tuple(path.stat().st_size for path in place.run.rglob("*") if path.is_file())
        _undisturbed[command.name] = Undisturbed(command.results(place), changes, sizes)
    return _undisturbed[command.name]
