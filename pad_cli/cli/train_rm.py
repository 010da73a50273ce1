"""`pad train-rm`: a recipe to a reward model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.options import Json, Overrides, Quiet
from pad_cli.errors import RecipeError
from pad_cli.progress import set_quiet


def train_rm(
    recipe: Annotated[str, typer.Argument(help="A train-rm recipe: a file or a shipped name.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run, in place of the recipe's.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a personalised reward model. Run again to continue an interrupted run."""
    set_quiet(quiet)
    import pad_cli

    placed = [] if out is None else [f"output={json.dumps(str(out))}"]
    settings = pad_cli.read_recipe(recipe, [*(overrides or []), *placed])
    if not isinstance(settings, pad_cli.TrainRecipe):
        raise RecipeError(f"{recipe}: is a recipe of kind '{settings.kind}'.", "pad train-rm needs kind: train-rm")
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
