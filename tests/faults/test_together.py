"""Two processes in one place: the second one is told, and nothing breaks."""

from __future__ import annotations

import dataclasses
import signal
import time
from pathlib import Path

import pytest

from tests.faults.checking import check_again, check_results
from tests.faults.commands import Command, Place, Undisturbed
from tests.faults.faults import SignalAtChange

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_second_process_is_told(command: Command, place: Place, tmp_path: Path, undisturbed: Undisturbed) -> None:
    """The first one is stopped in its middle, so that they meet for certain."""
    first = command.start(place, SignalAtChange(1 + undisturbed.changes * 3 // 4, signal.SIGSTOP, group=False))
    try:
        while not (stopped(first.pid) or first.ended):
            time.sleep(0.01)
        (tmp_path / "second").mkdir()
        second = command.start(dataclasses.replace(place, logs=tmp_path / "second"))
        ended = second.wait()
        assert ended.code == 2, ended.err
        assert "Another process is at work in" in ended.err
        first.send(signal.SIGCONT)
        ended = first.wait()
        assert ended.code == 0, ended.err
    finally:
        first.send(signal.SIGKILL)
    check_results(command, place, undisturbed)
    check_again(command, place, undisturbed)


def stopped(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    if not state.exists():
        pytest.skip("this system does not show the state of processes in /proc")
    return state.read_text().rpartition(")")[2].split()[0] == "T"
