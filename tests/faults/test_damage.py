"""Files of an earlier run that are damaged: made again, or named; nothing else is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.checking import check_again, check_results
from tests.faults.commands import Command, Place, Undisturbed, logs_of
from tests.faults.faults import SignalAtChange

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOGGING = ["generate", "eval", "sweep", "reproduce", "learn"]
LATER = 0.8  # of a run


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def turned(content: bytes) -> bytes:
    """One byte is another one, far inside."""
    place = len(content) * 3 // 4
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def zeroed(content: bytes) -> bytes:
    """As a file system may leave it when the power goes: the right length, without content."""
    return bytes(len(content))


def killed(command: Command, place: Place, undisturbed: Undisturbed, share: float) -> None:
    ended = command.carry_out(place, SignalAtChange(1 + int(share * undisturbed.changes)))
    assert ended.code < 0, ended.err


@pytest.mark.parametrize("command", LOGGING, indirect=True)
def test_a_last_line_cut_short_is_made_again(command: Command, place: Place, undisturbed: Undisturbed) -> None:
    killed(command, place, undisturbed, LATER)
    logs = [path for path in logs_of(place) if path.read_bytes()]
    assert logs
    for path in logs:
        *whole, last = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(whole) + cut(last))
    check_again(command, place, undisturbed)


@pytest.mark.parametrize("damage", [cut, zeroed])
@pytest.mark.parametrize("command", LOGGING, indirect=True)
def test_a_damaged_line_is_named_and_the_others_stay(
    command: Command, damage: Callable[[bytes], bytes], place: Place, undisturbed: Undisturbed
) -> None:
    assert command.carry_out(place).code == 0
    path = max(logs_of(place), key=lambda path: len(path.read_bytes().splitlines()))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage(lines[1]), *lines[2:], b""]))
    ended = command.carry_out(place)
    assert ended.code == 2, ended.err
    assert f"{path.relative_to(place.run)}:2: not a result line" in ended.err
    assert "Delete the line and run again" in ended.err
    path.write_bytes(b"\n".join([lines[0], *lines[2:], b""]))
    ended = command.carry_out(place)
    assert ended.code == 0, ended.err
    assert {lines[0], *lines[2:]} <= set(path.read_bytes().splitlines())
    if not command.replies:  # a user may answer otherwise
        assert set(path.read_bytes().splitlines()) == set(lines)
        where = str(path.relative_to(place.run))
        again = {name: content for name, content in command.results(place).items() if name != where}
        assert again == {name: content for name, content in undisturbed.results.items() if name != where}


@pytest.mark.parametrize("damage", [cut, turned, zeroed])
@pytest.mark.parametrize(("command", "share"), [("train-rm", n / 10) for n in (4, 8)], indirect=["command"])
def test_damaged_tensors_of_an_unfinished_training_are_made_again(
    command: Command, share: float, damage: Callable[[bytes], bytes], place: Place, undisturbed: Undisturbed
) -> None:
    """Cached states, checkpoints, snapshots and finished stages, all at once."""
    killed(command, place, undisturbed, share)
    paths = list(place.run.rglob("*.safetensors"))
    assert paths
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))
    ended = command.carry_out(place)
    assert ended.code == 0, ended.err
    check_results(command, place, undisturbed)


@pytest.mark.parametrize("damage", [cut, turned, zeroed])
@pytest.mark.parametrize("command", ["eval"], indirect=True)
def test_a_damaged_competitor_is_trained_again(
    command: Command, damage: Callable[[bytes], bytes], place: Place, undisturbed: Undisturbed
) -> None:
    killed(command, place, undisturbed, LATER)
    (path, *_) = (place.home / "competitors").rglob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    ended = command.carry_out(place)
    assert ended.code == 0, ended.err
    check_results(command, place, undisturbed)


@pytest.mark.parametrize(
    ("command", "damage"),
    [*((name, turned) for name in LOGGING), ("eval", cut), ("eval", zeroed)],
    indirect=["command"],
)
def test_a_damaged_reward_model_is_refused(
    command: Command, material: Path, damage: Callable[[bytes], bytes], place: Place, undisturbed: Undisturbed
) -> None:
    path = material / "reward-model" / "preference_heads.safetensors"
    whole = path.read_bytes()
    try:
        path.write_bytes(damage(whole))
        ended = command.carry_out(place)
    finally:
        path.write_bytes(whole)
    assert ended.code == 1, ended.err
    assert f"'{path}' is damaged" in ended.err.replace("\n", "")
    check_again(command, place, undisturbed)
