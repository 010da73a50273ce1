"""What several commands share: options, and reading a recipe of the command's kind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pad_cli.errors import PadError, RecipeError
from pad_cli.system.progress import set_quiet


def complete(*kinds: str) -> Callable[[str], list[tuple[str, str]]]:
    """What a shell offers while a name is typed: those of some kinds of the catalogue, each with a line about it."""

    def offer(incomplete: str) -> list[tuple[str, str]]:
        with contextlib.suppress(PadError, OSError):
            from pad_cli.recipe.catalogue import names_of

            return [each for kind in kinds for each in names_of(kind).items()]
        return []

    return offer


complete_recipes, complete_preferences = complete("recipes"), complete("principles", "profiles")


def recipe_argument(kind: str) -> Any:
    """A recipe of one kind."""
    about = f"{'An' if kind.startswith('e') else 'A'} {kind} recipe: a file or a shipped name."
    return typer.Argument(help=about, autocompletion=complete_recipes)


def _quieten(quiet: bool) -> bool:
    set_quiet(quiet)
    return quiet


_RECIPE = "A generate recipe: a file or a shipped name; default: the one that ships for the policy."
_SET = "Override a recipe key, for example decoding.candidates=20; repeat."
_PREF = "humorous, concise=0.5, 'not formal', a profile (@me), or free text; repeat."
_OVERWRITE = "Overwrite existing files, even those that another program wrote."

Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_SET)]
GenerateRecipeName = Annotated[str | None, typer.Option("--recipe", help=_RECIPE, autocompletion=complete_recipes)]
Preferences = Annotated[
    list[str] | None,
    typer.Option("--pref", "-p", metavar="PREFERENCE", help=_PREF, autocompletion=complete_preferences),
]
Weight = Annotated[float | None, typer.Option("--weight", "-w", help="Guidance weight; 0 is the policy alone.")]
Policy = Annotated[str | None, typer.Option("--policy", help="Language model to steer: directory or hub id.")]
RewardModel = Annotated[str | None, typer.Option("--reward-model", help="A reward model: directory or hub id.")]
Prompts = Annotated[
    Path | None, typer.Option("--prompts", metavar="FILE", help="JSONL file of prompts; default: the embedded prompts.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.", callback=_quieten)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help=_OVERWRITE)]
Out = Annotated[Path | None, typer.Option(help="Run directory; overrides the recipe's `output`.")]
Full = Annotated[bool, typer.Option("--full", help="Show a row for each preference, not only the pooled rows.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only estimate the cost.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Continue without asking for confirmation.")]


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

    recipe = read_recipe(name, overrides or [], {**(options or {}), "output": None if out is None else str(out)})
    if recipe.kind != kind:
        raise RecipeError(f"{name}: is a recipe of kind '{recipe.kind}'.", f"This command needs kind: {kind}")
    return recipe


def read_generate(
    name: str | None,
    overrides: Sequence[str] | None,
    policy: str | None = None,
    reward_model: str | None = None,
    **decoding: object,
) -> Any:
    """Read a generate recipe, with the models and decoding settings that the command line names.

    Without a recipe it is `SOURCE-generate`, if that ships for the registered source of the policy, or that of the
    embedded models.
    """
    options = {f"decoding.{key}": value for key, value in decoding.items()}
    models = {"policy.model": policy, "reward_model": reward_model}
    return read_as("generate", name or default_recipe(policy), overrides, options={**options, **models})


def default_recipe(policy: str | None = None) -> str:
    """The generate recipe that ships for a policy."""
    from pad_cli.recipe import shipped_recipes
    from pad_cli.registry import model_source

    own = f"{None if policy is None else model_source(policy)}-generate"
    return own if own in shipped_recipes() else "embedded-generate"
