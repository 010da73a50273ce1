"""A disk that is full, or that may only be read: the command says so, and goes on when there is room again."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checking import check_again
from tests.faults.commands import NAMES, Command, Place, Undisturbed
from tests.faults.faults import LargestFile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


PAGE = 4096  # bytes


class Disk:
    """A file system of its own, in memory, mounted where a command works."""

    def __init__(self, where: Path) -> None:
        self._where = where

    def mount(self, options: str) -> bool:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self._where], capture_output=True)
        return done.returncode == 0

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self._where], check=True)


@pytest.fixture
def disk(place: Place) -> Iterator[Disk]:
    disk = Disk(place.run)
    try:
        if not disk.mount("size=64m"):
            pytest.skip("mounting a file system is not permitted here")
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    yield disk
    subprocess.run(["umount", place.run], check=True)


def pages(sizes: tuple[int, ...]) -> int:
    """Bytes that files of these sizes take."""
    return sum(-(-size // PAGE) * PAGE for size in sizes)


@pytest.mark.parametrize("share", [0.1, 0.55])
def test_a_full_disk(command: Command, share: float, place: Place, disk: Disk, undisturbed: Undisturbed) -> None:
    filler = place.run / "filler"
    filler.write_bytes(bytes(PAGE))  # a file system without any room cannot be mounted
    disk.remount(f"size={PAGE + int(share * pages(undisturbed.sizes)) // PAGE * PAGE}")
    ended = command.carry_out(place)
    assert ended.code == 1, ended.err
    assert re.search("Cannot write .*(No space left on device|cannot be written whole)", ended.err)
    assert "Traceback" not in ended.err
    disk.remount("size=64m")
    filler.unlink()
    check_again(command, place, undisturbed)


def test_a_disk_that_may_only_be_read(command: Command, place: Place, disk: Disk, undisturbed: Undisturbed) -> None:
    disk.remount("ro")
    ended = command.carry_out(place)
    assert ended.code == 1, ended.err
    assert "Cannot write" in ended.err
    assert "Read-only file system" in ended.err
    assert "Traceback" not in ended.err
    disk.remount("rw")
    check_again(command, place, undisturbed)


@pytest.mark.parametrize("command", [name for name in NAMES if name != "learn"], indirect=True)  # its talk is longer
def test_a_disk_on_which_no_file_grows_any_more(command: Command, place: Place, undisturbed: Undisturbed) -> None:
    """As under a quota; the write that fails has already written a part."""
    size = sorted(undisturbed.sizes)[-1] * 2 // 3
    ended = command.carry_out(place, LargestFile(size, deadly=False))
    assert ended.code == 1, ended.err
    assert re.search("Cannot write .*(File too large|cannot be written whole)", ended.err)
    assert "Traceback" not in ended.err
    check_again(command, place, undisturbed)
