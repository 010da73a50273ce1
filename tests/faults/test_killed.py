"""A process killed at any point, and the command carried out again: the results of one that was not disturbed.

Points are moments at which the process changes a file, spread over all of them, and sizes at which a write is torn:
between two of these, nothing changes on the disk.
"""

from __future__ import annotations

import random
import signal

import pytest

from tests.faults.checking import check_again
from tests.faults.commands import NAMES, Command, Place, Undisturbed
from tests.faults.faults import LargestFile, SignalAtChange

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

POINTS = 9
KILLS = [(name, number) for name in NAMES for number in range(POINTS)]
assert len(KILLS) >= 50


@pytest.mark.parametrize(("command", "number"), KILLS, indirect=["command"])
def test_killed_before_a_change(command: Command, number: int, place: Place, undisturbed: Undisturbed) -> None:
    """Each point is drawn from its own part of the run."""
    share = (number + random.Random(f"{command.name} {number}").random()) / POINTS
    ended = command.carry_out(place, SignalAtChange(1 + int(share * undisturbed.changes)))
    assert ended.code == -signal.SIGKILL, ended.err
    check_again(command, place, undisturbed)


@pytest.mark.parametrize("number", range(2))
def test_killed_in_the_middle_of_a_write(command: Command, number: int, place: Place, undisturbed: Undisturbed) -> None:
    sizes = sorted(undisturbed.sizes)
    size = random.Random(f"{command.name} torn {number}").choice(sizes[len(sizes) // 2 :]) * 2 // 3
    ended = command.carry_out(place, LargestFile(size, deadly=True))
    assert ended.code == -signal.SIGXFSZ, ended.err
    check_again(command, place, undisturbed)
