"""What several commands share: options, and reading a recipe of the command's kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pad_cli.cli.completion import complete_keys, complete_preferences, complete_recipes_of
from pad_cli.errors import RecipeError

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a recipe's field, for example decoding.candidates=20.",
        autocompletion=complete_keys,
    ),
]
GenerateRecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="A generate recipe: a file or a shipped name.",
        autocompletion=complete_recipes_of("generate"),
    ),
]
Policy = Annotated[str | None, typer.Option("--policy", help="Language model to steer: directory or hub id.")]
RewardModel = Annotated[
    str | None,
    typer.Option("--reward-model", help="Directory of a trained reward model, or its id on the hub."),
]
Preferences = Annotated[
    list[str] | None,
    typer.Option(
        "--pref",
        "-p",
        metavar="PREFERENCE",
        help="humorous, concise=0.5, 'not formal', a profile (@me), or free text; repeat.",
        autocompletion=complete_preferences,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that are in the way, though another program wrote them.")
]
Out = Annotated[Path | None, typer.Option(help="Directory of the run, in place of the recipe's.")]


def read_as(
    kind: str,
    name: str,
    overrides: Sequence[str] | None,
    out: Path | None = None,
    options: Mapping[str, object] | None = None,
) -> Any:
    """Read a recipe that must be of one kind.

    Args:
        kind: what it must be.
        name: a file or a shipped name.
        overrides: as given after --set.
        out: takes the place of its `output`.
        options: of the command line, by the field each stands for; None leaves a field as it is.

    Raises:
        RecipeError: it is wrong, or of another kind.
    """
    import pad_cli

    fields = {**(options or {}), "output": None if out is None else str(out)}
    values = {key: value for key, value in fields.items() if value is not None}
    recipe = pad_cli.read_recipe(name, overrides or [], values)
    if recipe.kind != kind:
        raise RecipeError(f"{name}: is a recipe of kind '{recipe.kind}'.", f"This command needs kind: {kind}")
    return recipe
