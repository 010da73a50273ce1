"""Lists on stdout: a heading, then names and what is said of each; nothing is cut, on however narrow a terminal."""

from __future__ import annotations

from collections.abc import Iterable


def print_facts(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print rows of a name and a text, aligned; where there is no terminal, each on one line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    listed = list(rows) or [("none", "")]
    console.print(Text(title, style="bold"))
    if not console.is_terminal:
        wide = max(len(name) for name, _ in listed)
        for name, text in listed:
            print(f"  {name:{wide}}  {text}".rstrip())
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=0)
    table.add_column(overflow="fold", max_width=max(8, console.width // 2))
    table.add_column(overflow="fold")
    for name, text in listed:
        table.add_row("", Text(name), Text(text, style="dim"))
    console.print(table)
