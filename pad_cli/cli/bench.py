"""`pad bench`: what a token costs on each way to decode."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pad_cli.cli.options import Json, Overrides, Quiet
from pad_cli.errors import RecipeError
from pad_cli.progress import set_quiet


def bench(
    recipe: Annotated[str, typer.Argument(help="A bench recipe: a file or a shipped name.")],
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time steered decoding against plain decoding, after checking that all paths agree."""
    set_quiet(quiet)
    import pad_cli

    settings = pad_cli.read_recipe(recipe, overrides or [])
    if not isinstance(settings, pad_cli.BenchRecipe):
        raise RecipeError(f"{recipe}: is a recipe of kind '{settings.kind}'.", "pad bench needs kind: bench")
    report = pad_cli.run_bench(settings)
    if as_json:
        for row in report["rows"]:
            print(json.dumps(row))
        return
    from rich.console import Console

    print(report["machine"])
    Console().print(pad_cli.bench_table(report))
