"""How far a task is, in words, and as one line that fits a terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

import psutil
from rich.cells import cell_len
from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_BAR = 16  # cells
_NAME = 20  # cells of a task's name that count for more than anything but the time
_GAP = 2  # cells between parts
_EARLY = 0.5  # seconds after which the first batch says how fast it goes
_LEAST = ("status", "memory", "rate", "count")  # what a narrow terminal does without, first things first


class Line(ProgressColumn):
    """A task in one line, with as much of it as the terminal has room for."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Table:
        """The line; asked for at every refresh."""
        width = self._console.width - 1
        parts = fitting(task.description, told(task), width)
        room = width - _wide(parts)
        name = Text(task.description)
        name.truncate(max(1, room), overflow="ellipsis")
        cells: list[Text | ProgressBar] = [name]
        if _whole(task) and room >= name.cell_len + _GAP + _BAR:
            cells.append(ProgressBar(total=_whole(task), completed=done(task), width=_BAR))
        cells += [Text(text, style="" if part == "count" else "dim") for part, text in parts.items()]
        grid = Table.grid(*("" for _ in cells), padding=(0, _GAP, 0, 0))
        for column in grid.columns:
            column.no_wrap = True
        grid.add_row(*cells)
        return grid


def told(task: Task) -> dict[str, str]:
    """What there is to say of a task: count, rate, time, memory, status; without what is not known (yet)."""
    parts = {"count": _count(task), "rate": rate(task), "time": _time(task), "memory": memory()}
    return {part: text for part, text in {**parts, "status": task.fields["status"]}.items() if text}


def fitting(name: str, parts: Mapping[str, str], width: int) -> dict[str, str]:
    """The parts that fit beside a name, of which at least the beginning is to be seen, into so many cells."""
    kept = dict(parts)
    for part in _LEAST:
        if min(cell_len(name), _NAME) + _wide(kept) > width:
            kept.pop(part, None)
    return kept


def rate(task: Task) -> str:
    """Steps a second, or seconds a step; empty while it is not known."""
    speed = _speed(task)
    if not speed:
        return ""
    if speed >= 1:
        return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s"
    return f"{seconds(1 / speed)} each"


def seconds(count: float) -> str:
    """`4.2 s`, `1:05` or `2:03:20`."""
    if count < 10:
        return f"{count:.1f} s"
    minutes, rest = divmod(round(count), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def memory() -> str:
    """What this process has in memory, and on its GPUs once they are used."""
    said = _size(psutil.Process().memory_info().rss)
    cuda = getattr(sys.modules.get("torch"), "cuda", None)  # asked for without importing it
    if getattr(cuda, "is_initialized", bool)():
        assert cuda is not None
        said += f", GPU {_size(sum(cuda.memory_reserved(number) for number in range(cuda.device_count())))}"
    return said


def done(task: Task) -> float:
    """Steps that need not be done any more, those of an earlier run included."""
    return float(task.completed + task.fields.get("before", 0))


def _whole(task: Task) -> float:
    """All steps; 0 where they are not counted."""
    return 0 if task.total is None else float(task.total + task.fields.get("before", 0))


def _speed(task: Task) -> float:
    """Steps a second; after only one batch, over the whole time. 0 while it is too early to tell."""
    elapsed = task.elapsed or 0
    return task.finished_speed or task.speed or (task.completed / elapsed if elapsed >= _EARLY else 0)


def _count(task: Task) -> str:
    return "" if task.total is None else f"{done(task):,.0f}/{_whole(task):,.0f}"


def _time(task: Task) -> str:
    if task.total is None or task.finished or not (speed := _speed(task)):
        return seconds(task.elapsed or 0)
    return f"{seconds(math.ceil((task.total - task.completed) / speed))} left"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _wide(parts: Mapping[str, str]) -> int:
    return sum(_GAP + cell_len(text) for text in parts.values())
