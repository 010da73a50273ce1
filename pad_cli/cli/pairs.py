"""`pad pairs`: preference pairs that a model writes, as a file to read and edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.options import Overrides, Overwrite, Quiet, read_as, recipe_argument
from pad_cli.system.terminal import say, say_table

app = typer.Typer(help="Let a language model write preference pairs.", no_args_is_help=True)


@app.command()
def make(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="JSONL file to write.")],
    recipe: Annotated[str, recipe_argument("train-rm")] = "from-model",
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write the answers that a recipe with `source: contrast` trains on, one prompt a line, without training.

    Read and edit the file, then train on it: docs/training.md shows the recipe. Run again to continue.
    """
    from pad_cli.contrast.source import make_answers_of
    from pad_cli.pairs import describe
    from pad_cli.records import DataReport
    from pad_cli.reports.document import terminal_table
    from pad_cli.system.runs import check_output, write_whole

    settings = read_as("train-rm", recipe, overrides)
    check_output(out, "file: it exists already", lambda _: False, folder=False, overwrite=overwrite)
    made = make_answers_of(settings)
    write_whole(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made.rows()))
    for table in describe(DataReport((made.report,))):
        say_table(terminal_table(table))
    for name, why in made.left_out.items():
        say(f"Left out: {name}. {why}.")
    say(f"{made.report.rows_used} answers to {len(made.answers)} prompts: {out}")
