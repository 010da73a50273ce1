"""A clock that goes backwards changes nothing; where memory is too small, batches are halved, with the same results."""

from __future__ import annotations

import pytest

from tests.faults.checking import check_again, check_results
from tests.faults.commands import Command, Place, Undisturbed
from tests.faults.faults import ClockGoesBack, NotANumber, SmallMemory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

READERS = ["generate", "eval", "sweep", "reproduce", "learn"]


def test_a_clock_that_goes_backwards(command: Command, place: Place, undisturbed: Undisturbed) -> None:
    ended = command.carry_out(place, ClockGoesBack())
    assert ended.code == 0, ended.err
    check_results(command, place, undisturbed)
    check_again(command, place, undisturbed)


@pytest.mark.parametrize("command", READERS, indirect=True)
def test_memory_for_one_answer_only(command: Command, place: Place, undisturbed: Undisturbed) -> None:
    ended = command.carry_out(place, SmallMemory(rows=1))
    assert ended.code == 0, ended.err
    assert "Memory is too small for 3 answers at once; going on with 1." in ended.err
    check_results(command, place, undisturbed)
    check_again(command, place, undisturbed)


@pytest.mark.parametrize("command", [*READERS, "train-rm"], indirect=True)
def test_memory_for_nothing(command: Command, place: Place, undisturbed: Undisturbed) -> None:
    ended = command.carry_out(place, SmallMemory(rows=0))
    assert ended.code == 1, ended.err
    assert "Memory is too small for" in ended.err
    assert "Traceback" not in ended.err
    check_again(command, place, undisturbed)


@pytest.mark.parametrize(("batch", "stage", "step"), [(5, "adapter", "step 5 of 6"), (40, "heads", "step 34 of 80")])
@pytest.mark.parametrize("command", ["train-rm"], indirect=True)
def test_a_loss_that_is_not_a_number(
    command: Command, batch: int, stage: str, step: str, place: Place, undisturbed: Undisturbed
) -> None:
    ended = command.carry_out(place, NotANumber(batch))
    assert ended.code == 1, ended.err
    assert f"Training {stage}, {step}: the loss is nan. Its pairs, by their number" in ended.err
    kept = {"adapter": "*/adapter.unfinished/snapshot.safetensors", "heads": "*/heads.snapshot.safetensors"}[stage]
    (found,) = (place.run / "run" / ".work").glob(kept)
    assert found.exists()
    assert "The last good state is saved in run/.work/" in ended.err
    check_again(command, place, undisturbed)
