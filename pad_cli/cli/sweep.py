"""`pad sweep`: a recipe to Pareto fronts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.completion import complete_recipes_of
from pad_cli.cli.options import Json, Out, Overrides, Overwrite, Quiet, read_as
from pad_cli.system.progress import set_quiet
from pad_cli.system.terminal import say, say_json, say_table


def sweep(
    recipe: Annotated[
        str,
        typer.Argument(help="A sweep recipe: a file or a shipped name.", autocompletion=complete_recipes_of("sweep")),
    ],
    overrides: Overrides = None,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Trade preferences off against each other: grids of weights, and Pareto fronts. Run again to continue."""
    set_quiet(quiet)
    import pad_cli

    settings = read_as("sweep", recipe, overrides, out)
    result = pad_cli.run_sweep(settings, overwrite=overwrite)
    if as_json:
        for point in result["points"]:
            say_json(point)
        return
    say_table(pad_cli.sweep_table(result))
    say(f"Sweep: {Path(settings.output) / 'sweep.html'}, sweep.json")
