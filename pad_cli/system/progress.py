"""Progress of long work, on stderr; nothing when quiet.

On a terminal a line stands under the work from its second second on: how much is done, how fast, the time left, memory.
Elsewhere (a pipe, a file, a terminal that cannot move its cursor) the same is printed as lines without control codes:
of counted work the first when its first batch is done, of other work after some seconds, then more and more rarely up
to one a minute, and one at the end. Work of less than a second has only that last line.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count

from rich.console import Console
from rich.progress import Progress, Task, TaskID
from rich.text import Text

from pad_cli.system.processes import processes
from pad_cli.system.progress_line import Line, done, rate, seconds, told
from pad_cli.system.terminal import console, say

_PATIENCE = 1.0  # seconds of work of which a terminal shows nothing
_SHORT = 2.0  # seconds of uncounted work of which a pipe is told nothing
_FIRST = 1.0  # seconds of counted work before the first line of a pipe
_SOON, _AGAIN = 5.0, 60.0  # seconds between two lines of a pipe: at first, and at most
_RECENT = 300.0  # seconds over which the rate is measured
_settings = {"quiet": False}


def set_quiet(quiet: bool) -> None:
    """Of several processes only the first one talks."""
    _settings["quiet"] = quiet or not processes().main


class Bar:
    """One running task; without a `Progress` a silent one."""

    def __init__(self, progress: Progress | None = None, task: TaskID | None = None) -> None:
        self._progress, self._task = progress, task
        self.begun = threading.Event()
        """Set when the first steps are done."""

    def advance(self, amount: int = 1, status: str = "") -> None:
        """N more steps are done; `status` is what else there is to say."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=amount, status=status)
            self.begun.set()

    def skip(self, amount: int) -> None:
        """N more steps need not be done, because an earlier run did them: they count as done, but not as fast."""
        if self._progress is not None and self._task is not None and amount:
            task = _task(self._progress, self._task)
            left = None if task.total is None else task.total - amount
            self._progress.update(self._task, total=left, before=task.fields["before"] + amount)


@contextlib.contextmanager
def bar(description: str, total: int) -> Iterator[Bar]:
    """Show the progress of one task of `total` steps.

    Example:
        >>> with bar("Counting", total=3) as counting:
        ...     counting.advance(3, status="done")
    """
    with _shown(description, total) as shown:
        yield shown


@contextlib.contextmanager
def stage(description: str) -> Iterator[None]:
    """Show that something goes on whose steps cannot be counted, and for how long."""
    with _shown(description, None):
        yield


def note(message: str) -> None:
    """Talk on stderr, unless quiet: on a terminal words are wrapped, elsewhere it stays one line."""
    if not _settings["quiet"]:
        here = _screen.console or console(stderr=True)
        here.print(Text(message), soft_wrap=not here.is_terminal)


@contextlib.contextmanager
def _shown(description: str, total: int | None) -> Iterator[Bar]:
    if _settings["quiet"] or total == 0:
        yield Bar()
        return
    here = console(stderr=True)
    show = _on_screen if sys.stderr.isatty() and here.is_interactive else _in_lines
    with show(here, description, total) as shown:
        yield shown


class _Screen:
    """The lines at the foot of the terminal: one `Progress` for all that goes on at the same time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._progress: Progress | None = None
        self._running = 0

    @property
    def console(self) -> Console | None:
        """What prints above the lines, while there are any."""
        progress = self._progress
        return None if progress is None else progress.console

    def enter(self, here: Console) -> Progress:
        with self._lock:
            self._running += 1
            if self._progress is None:
                # What goes to a file or a pipe must not pass through the terminal.
                self._progress = Progress(
                    Line(here), console=here, redirect_stdout=sys.stdout.isatty(), speed_estimate_period=_RECENT
                )
            return self._progress

    def show(self, task: TaskID) -> None:
        with self._lock:
            if self._progress is not None and not self._progress.live.is_started:
                self._progress.start()
            if self._progress is not None:
                self._progress.update(task, visible=True)

    def leave(self, task: TaskID, *, keep: bool) -> None:
        """End a task; of what was shown, a line that is to be kept stays on the screen."""
        with self._lock:
            assert self._progress is not None
            self._running -= 1
            self._progress.stop_task(task)
            if not keep or not _task(self._progress, task).visible:
                self._progress.remove_task(task)
            if self._running == 0:
                self._progress.live.transient = not self._progress.task_ids
                self._progress.stop()
                self._progress = None


_screen = _Screen()


@contextlib.contextmanager
def _on_screen(here: Console, description: str, total: int | None) -> Iterator[Bar]:
    progress = _screen.enter(here)
    task = progress.add_task(description, total=total, visible=False, status="", before=0)
    try:
        with _beside(lambda: _screen.show(task), [_PATIENCE]):
            yield Bar(progress, task)
    finally:
        _screen.leave(task, keep=total is not None)


@contextlib.contextmanager
def _in_lines(here: Console, description: str, total: int | None) -> Iterator[Bar]:
    progress = Progress(console=here, speed_estimate_period=_RECENT)  # never started: it only counts
    number = progress.add_task(description, total=total, status="", before=0)
    task, shown = _task(progress, number), Bar(progress, number)

    def tell(ending: str = "") -> None:
        if task.finished and not ending:
            return  # the last line follows at once
        parts = told(task)
        if ending:
            parts = {"ending": ending, **{part: parts[part] for part in ("memory", "status") if part in parts}}
        say(f"{description}: {', '.join(parts.values())}", stderr=True)

    gaps = (min(_SOON * 2**number, _AGAIN) for number in count())
    with _beside(tell, gaps if total is None else chain([_FIRST], gaps), None if total is None else shown.begun):
        try:
            yield shown
        except BaseException:
            if total is not None:
                tell(f"stopped at {done(task):,.0f} of {total:,} after {seconds(task.elapsed or 0)}")
            raise
    taken = task.elapsed or 0
    if total is not None:
        speed = rate(task)
        tell(f"{done(task):,.0f} in {seconds(taken)}" + (f", {speed}" if speed else ""))
    elif taken >= _SHORT:
        tell(seconds(taken))


@contextlib.contextmanager
def _beside(act: Callable[[], None], gaps: Iterable[float], begun: threading.Event | None = None) -> Iterator[None]:
    """Do something again and again beside the block.

    Args:
        act: what is done.
        gaps: seconds before each time.
        begun: what all but the first gap wait for; until then it is done every `_AGAIN` seconds.
    """
    ended = threading.Event()

    def work() -> None:
        waits = iter(gaps)
        if ended.wait(next(waits)):
            return
        while begun is not None and not begun.wait(_AGAIN):
            act()
        for gap in chain(waits, [None]):
            if ended.is_set():
                return
            act()
            ended.wait(gap)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        if begun is not None:
            begun.set()
        thread.join()


def _task(progress: Progress, number: TaskID) -> Task:
    return next(task for task in progress.tasks if task.id == number)
