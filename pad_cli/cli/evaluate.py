"""`pad eval`: a recipe to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.completion import complete_recipes_of
from pad_cli.cli.options import Json, Out, Overrides, Overwrite, Quiet, read_as
from pad_cli.cli.tables import print_report
from pad_cli.system.progress import set_quiet
from pad_cli.system.terminal import say, say_json


def evaluate(
    recipe: Annotated[
        str,
        typer.Argument(help="An eval recipe: a file or a shipped name.", autocompletion=complete_recipes_of("eval")),
    ],
    overrides: Overrides = None,
    out: Out = None,
    overwrite: Overwrite = False,
    full: Annotated[bool, typer.Option("--full", help="A line for each preference, not only the pooled ones.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer benchmarks with several methods and score the answers. Run again to continue."""
    set_quiet(quiet)
    import pad_cli

    settings = read_as("eval", recipe, overrides, out)
    report = pad_cli.evaluate(settings, overwrite=overwrite)
    if as_json:
        for row in report["rows"]:
            say_json(row)
        return
    print_report(report, every_preference=full)
    directory = Path(settings.output)
    say(f"Report: {directory / 'report.html'} (also report.md and report.json)")
