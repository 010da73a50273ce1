"""Progress of long work, on stderr; nothing when quiet.

On a terminal a line appears once the work has taken a second: count, time left, rate, memory. Elsewhere (a pipe, a
file, a dumb terminal) the same is printed as plain lines: the first after the first batch, then more and more rarely
up to one a minute, and one at the end.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from pad_cli.system.processes import processes
from pad_cli.system.terminal import console, say

_PATIENCE = 1.0  # seconds of work before anything is shown
_SOON, _SELDOM = 5.0, 60.0  # seconds between two plain lines, at first and at most
_RECENT = 300.0  # seconds over which the rate is measured
_NAME, _BAR, _WIDE = 36, 16, 100  # cells of a task's name, of its bar, and of a terminal that has room for a bar
_settings = {"quiet": False}
_on_screen: list[Progress] = []  # what runs on the terminal now, outermost first; all share one console


def set_quiet(quiet: bool) -> None:
    """Of several processes only the first one talks."""
    _settings["quiet"] = quiet or not processes().main


class Bar:
    """One running task of a `progress`, which counts and may show it; without one a silent task.

    `total` is None if the steps cannot be counted. With `lines` plain lines are printed: `progress` shows nothing.
    """

    def __init__(
        self, progress: Progress | None = None, description: str = "", total: int | None = None, *, lines: bool = False
    ) -> None:
        self._progress, self._lines = progress, lines
        self._next, self._gap = _PATIENCE, _SOON
        if progress is not None:
            progress.add_task(description, total=total, status="", skipped=0)

    def advance(self, amount: int = 1, status: str = "") -> None:
        """N more steps are done; `status` is what else there is to say."""
        if self._progress is None:
            return
        self._progress.update(TaskID(0), advance=amount, status=status)
        task = self._progress.tasks[0]
        elapsed = task.elapsed or 0
        if self._lines and elapsed >= self._next and not task.finished:
            self._next, self._gap = elapsed + self._gap, min(2 * self._gap, _SELDOM)
            say(f"{task.description}: {', '.join(parts(task))}", stderr=True)

    def skip(self, amount: int) -> None:
        """N more steps need not be done, because an earlier run did them: they count as done, but not as fast."""
        if self._progress is not None:
            task = self._progress.tasks[0]
            task.completed += amount
            task.fields["skipped"] += amount


@contextlib.contextmanager
def bar(description: str, total: int) -> Iterator[Bar]:
    """Show the progress of one task of `total` steps.

    Example:
        >>> with bar("Counting", total=3) as counting:
        ...     counting.advance(3, status="done")
    """
    here = console(stderr=True)
    if _settings["quiet"] or total == 0:
        yield Bar()
    elif _moves(here):
        with _line(here, description, total) as line:
            yield line
    else:
        progress = Progress(console=here, speed_estimate_period=_RECENT)  # never started: it only counts
        ending = "stopped at {0:,.0f} of {1:,.0f} after {2}"
        try:
            yield Bar(progress, description, total, lines=True)
            ending = "{0:,.0f} in {2}"
        finally:
            task = progress.tasks[0]
            summary = ending.format(task.completed, task.total, seconds(task.elapsed or 0))
            more = (summary, _rate(task), _memory(), task.fields["status"])
            say(f"{description}: {', '.join(filter(None, more))}", stderr=True)


@contextlib.contextmanager
def stage(description: str) -> Iterator[None]:
    """Show that something goes on whose steps cannot be counted."""
    here = console(stderr=True)
    if _settings["quiet"]:
        yield
    elif _moves(here):
        with _line(here, description, None):
            yield
    else:
        with _after(_SOON, lambda: say(f"{description} ...", stderr=True)):
            yield


@contextlib.contextmanager
def _after(patience: float, action: Callable[[], None]) -> Iterator[None]:
    """Do something once the block has taken so many seconds."""
    timer = threading.Timer(patience, action)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def note(message: str) -> None:
    """Print a message on stderr, unless quiet: wrapped on a terminal, on one line elsewhere."""
    if not _settings["quiet"]:
        here = _on_screen[0].console if _on_screen else console(stderr=True)
        here.print(Text(message), soft_wrap=not here.is_terminal)


def _moves(here: Console) -> bool:
    return sys.stderr.isatty() and here.is_interactive


@contextlib.contextmanager
def _line(here: Console, description: str, total: int | None) -> Iterator[Bar]:
    """A line on the terminal; that of counted work stays when it is done."""
    here = _on_screen[0].console if _on_screen else here
    name = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=_NAME))
    details = _Details(Column(no_wrap=True, overflow="ellipsis"))  # cut off at the end, which matters least
    columns = [name, BarColumn(_BAR), details] if here.width >= _WIDE else [name, details]
    progress = Progress(
        *columns,
        console=here,
        transient=total is None,
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe must not pass through the terminal
        speed_estimate_period=_RECENT,
    )
    _on_screen.append(progress)
    try:
        with _after(_PATIENCE, progress.start):
            yield Bar(progress, description, total)
    finally:
        progress.stop()
        _on_screen.remove(progress)


class _Details(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(", ".join(parts(task)), style="progress.remaining")


def parts(task: Task) -> list[str]:
    """What is known of a task, the most important first: count, time, rate, memory, status."""
    count = "" if task.total is None else f"{task.completed:,.0f}/{task.total:,.0f}"
    speed = _speed(task)
    if task.total is None or task.finished or not speed:
        time = seconds(task.elapsed or 0)
    else:
        time = f"{seconds((task.total - task.completed) / speed)} left"
    return list(filter(None, (count, time, _rate(task), _memory(), task.fields["status"])))


def _speed(task: Task) -> float:
    """Steps a second, without those of an earlier run; 0 while it is too early to tell."""
    elapsed = task.elapsed or 0
    after_one_batch = (task.completed - task.fields["skipped"]) / elapsed if elapsed >= 0.5 else 0
    return task.finished_speed or task.speed or after_one_batch


def _rate(task: Task) -> str:
    speed = _speed(task)
    if speed < 1:
        return f"{seconds(1 / speed)} each" if speed else ""
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s"


def seconds(count: float) -> str:
    """`4.2 s`, `1:05` or `2:03:20`."""
    if count < 10:
        return f"{count:.1f} s"
    minutes, rest = divmod(round(count), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def _memory() -> str:
    """What this process has in memory, and on its GPUs once they are used."""
    text = size(psutil.Process().memory_info().rss)
    cuda = getattr(sys.modules.get("torch"), "cuda", None)  # without importing it
    if cuda is not None and cuda.is_initialized():
        text += f", GPU {size(sum(cuda.memory_reserved(number) for number in range(cuda.device_count())))}"
    return text


def size(count: float) -> str:
    """Bytes as `512 MB` or `1.2 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
