"""Lists on stdout: a heading, then names and what is said of each; nothing is cut, on however narrow a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from pad_cli.terminal import console, say


def print_facts(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print rows of a name and a text, aligned; where there is no terminal, each on one line."""
    from rich.table import Table
    from rich.text import Text

    here = console()
    listed = list(rows) or [("none", "")]
    here.print(Text(title, style="bold"))
    if not here.is_terminal:
        wide = max(len(name) for name, _ in listed)
        for name, text in listed:
            say(f"  {name:{wide}}  {text}".rstrip())
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=0)
    table.add_column(overflow="fold", max_width=max(8, here.width // 2))
    table.add_column(overflow="fold")
    for name, text in listed:
        table.add_row("", Text(name), Text(text, style="dim"))
    here.print(table)
