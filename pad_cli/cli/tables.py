"""Text, lists and tables on stdout: words are wrapped, never cut, on however narrow a terminal; in a pipe never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import HEAVY_HEAD
from rich.padding import Padding
from rich.text import Text

from pad_cli.system.terminal import FittingTable, console, say, say_table

_NAMES = 0.45  # of the width: where names need more, the text of each stands below it


def print_text(text: str) -> None:
    """Print a paragraph."""
    here = console()
    here.print(Text(text), soft_wrap=not here.is_terminal)


def print_facts(title: str, rows: Iterable[tuple[str, Any]]) -> None:
    """Print a heading, then rows of a name and a text or number, aligned; none of those that are None."""
    here = console()
    listed = [(name, formatted(value)) for name, value in rows if value is not None] or [("none", "")]
    wide = max(len(name) for name, _ in listed)
    here.print(Text(title, style="bold"), soft_wrap=not here.is_terminal)
    if not here.is_terminal:
        for name, text in listed:
            say(f"  {name:{wide}}  {text}".rstrip())
    elif wide > _NAMES * here.width:
        for name, text in listed:
            here.print(Padding(Text(name), (0, 0, 0, 2)))
            here.print(Padding(Text(text, style="dim"), (0, 0, 0, 4)))
    else:
        table = FittingTable.grid(padding=(0, 2, 0, 0))
        for _ in ("", "name", "text"):
            table.add_column(overflow="fold")
        for name, text in listed:
            table.add_row("", Text(name), Text(text, style="dim"))
        here.print(table)


def text_table(
    names: Iterable[str],
    rows: Iterable[Iterable[Any]],
    *,
    title: str | None = None,
    boxed: bool = True,
    figures: bool = False,
    side_by_side: bool = False,
) -> FittingTable:
    """A table of texts and numbers.

    Args:
        figures: all columns but the first are right-justified.
        side_by_side: the cells are long texts, which get equally wide columns.
    """
    heading = None if title is None else Text(title, style="bold")
    table = FittingTable(
        title=heading,
        title_justify="left",
        box=HEAVY_HEAD if boxed else None,
        show_lines=side_by_side,
        expand=side_by_side,
    )
    for number, name in enumerate(names):
        table.add_column(
            Text(name),
            overflow="fold",
            ratio=1 if side_by_side else None,
            justify="right" if figures and number else "left",
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(formatted(cell)) for cell in row))
    return table


def formatted(value: Any) -> str:
    """A value as people read it: yes and no, thousands apart, four digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_report(report: Mapping[str, Any], *, every_preference: bool = False) -> None:
    """Print an evaluation's report, in as many tables as the width asks for."""
    from pad_cli.reports.evaluation_tables import report_table

    say_table(report_table(report, every_preference=every_preference))
