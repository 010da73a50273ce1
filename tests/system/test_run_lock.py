"""Two processes in one place: the second is told or waits; the lock ends with its process, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pad_cli.errors import UsageError
from pad_cli.system.runs import in_turn, only_here

HOLDER = """
import sys
from pathlib import Path
from pad_cli.system import runs
with getattr(runs, sys.argv[1])(Path("run")):
    print("in", flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))


def start(how: str = "only_here") -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
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


def test_who_comes_in_turn_says_that_it_waits_and_then_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    holder = start("in_turn")
    threading.Timer(0.3, lambda: holder.communicate("\n")).start()
    with in_turn(Path("run")):
        assert holder.wait() == 0
        assert "Waiting for another process, which builds run." in capfd.readouterr().err
        with only_here(Path("run")):
            pass


def test_the_scratch_of_killed_processes_goes_and_all_else_stays(tmp_path: Path) -> None:
    (tmp_path / "run" / "deep").mkdir(parents=True)
    stay = ["run/answers.jsonl", "run/.hidden", "run/deep/.x.01234567.scratch", ".other.01234567.scratch", "run.yaml"]
    for name in (*stay, ".run.01234567.scratch", "run/.report.json.89abcdef.scratch"):
        (tmp_path / name).touch()
    (tmp_path / "run" / ".new.01234567.scratch" / "deep").mkdir(parents=True)
    with only_here(tmp_path / "run"):
        left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path for path in left if not path.startswith("home")) == sorted(stay)
