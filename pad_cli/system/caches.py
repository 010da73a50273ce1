"""What `PAD_HOME` keeps: cached hidden states, and derived models; all of it can be made again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pad_cli.system.runs import home, storage_errors


@dataclass(frozen=True)
class Kept:
    """Some files.

    Attributes:
        path: where they are.
        files: how many.
        bytes: their size.
        oldest: when the oldest of them was written; None without files.
        newest: when the newest was.
    """

    path: Path
    files: int
    bytes: int
    oldest: datetime | None = None
    newest: datetime | None = None


def hidden_states() -> Path:
    """The directory of cached hidden states."""
    return home() / "hidden-states"


def kept_hidden_states() -> Kept:
    return _measured(hidden_states(), _files(hidden_states()))


def kept_models() -> list[Kept]:
    """The enlarged policy, and embedded models of versions that did not ship them."""
    return [_measured(path, _files(path)) for path in sorted(home().glob("embedded-*"))]


def kept_under(path: Path) -> Kept:
    """All files below a directory."""
    return _measured(path, _files(path))


def remove_hidden_states() -> Kept:
    """Remove cached hidden states; training computes them again when it needs them.

    Returns:
        What was removed.

    Raises:
        StorageError: a file cannot be removed.
    """
    removed = kept_hidden_states()
    with storage_errors(removed.path):
        for path in _files(removed.path):
            path.unlink(missing_ok=True)
    return removed


def _files(directory: Path) -> list[Path]:
    with contextlib.suppress(OSError):  # it may vanish, or not be ours to read
        return [path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink()]
    return []


def _measured(path: Path, files: Iterable[Path]) -> Kept:
    sizes, times = [], []
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            facts = file.stat()
            sizes.append(facts.st_size)
            times.append(datetime.fromtimestamp(facts.st_mtime))
    return Kept(path, len(sizes), sum(sizes), min(times, default=None), max(times, default=None))
