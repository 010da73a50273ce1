"""`pad reproduce`: a recipe to a paper's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.completion import complete_recipes_of
from pad_cli.cli.options import Json, Out, Overrides, Overwrite, Quiet, read_as
from pad_cli.cli.tables import print_text
from pad_cli.system.progress import set_quiet
from pad_cli.system.terminal import say, say_json


def reproduce(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A reproduce recipe: a file or a shipped name.", autocompletion=complete_recipes_of("reproduce")
        ),
    ] = "embedded-reproduce",
    overrides: Overrides = None,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the paper's tables, at the scale of a recipe's models. Run again to continue."""
    set_quiet(quiet)
    import pad_cli

    settings = read_as("reproduce", recipe, overrides, out)
    result = pad_cli.reproduce(settings, overwrite=overwrite)
    if as_json:
        for name, table in result["tables"].items():
            for label, run in table["runs"].items():
                for row in run["rows"]:
                    say_json({"table": name, "run": label, **row})
        return
    say((Path(settings.output) / "reproduce.md").read_text(encoding="utf-8"), end="")
    print_text(
        f"\nWritten to {settings.output}: reproduce.md, reproduce.html, reproduce.json, and a report.html for each run."
    )
