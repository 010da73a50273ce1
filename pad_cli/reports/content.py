"""What a report says, section by section, whatever it is written in. Each report has cells of its own kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Cell = TypeVar("Cell", covariant=True)


@dataclass(frozen=True)
class Grid(Generic[Cell]):
    """A table: a header and rows of as many cells; `align` has `<` or `>` for each column."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    align: str
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart as SVG, and what it shows."""

    caption: str
    svg: str


@dataclass(frozen=True)
class Section(Generic[Cell]):
    """A heading and what stands below it, in this order."""

    title: str
    lines: tuple[str, ...] = ()
    grids: tuple[Grid[Cell], ...] = ()
    figures: tuple[Figure, ...] = ()
