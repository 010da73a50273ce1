"""`pad eval`: a recipe to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.completion import complete_recipes_of
from pad_cli.cli.options import Json, Out, Overrides, Quiet, read_as
from pad_cli.progress import set_quiet
from pad_cli.terminal import console, say, say_json, say_table


def evaluate(
    recipe: Annotated[
        str,
        typer.Argument(help="An eval recipe: a file or a shipped name.", autocompletion=complete_recipes_of("eval")),
    ],
    overrides: Overrides = None,
    out: Out = None,
    full: Annotated[bool, typer.Option("--full", help="A line for each preference, not only the pooled ones.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer benchmarks with several methods and score the answers. Run again to continue."""
    set_quiet(quiet)
    import pad_cli

    settings = read_as("eval", recipe, overrides, out)
    report = pad_cli.evaluate(settings)
    if as_json:
        for row in report["rows"]:
            say_json(row)
        return
    here = console()
    width = here.width if here.is_terminal else 100
    say_table(pad_cli.report_table(report, every_preference=full, width=width), width=width)
    directory = Path(settings.output)
    say(f"Report: {directory / 'report.html'} (also report.md and report.json)")
