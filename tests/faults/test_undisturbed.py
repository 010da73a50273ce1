"""What the fault tests compare with: two undisturbed runs of a command leave the same behind."""

from __future__ import annotations

import pytest

from tests.faults.commands import Command, Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_two_undisturbed_runs_are_the_same(command: Command, place: Place, undisturbed: dict[str, bytes]) -> None:
    ended = command.carry_out(place)
    assert ended.code == 0, ended.err
    again = command.results(place)
    assert sorted(again) == sorted(undisturbed)
    assert [name for name in again if again[name] != undisturbed[name]] == []


def test_a_run_again_in_the_same_place_changes_nothing(
    command: Command, place: Place, undisturbed: dict[str, bytes]
) -> None:
    for _ in range(2):
        ended = command.carry_out(place)
        assert ended.code == 0, ended.err
    assert {name: content == undisturbed.get(name) for name, content in command.results(place).items()} == {
        name: True for name in undisturbed
    }
