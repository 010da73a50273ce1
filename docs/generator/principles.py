"""The ready principles, from the file that ships."""

from __future__ import annotations

from generator.markdown import code, table
from pad_cli.principles import shipped_principles

_INTRODUCTION = """# Ready principles

`pad prefs library NAME` also shows how users ask for one. [What they are for, and how to add yours](../preferences.md).
"""


def page() -> str:
    """The page, in Markdown."""
    rows = [
        (code(name), each.description, each.instruction, each.opposite or "")
        for name, each in shipped_principles().items()
    ]
    return f"{_INTRODUCTION}\n{table(('name', 'in a line', 'instruction', 'opposite'), rows)}\n"
