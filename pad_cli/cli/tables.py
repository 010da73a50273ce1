"""Text, lists and reports on stdout: words are wrapped, never cut, on however narrow a terminal; in a pipe never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pad_cli.system.terminal import FittingTable, console, say, say_table

_NAMES = 0.45  # of the width: where names need more, what is said of each stands below it


def print_text(text: str) -> None:
    """Print a paragraph."""
    from rich.text import Text

    here = console()
    here.print(Text(text), soft_wrap=not here.is_terminal)


def print_facts(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print a heading, then rows of a name and a text, aligned."""
    from rich.padding import Padding
    from rich.text import Text

    here = console()
    listed = list(rows) or [("none", "")]
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


def print_report(report: Mapping[str, Any], *, every_preference: bool = False) -> None:
    """Print an evaluation's report, in as many tables as the width asks for."""
    import pad_cli

    say_table(pad_cli.report_table(report, every_preference=every_preference, width=console().width))
