"""The command line's reference, from the application itself: every command, argument and option."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from generator.markdown import code, table
from pad_cli.cli.main import app

_INTRODUCTION = """# Commands

`pad COMMAND --help` prints the same in a terminal. Answers go to stdout, everything else to stderr.
"""


def page() -> str:
    """The page, in Markdown."""
    group = typer.main.get_command(app)
    return "\n".join([_INTRODUCTION, *_sections(group, typer.Context(group, info_name="pad"), depth=2)])


def _sections(command: Any, context: Any, depth: int) -> Iterator[str]:
    """One section for a command, and one for each below it."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            records[parameter.param_type_name].append((code(record[0]), _told(record[1])))
    tables = [table((kind, "meaning"), rows) for kind, rows in records.items()]
    parts = [
        f"{'#' * depth} {context.command_path}",
        f"```text\n{usage}\n```",
        _paragraphs(command.help or ""),
        *tables,
    ]
    yield "\n\n".join(part for part in parts if part) + "\n"
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        child = command.get_command(context, name)
        yield from _sections(child, typer.Context(child, info_name=name, parent=context), min(depth + 1, 3))


def _paragraphs(text: str) -> str:
    """What a command says of itself; a line of a file, which begins with #, is no heading."""
    parts = text.strip().split("\n\n")
    return "\n\n".join(f"```yaml\n{part}\n```" if part.startswith("#") else part for part in parts)


def _told(text: str) -> str:
    """Help as it stands there: a star or a bracket in it is no Markdown."""
    return text.replace("*", "\\*").replace("<", "&lt;")
