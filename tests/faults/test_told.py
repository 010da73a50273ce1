"""Told to end (SIGTERM, as by a batch system) or interrupted (Ctrl-C): it says so, ends with its code, and goes on."""

from __future__ import annotations

import signal

import pytest

from tests.faults.checking import check_again
from tests.faults.commands import Command, Place, Undisturbed
from tests.faults.faults import SignalAtChange

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("told", "code", "share"), [(signal.SIGTERM, 143, 0.3), (signal.SIGTERM, 143, 0.8), (signal.SIGINT, 130, 0.55)]
)
def test_it_ends_at_once_and_goes_on_when_run_again(
    command: Command, told: signal.Signals, code: int, share: float, place: Place, undisturbed: Undisturbed
) -> None:
    ended = command.carry_out(place, SignalAtChange(1 + int(share * undisturbed.changes), told, group=False))
    assert ended.code == code, ended.err
    assert ended.err.endswith("Interrupted. Run the same command again to continue.\n")
    assert "Traceback" not in ended.err
    assert not list(place.run.rglob("*.scratch")), "its scratch is gone"
    check_again(command, place, undisturbed)
