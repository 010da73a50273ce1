"""`pad` in a process of its own, with a fault in it.

The process is forked from one that has imported everything (`multiprocessing`'s fork server), so that a start takes no
time; from there on it is the command as a shell starts it: own session, directory, environment, files for its output.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Fault = Callable[[], None]
"""Called in the process before the command begins; can be pickled."""

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.faults.preload"])


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code, or minus the signal that killed it; and what it said."""

    code: int
    out: str
    err: str


class Running:
    """A process that carries out a command.

    Args:
        arguments: of `pad`.
        directory: it works here.
        home: its `PAD_HOME`.
        logs: an existing directory for what it says, apart from where it works.
        stdin: what it is told.
        faults: are called in it, in order, before the command begins.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        directory: Path,
        home: Path,
        logs: Path,
        stdin: str = "",
        faults: Sequence[Fault] = (),
    ) -> None:
        self._logs = logs
        (logs / "in").write_text(stdin, encoding="utf-8")
        self._process = _SERVER.Process(target=_carry_out, args=(list(arguments), directory, home, logs, list(faults)))
        self._process.start()

    @property
    def err(self) -> str:
        """What it has said on stderr so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self._logs / "err").read_text(encoding="utf-8", errors="replace")
        return ""

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.exitcode is not None

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """A signal to it, or to all that it has started, too."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-self.pid if group else self.pid, number)

    def wait(self, seconds: float = 300) -> Ended:
        self._process.join(seconds)
        if not self.ended:
            self.send(signal.SIGKILL, group=True)
            self._process.join()
            raise AssertionError(f"it did not end within {seconds:g} seconds:\n{self.err}")
        assert self._process.exitcode is not None
        return Ended(self._process.exitcode, (self._logs / "out").read_text(encoding="utf-8"), self.err)


def _carry_out(arguments: list[str], directory: Path, home: Path, logs: Path, faults: list[Fault]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background of a shell ignore
    directory.mkdir(parents=True, exist_ok=True)
    os.chdir(directory)
    os.environ.update(PAD_HOME=str(home), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", COLUMNS="100", NO_COLOR="1")
    for number, name in enumerate(("in", "out", "err")):
        flags = os.O_RDONLY if name == "in" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(logs / name, flags, 0o644), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115  # open until the process ends
    for fault in faults:
        fault()
    from pad_cli.cli.main import main

    sys.argv = ["pad", *arguments]
    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
