"""What several commands share: options, and reading a recipe of the command's kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pad_cli.errors import RecipeError

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's field, for example decoding.candidates=20."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Out = Annotated[Path | None, typer.Option(help="Directory of the run, in place of the recipe's.")]


def read_as(kind: str, name: str, overrides: Sequence[str] | None, out: Path | None = None) -> Any:
    """Read a recipe that must be of one kind; `out` takes the place of its `output`.

    Raises:
        RecipeError: it is wrong, or of another kind.
    """
    import pad_cli

    placed = [] if out is None else [f"output={json.dumps(str(out))}"]
    recipe = pad_cli.read_recipe(name, [*(overrides or []), *placed])
    if recipe.kind != kind:
        raise RecipeError(f"{name}: is a recipe of kind '{recipe.kind}'.", f"This command needs kind: {kind}")
    return recipe
