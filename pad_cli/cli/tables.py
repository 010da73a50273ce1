"""Text and lists on stdout: words are wrapped, never cut, on however narrow a terminal; elsewhere lines stay whole."""

from __future__ import annotations

from collections.abc import Iterable

_NAMES = 0.45  # of the width: where names need more, what is said of each stands below it


def print_text(text: str) -> None:
    """Print a paragraph."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(text), soft_wrap=not console.is_terminal)


def print_facts(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print a heading, then rows of a name and a text, aligned."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    listed = list(rows) or [("none", "")]
    wide = max(len(name) for name, _ in listed)
    console.print(Text(title, style="bold"), soft_wrap=not console.is_terminal)
    if not console.is_terminal:
        for name, text in listed:
            print(f"  {name:{wide}}  {text}".rstrip())
    elif wide > _NAMES * console.width:
        for name, text in listed:
            console.print(Padding(Text(name), (0, 0, 0, 2)))
            console.print(Padding(Text(text, style="dim"), (0, 0, 0, 4)))
    else:
        table = Table.grid(padding=(0, 2, 0, 0))
        for _ in ("", "name", "text"):
            table.add_column(overflow="fold")
        for name, text in listed:
            table.add_row("", Text(name), Text(text, style="dim"))
        console.print(table)
