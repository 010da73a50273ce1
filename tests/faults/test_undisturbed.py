"""What the fault tests compare with: undisturbed runs of a command leave the same behind, also in one place."""

from __future__ import annotations

import pytest

from tests.faults.checking import check_again, check_results
from tests.faults.commands import Command, Place, Undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_another_run_is_the_same(command: Command, place: Place, undisturbed: Undisturbed) -> None:
    ended = command.carry_out(place)
    assert ended.code == 0, ended.err
    check_results(command, place, undisturbed)
    check_again(command, place, undisturbed)
