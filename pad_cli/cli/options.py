"""What several commands share: options, reading a recipe of the command's kind, and importing torch visibly."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pad_cli.cli.completion import complete_keys, complete_preferences, complete_recipes
from pad_cli.errors import RecipeError, UsageError
from pad_cli.system.progress import set_quiet, stage
from pad_cli.system.terminal import neutralised


def recipe_argument(kind: str) -> Any:
    """A recipe of one kind."""
    about = f"{'An' if kind.startswith('e') else 'A'} {kind} recipe: a file or a shipped name."
    return typer.Argument(help=about, autocompletion=complete_recipes(kind))


def _quieten(quiet: bool) -> bool:
    set_quiet(quiet)
    return quiet


_RECIPE = "A generate recipe: a file or a shipped name."
_SET = "Change a recipe's field, for example decoding.candidates=20."
_PREF = "humorous, concise=0.5, 'not formal', a profile (@me), or free text; repeat."
_OVERWRITE = "Replace files that are in the way, though another program wrote them."

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_SET, autocompletion=complete_keys)
]
GenerateRecipeName = Annotated[str, typer.Option("--recipe", help=_RECIPE, autocompletion=complete_recipes("generate"))]
Preferences = Annotated[
    list[str] | None,
    typer.Option("--pref", "-p", metavar="PREFERENCE", help=_PREF, autocompletion=complete_preferences),
]
Weight = Annotated[float | None, typer.Option("--weight", "-w", help="Guidance weight; 0 is the policy alone.")]
Policy = Annotated[str | None, typer.Option("--policy", help="Language model to steer: directory or hub id.")]
RewardModel = Annotated[str | None, typer.Option("--reward-model", help="A reward model: directory or hub id.")]
Prompts = Annotated[
    Path | None, typer.Option("--prompts", metavar="FILE", help="JSONL of prompts; without it the embedded ones.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.", callback=_quieten)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help=_OVERWRITE)]
Out = Annotated[Path | None, typer.Option(help="Directory of the run, in place of the recipe's.")]
Full = Annotated[bool, typer.Option("--full", help="A line for each preference, not only the pooled ones.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Go on without asking.")]


def confirm(question: str, hint: str) -> None:
    """Ask whether to go on, and stop the command unless the answer is yes.

    Raises:
        UsageError: nobody is at a terminal to answer.
    """
    if not sys.stdin.isatty():
        raise UsageError(question, hint)
    typer.confirm(neutralised(f"{question}\nGo on?"), abort=True, err=True)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Show that the block imports torch, which takes seconds; nothing where that is done."""
    with contextlib.nullcontext() if "torch" in sys.modules else stage("Importing torch and transformers"):
        yield


def read_as(
    kind: str,
    name: str,
    overrides: Sequence[str] | None,
    out: Path | None = None,
    options: Mapping[str, object] | None = None,
) -> Any:
    """Read a recipe that must be of one kind.

    Args:
        overrides: as given after --set.
        out: takes the place of its `output`.
        options: of the command line, by the field each stands for; None leaves a field as it is.

    Raises:
        RecipeError: it is wrong, or of another kind.
    """
    from pad_cli.recipe import read_recipe

    fields = {**(options or {}), "output": None if out is None else str(out)}
    values = {key: value for key, value in fields.items() if value is not None}
    recipe = read_recipe(name, overrides or [], values)
    if recipe.kind != kind:
        raise RecipeError(f"{name}: is a recipe of kind '{recipe.kind}'.", f"This command needs kind: {kind}")
    return recipe


def read_generate(
    name: str,
    overrides: Sequence[str] | None,
    policy: str | None = None,
    reward_model: str | None = None,
    **decoding: object,
) -> Any:
    """Read a generate recipe, with the models and decoding settings that the command line names."""
    options = {f"decoding.{key}": value for key, value in decoding.items()}
    models = {"policy.model": policy, "reward_model": reward_model}
    return read_as("generate", name, overrides, options={**options, **models})
