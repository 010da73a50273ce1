"""`pad train-rm`: a recipe to a reward model."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pad_cli.cli.completion import complete_recipes_of
from pad_cli.cli.dry_run import show_estimate
from pad_cli.cli.options import Json, Out, Overrides, Overwrite, Quiet, read_as
from pad_cli.system.progress import set_quiet, stage
from pad_cli.system.terminal import console, say, say_json, say_table


def train_rm(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A train-rm recipe: a file or a shipped name.", autocompletion=complete_recipes_of("train-rm")
        ),
    ],
    overrides: Overrides = None,
    out: Out = None,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost (time, memory, disk); train and write nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a personalised reward model. Run again to continue an interrupted run."""
    set_quiet(quiet)
    import pad_cli

    settings = read_as("train-rm", recipe, overrides, out)
    if dry_run:
        with stage("Estimating"):
            estimate = pad_cli.estimate(settings)
        show_estimate(estimate, as_json)
        return
    directory = pad_cli.train_reward_model(settings, overwrite=overwrite)
    if as_json:
        metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
        say_json({"reward_model": str(directory), "metrics": metrics})
        return
    for table in pad_cli.console_tables(pad_cli.read_training_record(directory), console().width):
        say_table(table)
    say(f"Reward model: {directory}  (report: {directory / 'report.html'})")
