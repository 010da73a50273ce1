"""Progress of long work, on stderr; nothing when quiet.

On a terminal a line moves: count, bar, time left. Elsewhere (a pipe, a file, a dumb terminal) counted work prints plain
lines, more and more rarely up to one a minute, and one at its end.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import timedelta

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pad_cli.system.processes import processes
from pad_cli.system.terminal import console, say

_SOON, _SELDOM = 5.0, 60.0  # seconds between two plain lines, at first and at most
_RECENT = 300.0  # seconds over which the rate is measured
_NAME = TextColumn("{task.description}", markup=False)
_STATUS = TextColumn("{task.fields[status]}", markup=False)
_settings = {"quiet": False}
_on_screen: list[Progress] = []  # what runs on the terminal now, outermost first; all share one console


def set_quiet(quiet: bool) -> None:
    """Of several processes only the first one talks."""
    _settings["quiet"] = quiet or not processes().main


class Bar:
    """Counts the steps of one task; a silent one without `progress`. One that is disabled prints plain lines."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._next, self._gap = _SOON, _SOON

    def advance(self, amount: int = 1, status: str = "") -> None:
        """N more steps are done; `status` is what else there is to say."""
        if self._progress is None:
            return
        self._progress.update(TaskID(0), advance=amount, status=status)
        task = self._progress.tasks[0]
        elapsed = task.elapsed or 0
        if self._progress.disable and elapsed >= self._next and not task.finished:
            self._next, self._gap = elapsed + self._gap, min(2 * self._gap, _SELDOM)
            left = "" if task.time_remaining is None else f"{seconds(task.time_remaining)} left"
            parts = (f"{task.completed:,.0f}/{task.total:,.0f}", left, status)
            say(f"{task.description}: {', '.join(filter(None, parts))}", stderr=True)

    def skip(self, amount: int) -> None:
        """N more steps need not be done, because an earlier run did them: they count as done, but not as fast."""
        if self._progress is not None:
            self._progress.tasks[0].completed += amount


@contextlib.contextmanager
def bar(description: str, total: int) -> Iterator[Bar]:
    """Show the progress of one task of `total` steps.

    Example:
        >>> with bar("Counting", total=3) as counting:
        ...     counting.advance(3, status="done")
    """
    if _settings["quiet"] or total == 0:
        yield Bar()
        return
    columns = (_NAME, BarColumn(16), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True), _STATUS)
    with _line(description, total, *columns) as progress:
        ending = "stopped at {0:,.0f} of {1:,.0f} after {2}"
        try:
            yield Bar(progress)
            ending = "{0:,.0f} in {2}"
        finally:
            if progress.disable:
                task = progress.tasks[0]
                summary = ending.format(task.completed, task.total, seconds(task.elapsed or 0))
                say(f"{description}: {', '.join(filter(None, (summary, task.fields['status'])))}", stderr=True)


@contextlib.contextmanager
def stage(description: str) -> Iterator[None]:
    """Show on a terminal that something goes on whose steps cannot be counted."""
    if _settings["quiet"]:
        yield
        return
    with _line(description, None, _NAME, TimeElapsedColumn()):
        yield


@contextlib.contextmanager
def _line(description: str, total: int | None, *columns: ProgressColumn) -> Iterator[Progress]:
    """A line on the terminal; that of counted work stays when it is done. Elsewhere it is disabled, and only counts."""
    here = _on_screen[0].console if _on_screen else console(stderr=True)
    progress = Progress(
        *columns,
        console=here,
        transient=total is None,
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe must not pass through the terminal
        speed_estimate_period=_RECENT,
        disable=not (sys.stderr.isatty() and here.is_interactive),
    )
    progress.add_task(description, total=total, status="")
    if progress.disable:
        yield progress
        return
    _on_screen.append(progress)
    try:
        with progress:
            yield progress
    finally:
        _on_screen.remove(progress)


def note(message: str) -> None:
    """Print a message on stderr, unless quiet: wrapped on a terminal, on one line elsewhere."""
    if not _settings["quiet"]:
        here = _on_screen[0].console if _on_screen else console(stderr=True)
        here.print(Text(message), soft_wrap=not here.is_terminal)


def seconds(count: float) -> str:
    """`4.2 s` or `2:03:20`."""
    return f"{count:.1f} s" if count < 60 else str(timedelta(seconds=round(count)))


def size(count: float) -> str:
    """Bytes as `512 MB` or `1.2 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
