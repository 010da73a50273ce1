"""`pad bench`: what a token costs on each way to decode."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pad_cli.cli.completion import complete_recipes_of
from pad_cli.cli.options import Json, Overrides, Quiet, read_as
from pad_cli.progress import set_quiet


def bench(
    recipe: Annotated[
        str,
        typer.Argument(help="A bench recipe: a file or a shipped name.", autocompletion=complete_recipes_of("bench")),
    ],
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time steered decoding against plain decoding, after checking that all paths agree."""
    set_quiet(quiet)
    import pad_cli

    settings = read_as("bench", recipe, overrides)
    if as_json:
        pad_cli.run_bench(settings, on_row=lambda row: print(json.dumps(row), flush=True))
        return
    from rich.console import Console

    report = pad_cli.run_bench(settings)
    print(report["machine"])
    Console().print(pad_cli.bench_table(report))
