"""`pad recipe`: list, show, copy and check recipes; and `pad list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.options import Json, Overrides, complete_recipes
from pad_cli.cli.tables import print_facts
from pad_cli.errors import UsageError
from pad_cli.system.terminal import say, say_json

app = typer.Typer(help="List, show, copy and check recipes.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A shipped recipe's name, or a file.", autocompletion=complete_recipes)]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the shipped recipes by kind, with their purpose."""
    from pad_cli.recipe import KINDS, read_recipe
    from pad_cli.recipe.catalogue import names_of

    kinds: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for name, purpose in names_of("recipes").items():
        kinds[read_recipe(name).kind][name] = purpose
    for kind, recipes in kinds.items():
        if as_json:
            for name, purpose in recipes.items():
                say_json({"kind": kind, "name": name, "purpose": purpose})
        else:
            print_facts(kind, recipes.items())


@app.command()
def show(name: Name) -> None:
    """Print a recipe."""
    from pad_cli.recipe import recipe_text

    say(recipe_text(name), end="")


@app.command()
def copy(
    name: Name,
    to: Annotated[Path | None, typer.Argument(help="Where to; by default NAME.yaml here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", "--force", help="Replace a file that is there.")] = False,
) -> None:
    """Copy a shipped recipe, to change it."""
    from pad_cli.recipe import find_recipe, recipe_text
    from pad_cli.system.runs import write_whole

    text = recipe_text(name)
    target = to or Path(find_recipe(name).name)
    if target.exists() and not overwrite:
        raise UsageError(f"'{target}' exists already.", "Name another file, or say --overwrite.")
    write_whole(target, text)
    say(target)


@app.command()
def check(name: Name, overrides: Overrides = None) -> None:
    """Check a recipe, and report all its problems at once."""
    from pad_cli.recipe import check_names, find_recipe, read_recipe

    settings = read_recipe(name, overrides or [])
    path = find_recipe(name)
    check_names(settings, str(path))
    say(f"{path}: a valid recipe of kind '{settings.kind}'")


def list_names(
    kind: Annotated[str | None, typer.Argument(help="Only these, for example scorers.")] = None,
    as_json: Json = False,
) -> None:
    """List every principle, recipe, scorer and method, each with a line about it."""
    from pad_cli.recipe.catalogue import catalogue_kinds, names_of

    for each in catalogue_kinds() if kind is None else [kind]:
        names = names_of(each)
        if as_json:
            for name, description in names.items():
                say_json({"kind": each, "name": name, "description": description})
        elif names or kind is not None:
            print_facts(each, names.items())
