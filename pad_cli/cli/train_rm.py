"""`pad train-rm`: a recipe to a reward model."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pad_cli.cli.options import Json, Out, Overrides, Quiet, read_as
from pad_cli.progress import set_quiet


def train_rm(
    recipe: Annotated[str, typer.Argument(help="A train-rm recipe: a file or a shipped name.")],
    overrides: Overrides = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a personalised reward model. Run again to continue an interrupted run."""
    set_quiet(quiet)
    import pad_cli

    settings = read_as("train-rm", recipe, overrides, out)
    directory = pad_cli.train_reward_model(settings)
    metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps({"reward_model": str(directory), "metrics": metrics}))
        return
    show_metrics(metrics)
    print(f"Reward model: {directory}")


def show_metrics(metrics: dict[str, dict[str, float]]) -> None:
    """The validation metrics as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    if not metrics:
        return
    columns = list(next(iter(metrics.values())))
    table = Table("validation split", title="Reward model")
    for name in columns:
        table.add_column(name, justify="right")
    for split, values in metrics.items():
        table.add_row(split, *(f"{values[name]:g}" for name in columns))
    Console().print(table)
