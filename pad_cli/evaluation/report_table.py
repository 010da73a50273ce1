"""The report for a terminal: means with the half width of their intervals, and what differs from the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from pad_cli.evaluation.cells import POOLED
from pad_cli.evaluation.report import REPORT
from pad_cli.system.terminal import FittingTable

MARKS = {"better": "▲", "worse": "▼", "undecided": ""}
"""How a table shows a comparison's verdict."""

_WIDTH = 100  # letters of a line

Line = tuple[str, str, str, str, float]
"""Group, policy, preference, method, guidance weight."""


class _Column(NamedTuple):
    """A header and as many cells as the table has lines."""

    header: str
    cells: list[str]
    is_number: bool

    @property
    def letters(self) -> int:
        return 1 + max(map(cell_len, (self.header, *self.cells)))


def report_table(report: Mapping[str, Any], *, every_preference: bool = False, width: int = _WIDTH) -> Group:
    """A line a method, policy, group and weight; a column a scorer.

    Args:
        report: what `evaluate` returned.
        every_preference: a line for each preference too, not only the pooled ones.
        width: letters of a line; scorers that do not fit stand in a further table.
    """
    lines = _lines(report, every_preference)
    items = {_line(row): f"{row['n']:,}" for row in report["rows"]}
    left = [
        *_identity(lines, every_preference),
        _Column("n", [items[line] if line else "" for line in _spaced(lines)], True),
    ]
    right = [_means(report, scorer, lines) for scorer in dict.fromkeys(row["scorer"] for row in report["rows"])]
    tables = list(_fitting(left, right, width))
    shown = [part for table in tables for part in (_table(table), Text())]
    return Group(*shown, *map(Text, _notes(report)))


def reference_name(report: Mapping[str, Any]) -> str:
    """The method that the others are compared with, as a reader knows it."""
    return method_name(report["reference"]["method"], report["reference"]["guidance_weight"])


def method_name(method: str, guidance_weight: float) -> str:
    """A method at a guidance weight; methods that have none stand at 0."""
    return f"{method} at {guidance_weight:g}" if guidance_weight else method


def verdicts_of(report: Mapping[str, Any]) -> dict[tuple[Line, str], str]:
    """(line of a pooled row, scorer) to the comparison's verdict."""
    return {
        ((row["group"], row["policy"], POOLED, row["method"], row["guidance_weight"]), row["scorer"]): row["verdict"]
        for row in report["comparisons"]
    }


def _lines(report: Mapping[str, Any], every_preference: bool) -> list[Line]:
    """Every line once, group by group."""
    rows = [row for row in report["rows"] if every_preference or row["preference"] == POOLED]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    lines = dict.fromkeys(map(_line, rows))
    return sorted(lines, key=lambda line: groups.index(line[0]))


def _line(row: Mapping[str, Any]) -> Line:
    return row["group"], row["policy"], row["preference"], row["method"], row["guidance_weight"]


def _spaced(lines: Sequence[Line]) -> Iterator[Line | None]:
    """The lines with an empty one between groups."""
    for before, line in zip([None, *lines], lines, strict=False):
        if before is not None and before[0] != line[0]:
            yield None
        yield line


def _identity(lines: Sequence[Line], every_preference: bool) -> Iterator[_Column]:
    """The columns that say which line it is; a group is named once."""
    groups, seen = [], ""
    for line in _spaced(lines):
        groups.append(line[0] if line and line[0] != seen else "")
        seen = line[0] if line else seen
    yield _Column("group", groups, False)
    names = ["policy", *["preference"] * every_preference, "method", "weight"]
    places = [1, *[2] * every_preference, 3, 4]
    for name, place in zip(names, places, strict=True):
        cells = ["" if line is None else _plain(line[place]) for line in _spaced(lines)]
        yield _Column(name, cells, name == "weight")


def _means(report: Mapping[str, Any], scorer: str, lines: Sequence[Line]) -> _Column:
    rows = {_line(row): row for row in report["rows"] if row["scorer"] == scorer}
    verdicts = verdicts_of(report)
    cells = [
        "" if line is None or line not in rows else _mean(rows[line]) + MARKS[verdicts.get((line, scorer), "undecided")]
        for line in _spaced(lines)
    ]
    lower = not next(iter(rows.values()))["higher_is_better"]
    return _Column(f"{scorer} ↓" if lower else scorer, cells, True)


def _mean(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return f"{row['failed']} failed"
    half = "" if row["low"] is None else f" ±{(row['high'] - row['low']) / 2:.2f}"
    return f"{row['mean']:.2f}{half}"


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _fitting(left: list[_Column], right: list[_Column], width: int) -> Iterator[list[_Column]]:
    """Tables no wider than `width`, if one scorer is not: each with all columns of the left and some of the right."""
    table, room = left, width - sum(column.letters for column in left)
    for column in right:
        if len(table) > len(left) and column.letters > room:
            yield table
            table, room = left, width - sum(each.letters for each in left)
        table, room = [*table, column], room - column.letters
    yield table


def _table(columns: list[_Column]) -> FittingTable:
    table = FittingTable(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    for column in columns:
        if column.is_number:
            table.add_column(Text(column.header), justify="right", no_wrap=True)
        else:
            table.add_column(Text(column.header), overflow="fold")  # never cut, on however narrow a terminal
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    """What the figures mean, and which are to be read with care."""
    confidence = report["recipe"]["confidence"]
    yield (
        f"± half the {100 * confidence:g} % interval over prompts. {MARKS['better']} better, {MARKS['worse']} worse "
        f"than {reference_name(report)}: p < {1 - confidence:.2g} after Holm's correction."
    )
    pooled = [row for row in report["rows"] if row["preference"] == POOLED]
    for what, told in (("truncated", "read the beginning only of"), ("failed", "failed on")):
        for scorer in dict.fromkeys(row["scorer"] for row in pooled if row[what]):
            count = sum(row[what] for row in pooled if row["scorer"] == scorer)
            yield f"'{scorer}' {told} {count:,} answers; {REPORT} says which cells."
