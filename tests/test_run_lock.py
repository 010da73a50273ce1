"""Two processes in one place: the second is told; the lock ends with its process, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pad_cli.errors import UsageError
from pad_cli.run_lock import only_here

HOLDER = """
from pathlib import Path
from pad_cli.run_lock import only_here
with only_here(Path("run")):
    print("in", flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))


def start() -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    return holder


def test_a_second_process_is_told_and_one_elsewhere_is_not_kept_waiting(tmp_path: Path) -> None:
    holder = start()
    try:
        with pytest.raises(UsageError, match="Another process is at work in run"), only_here(Path("run")):
            pass
        with pytest.raises(UsageError), only_here(tmp_path / "other" / ".." / "run"):
            pass
        with only_here(Path("elsewhere")):
            pass
    finally:
        holder.communicate("\n")
    with only_here(Path("run")):
        pass


def test_the_lock_of_a_killed_process_is_free() -> None:
    holder = start()
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with only_here(Path("run")):
        pass


def test_an_error_inside_frees_it() -> None:
    with pytest.raises(RuntimeError), only_here(Path("run")):
        raise RuntimeError
    with only_here(Path("run")):
        pass


def test_processes_that_share_a_job_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with only_here(Path("run")):
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with only_here(Path("run")):
            pass
