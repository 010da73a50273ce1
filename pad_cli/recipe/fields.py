"""The fields of recipes: as JSON Schema, which editors check YAML files with, and by the keys that `--set` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter

from pad_cli.errors import RecipeError, did_you_mean
from pad_cli.recipe.evaluation import EvalRecipe
from pad_cli.recipe.reproduce import ReproduceRecipe
from pad_cli.recipe.schema import AnyRecipe, BenchRecipe, GenerateRecipe, Recipe
from pad_cli.recipe.sweep import SweepRecipe
from pad_cli.recipe.training import TrainRecipe

KINDS: dict[str, type[BaseModel]] = {
    "train-rm": TrainRecipe,
    "generate": GenerateRecipe,
    "eval": EvalRecipe,
    "sweep": SweepRecipe,
    "reproduce": ReproduceRecipe,
    "bench": BenchRecipe,
}
"""What a recipe says as its `kind`, to its fields."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_kinds() -> tuple[str, ...]:
    return tuple(KINDS)


def recipe_schema(kind: str | None = None) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the recipes of a kind, or of all of them.

    Raises:
        RecipeError: there is no such kind.
    """
    if kind is None:
        return {"$schema": _DIALECT, "title": "A recipe of pad", **TypeAdapter(Recipe).json_schema()}
    if kind not in KINDS:
        raise RecipeError(f"No recipes are of kind '{kind}'.", did_you_mean(kind, KINDS))
    return {"$schema": _DIALECT, **KINDS[kind].model_json_schema(), "title": f"A recipe of kind {kind}"}


def field_keys(recipe: AnyRecipe) -> dict[str, str]:
    """The keys that can be changed in a recipe, `decoding.candidates` or `stages.0.beta`, to what each means."""
    return dict(_keys(recipe, ""))


def _keys(place: BaseModel, above: str) -> Iterator[tuple[str, str]]:
    for name, field in type(place).model_fields.items():
        if (above, name) != ("", "kind"):
            yield from _inside(getattr(place, name), f"{above}{name}", field.description or "")


def _inside(value: Any, key: str, description: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        yield from _keys(value, f"{key}.")
        return
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        items = iter(enumerate(value))
    parts = [(name, part) for name, part in items if isinstance(part, BaseModel)]
    if not parts:
        yield key, description
    for name, part in parts:
        yield from _keys(part, f"{key}.{name}.")
