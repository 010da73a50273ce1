"""`pad recipe`: list, show, copy and check recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.options import Overrides
from pad_cli.errors import UsageError
from pad_cli.terminal import say, say_table

app = typer.Typer(help="List, show, copy and check recipes.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A shipped recipe's name, or a file.")]


@app.command("list")
def list_() -> None:
    """List the shipped recipes with their kind and purpose."""
    from rich.table import Table

    import pad_cli

    table = Table("name", "kind", "purpose")
    for name, path in pad_cli.shipped_recipes().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").rstrip()
        table.add_row(name, pad_cli.read_recipe(name).kind, first)
    say_table(table)


@app.command()
def show(name: Name) -> None:
    """Print a recipe."""
    import pad_cli

    say(pad_cli.recipe_text(name), end="")


@app.command()
def copy(
    name: Name,
    to: Annotated[Path | None, typer.Argument(help="Where to; by default NAME.yaml here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Copy a shipped recipe, to change it."""
    import pad_cli

    text = pad_cli.recipe_text(name)
    target = to or Path(pad_cli.find_recipe(name).name)
    if target.exists() and not force:
        raise UsageError(f"'{target}' exists already.", "Name another file, or say --force.")
    pad_cli.write_whole(target, text)
    say(target)


@app.command()
def check(name: Name, overrides: Overrides = None) -> None:
    """Check a recipe, and report all its problems at once."""
    import pad_cli

    settings = pad_cli.read_recipe(name, overrides or [])
    say(f"{pad_cli.find_recipe(name)}: a good recipe of kind '{settings.kind}'")
