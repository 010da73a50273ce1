"""Sections as Markdown; figures are left to the HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from pad_cli.reports.content import Grid, Section

Cell = TypeVar("Cell")

_SPECIAL = re.compile(r"[\\`*\[\]<>|&#~]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word is itself


def section_lines(section: Section[Cell], shown: Callable[[Cell], str]) -> Iterator[str]:
    """The lines of a section, a blank one last.

    Args:
        section: to be written.
        shown: a cell as plain text.
    """
    yield from (f"## {escaped(section.title)}", "")
    for line in section.lines:
        yield from (escaped(line), "")
    for grid in section.grids:
        yield from _grid_lines(grid, shown)


def escaped(text: str) -> str:
    """Text of unknown origin so that Markdown shows it as it is, on one line."""
    return _SPECIAL.sub(lambda found: "\\" + found.group(), " ".join(text.split()))


def _grid_lines(grid: Grid[Cell], shown: Callable[[Cell], str]) -> Iterator[str]:
    if grid.title:
        yield from (escaped(grid.title), "")
    yield _row(map(escaped, grid.header))
    yield _row("---:" if side == ">" else "---" for side in grid.align)
    yield from (_row(escaped(shown(cell)) for cell in row) for row in grid.rows)
    yield ""


def _row(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"
