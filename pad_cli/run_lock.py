"""One process at a time in one place (floor 2): a second one is told, and nothing breaks.

The lock is the operating system's, so it ends with its process, however that ends. It holds on one machine and for one
`PAD_HOME`, where the locks lie: not beside the run, whose directory holds results only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pad_cli.errors import UsageError
from pad_cli.processes import processes
from pad_cli.runs import fingerprint, home, storage_errors


@contextlib.contextmanager
def only_here(place: Path) -> Iterator[None]:
    """While the block runs, no other one begins for the same file or directory.

    Several processes that share one job count as one: the first of them holds the lock.

    Raises:
        UsageError: another process works there.
        StorageError: `PAD_HOME` cannot be written.
    """
    if not processes().main:
        yield
        return
    path = home() / "locks" / f"{fingerprint(str(place.resolve()))}.lock"
    lock = FileLock(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"Another process is at work in {place}.", "Wait until it has ended, or choose another --out."
            ) from error
    try:
        yield
    finally:
        lock.release()
