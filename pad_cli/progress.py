"""Progress of long work (floor 1), on stderr: a bar on a terminal, one line per task when piped, nothing when quiet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pad_cli.processes import processes
from pad_cli.terminal import console, say

_settings = {"quiet": False}


def set_quiet(quiet: bool) -> None:
    """Of several processes only the first one talks."""
    _settings["quiet"] = quiet or not processes().main


class Bar:
    """One running task."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: int = 1, status: str = "") -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=amount, status=status)


@contextlib.contextmanager
def bar(description: str, total: int) -> Iterator[Bar]:
    """Show the progress of one task of `total` steps.

    Example:
        >>> with bar("Counting", total=3) as counting:
        ...     counting.advance(3, status="done")
    """
    if _settings["quiet"]:
        yield Bar(None, None)
        return
    here = console(stderr=True)
    if not here.is_terminal:
        say(f"{description} ...", stderr=True)
        yield Bar(None, None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", style="dim", markup=False),
    )
    with Progress(*columns, console=here) as progress:
        yield Bar(progress, progress.add_task(description, total=total, status=""))


def note(message: str) -> None:
    """One line of talk on stderr, unless quiet."""
    if not _settings["quiet"]:
        say(message, stderr=True)
