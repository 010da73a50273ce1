"""The fields of recipes: as JSON Schema, which editors check YAML files with, and by the keys that `--set` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from pad_cli.errors import RecipeError, did_you_mean
from pad_cli.recipe.evaluation import EvalRecipe
from pad_cli.recipe.reproduce import ReproduceRecipe
from pad_cli.recipe.schema import AnyRecipe, BenchRecipe, GenerateRecipe, Recipe
from pad_cli.recipe.sweep import SweepRecipe
from pad_cli.recipe.training import TrainRecipe
from pad_cli.registry import BENCHMARKS, METHODS, SCORERS

KINDS: dict[str, type[BaseModel]] = {
    "train-rm": TrainRecipe,
    "generate": GenerateRecipe,
    "eval": EvalRecipe,
    "sweep": SweepRecipe,
    "reproduce": ReproduceRecipe,
    "bench": BenchRecipe,
}
"""What a recipe says as its `kind`, to its fields."""

_REGISTERED = {"scorer": SCORERS, "method": METHODS, "benchmark": BENCHMARKS}  # fields that hold a name
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


@dataclass(frozen=True)
class FieldKey:
    """A field of a recipe that can be changed.

    Attributes:
        description: what it means.
        values: what may stand there: all there is where that is known, else what stands there now.
    """

    description: str
    values: tuple[str, ...]


def field_keys(recipe: AnyRecipe) -> dict[str, FieldKey]:
    """The keys that can be changed in a recipe, for example `decoding.candidates` or `stages.0.beta`."""
    return dict(_keys(recipe, ""))


def check_names(recipe: AnyRecipe, source: str = "recipe") -> None:
    """Make sure that the scorers, methods and benchmarks of a recipe are registered; nothing is imported.

    Raises:
        RecipeError: with all that are not.
    """
    lines = []
    for key, name in _registered(recipe, ""):
        registry = _REGISTERED[key.rpartition(".")[2]]
        if name not in registry.names():
            lines.append(f"{source}: {key}: no such name '{name}'. {did_you_mean(name, registry.names())}")
    if lines:
        raise RecipeError("\n".join(lines), "All there are: pad list")


def _registered(place: Any, above: str) -> Iterator[tuple[str, str]]:
    """Names of registered things, with their keys."""
    parts: list[tuple[Any, Any]] = []
    if isinstance(place, BaseModel):
        parts = list(place)
    elif isinstance(place, Mapping):
        parts = list(place.items())
    elif isinstance(place, list | tuple):
        parts = list(enumerate(place))
    for name, part in parts:
        if isinstance(place, BaseModel) and name in _REGISTERED and isinstance(part, str):
            yield f"{above}{name}", part
        else:
            yield from _registered(part, f"{above}{name}.")


def _keys(place: BaseModel, above: str) -> Iterator[tuple[str, FieldKey]]:
    for name, field in type(place).model_fields.items():
        if len(get_args(field.annotation)) != 1 or get_origin(field.annotation) is not Literal:  # kind, stage
            value = getattr(place, name)
            key = FieldKey(field.description or "", _values(name, field.annotation, value))
            yield from _inside(value, f"{above}{name}", key)


def _values(name: str, annotation: Any, value: Any) -> tuple[str, ...]:
    if name in _REGISTERED and annotation is str:
        return tuple(_REGISTERED[name].names())
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if annotation is bool:
        return ("true", "false")
    return (str(value),) if isinstance(value, str | int | float) and value != "" else ()


def _inside(value: Any, key: str, field: FieldKey) -> Iterator[tuple[str, FieldKey]]:
    """The fields of what stands at a key, or the key itself where there are none."""
    if isinstance(value, BaseModel):
        yield from _keys(value, f"{key}.")
        return
    items: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        items = list(enumerate(value))
    parts = [(name, part) for name, part in items if isinstance(part, BaseModel)]
    if not parts:
        yield key, field
    for name, part in parts:
        yield from _keys(part, f"{key}.{name}.")
