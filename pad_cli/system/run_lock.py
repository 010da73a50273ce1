"""One process at a time in one place: a second one is told, or waits its turn, and nothing breaks.

The lock is the operating system's, so it ends with its process, however that ends. It holds on one machine and for one
`PAD_HOME`, where the locks lie: not beside the run, whose directory holds results only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pad_cli.errors import UsageError
from pad_cli.system.processes import processes
from pad_cli.system.progress import note
from pad_cli.system.runs import fingerprint, home, storage_errors, sweep


@contextlib.contextmanager
def only_here(place: Path) -> Iterator[None]:
    """While the block runs, no other one begins for the same file or directory; scratch that a killed one left goes.

    Several processes that share one job count as one: the first of them holds the lock.

    Raises:
        UsageError: another process works there.
        StorageError: `PAD_HOME` cannot be written.
    """
    if not processes().main:
        yield
        return
    if not (lock := _lock(str(place.resolve()))):
        raise UsageError(f"Another process is at work in {place}.", "Wait until it has ended, or write elsewhere.")
    try:
        sweep(place)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def in_turn(place: Path) -> Iterator[None]:
    """The same, but another one waits, and says so: for what is built once for all. Inside, `place` is free to lock.

    Several processes that share one job do not wait here, lest they wait for each other.

    Raises:
        StorageError: `PAD_HOME` cannot be written.
    """
    if processes().count > 1:
        yield
        return
    name = f"building {place.resolve()}"
    if not (lock := _lock(name)):
        note(f"Waiting for another process, which builds {place}.")
        lock = _lock(name, patience=-1)
    assert lock is not None
    try:
        sweep(place)
        yield
    finally:
        lock.release()


def _lock(name: str, patience: float = 0) -> FileLock | None:
    """A lock that is held; None if another process holds it for longer than so many seconds (-1: for ever)."""
    path = home() / "locks" / f"{fingerprint(name)}.lock"
    lock = FileLock(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            return None
    return lock
