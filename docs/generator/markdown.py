"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or nothing where there are no rows.

    Args:
        names: of the columns.
        rows: of cells in Markdown.
    """
    lines = [f"| {' | '.join(_cell(text) for text in row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(names)} |", "|---" * len(names) + "|", *lines, ""])


def code(text: object) -> str:
    """As code, whatever is in it."""
    shown = str(text)
    fence = "``" if "`" in shown else "`"
    return f"{fence}{shown}{fence}" if shown else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
