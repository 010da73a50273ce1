"""`pad bench`: what a token costs on each way to decode."""

from __future__ import annotations

from typing import Annotated

import typer

from pad_cli.cli.completion import complete_recipes_of
from pad_cli.cli.options import Json, Overrides, Quiet, read_as
from pad_cli.system.progress import set_quiet
from pad_cli.system.terminal import say, say_json, say_table


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
        pad_cli.run_bench(settings, on_row=say_json)
        return

    report = pad_cli.run_bench(settings)
    say(report["machine"])
    say_table(pad_cli.bench_table(report))
