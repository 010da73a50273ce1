"""Text, lists and tables on stdout: words are wrapped, never cut, on however narrow a terminal; in a pipe never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.padding import Padding
from rich.text import Text

from pad_cli.system.terminal import FittingTable, console, say, say_table

_NAMES = 0.45  # of the width: where names need more, the text of each stands below it


def print_text(text: str) -> None:
    """Print a paragraph."""
    here = console()
    here.print(Text(text), soft_wrap=not here.is_terminal)


def print_facts(title: str, rows: Iterable[tuple[str, Any]]) -> None:
    """Print a heading, then rows of a name and a text, aligned."""
    here = console()
    listed = [(name, str(text)) for name, text in rows] or [("none", "")]
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


def print_table(
    names: Iterable[str],
    rows: Iterable[Iterable[Any]],
    *,
    title: str | None = None,
    side_by_side: bool = False,
    stderr: bool = False,
) -> None:
    """Print rows under a heading each; side by side if the cells are long texts, which get equally wide columns."""
    heading = None if title is None else Text(title)
    table = FittingTable(title=heading, title_justify="left", show_lines=side_by_side, expand=side_by_side)
    for name in names:
        table.add_column(Text(name), overflow="fold", ratio=1 if side_by_side else None)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    say_table(table, stderr=stderr)


def print_report(report: Mapping[str, Any], *, every_preference: bool = False) -> None:
    """Print an evaluation's report, in as many tables as the width asks for."""
    from pad_cli.reports.evaluation_tables import report_table

    say_table(report_table(report, every_preference=every_preference, width=console().width))
