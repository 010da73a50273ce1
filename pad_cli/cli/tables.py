"""Text, lists and tables on stdout: words are wrapped, never cut, on however narrow a terminal; in a pipe never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from pad_cli.system.terminal import console, say, say_table, text_table

_FIGURES = ("pairs", "pair_accuracy", "margin", "policy_accuracy")


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
    else:
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, text in listed:
            table.add_row("", Text(name), Text(text, style="dim"))
        say_table(table)


def formatted(value: Any) -> str:
    """A value as people read it: yes and no, thousands apart, four digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """How well a reward model ranks the pairs of each validation split."""
    names = ("validation split", *(figure.replace("_", " ") for figure in _FIGURES))
    rows = [(split, *(formatted(values.get(each, "")) for each in _FIGURES)) for split, values in metrics.items()]
    return text_table(names, rows, texts=1, title="The reward model, measured on preference pairs")
