"""All kinds of recipes: their union, JSON Schema for editors, and the keys that `--set` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from pad_cli.errors import RecipeError, did_you_mean
from pad_cli.recipe.evaluation import BenchmarkSettings, EvalRecipe, ReproduceRecipe, SweepRecipe
from pad_cli.recipe.settings import Always, DecodingSettings, ModelSettings, Settings
from pad_cli.recipe.training import TrainRecipe
from pad_cli.registry import BENCHMARKS, METHODS, SCORERS


class GenerateRecipe(Settings):
    kind: Literal["generate"]
    policy: ModelSettings = Field(description="The frozen language model to steer.")
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    decoding: DecodingSettings = Field(default_factory=lambda: DecodingSettings(), description="How to decode.")
    always: Always = Field(default_factory=dict, description="Minimum weights: principle to the least weight it has.")


class BenchRecipe(Settings):
    kind: Literal["bench"]
    policy: ModelSettings = Field(description="The frozen language model to steer.")
    reward_model: str = Field(description="Directory of a trained reward model, or `embedded/reward-model`.")
    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [1, 8], min_length=1, description="Answers decoded together; each is measured."
    )
    prompt_tokens: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [128], min_length=1, description="Lengths of the prompts (tokens); each is measured."
    )
    benchmark: BenchmarkSettings | None = Field(
        None, description="Answer this benchmark's prompts and preferences, in place of random tokens."
    )
    new_tokens: int = Field(64, ge=1, description="Length of every answer (tokens).")
    repeats: int = Field(5, ge=1, description="How often each path is timed; medians are reported.")
    decoding: DecodingSettings = Field(
        default_factory=lambda: DecodingSettings(), description="How to decode; greedy. `path: auto` measures all."
    )
    threads: int | None = Field(1, ge=1, description="CPU threads; 1 is timed in CPU time; null: torch's own number.")

    @model_validator(mode="after")
    def _consistent(self) -> BenchRecipe:
        timed = {"guidance_weight", "candidates", "reward_ngram", "path"}
        for name in sorted(self.decoding.model_fields_set - timed):
            raise ValueError(f"`decoding.{name}` cannot be set: answers are greedy and have `new_tokens` tokens")
        if self.decoding.guidance_weight == 0:
            raise ValueError("`decoding.guidance_weight` must not be 0: there would be no guidance to time")
        if self.benchmark is not None and "prompt_tokens" in self.model_fields_set:
            raise ValueError("`prompt_tokens` cannot be set: the prompts of a `benchmark` have their own lengths")
        return self


AnyRecipe = TrainRecipe | GenerateRecipe | EvalRecipe | SweepRecipe | ReproduceRecipe | BenchRecipe
Recipe = Annotated[AnyRecipe, Field(discriminator="kind")]

KINDS: dict[str, type[BaseModel]] = {
    "train-rm": TrainRecipe,
    "generate": GenerateRecipe,
    "eval": EvalRecipe,
    "sweep": SweepRecipe,
    "reproduce": ReproduceRecipe,
    "bench": BenchRecipe,
}
"""The `kind` of a recipe to its fields."""

_REGISTRIES = {"scorer": SCORERS, "method": METHODS, "benchmark": BENCHMARKS}  # fields that hold a registered name
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_kinds() -> tuple[str, ...]:
    return tuple(KINDS)


def recipe_schema(kind: str | None = None) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the recipes of one kind, or of all; a RecipeError if there is no such kind."""
    if kind is None:
        return {"$schema": _DIALECT, "title": "A recipe of pad", **TypeAdapter(Recipe).json_schema()}
    if kind not in KINDS:
        raise RecipeError(f"No recipes are of kind '{kind}'.", did_you_mean(kind, KINDS))
    return {"$schema": _DIALECT, **KINDS[kind].model_json_schema(), "title": f"A recipe of kind {kind}"}


class FieldKey(NamedTuple):
    """A field of a recipe that can be changed; `values` are all possible ones if known, else the present one."""

    description: str
    values: tuple[str, ...]


def field_keys(recipe: AnyRecipe) -> dict[str, FieldKey]:
    """The keys that can be changed in a recipe, for example `decoding.candidates` or `stages.0.beta`."""
    return {key: FieldKey(text, _values(key.rpartition(".")[2], *typed)) for key, text, *typed in _fields(recipe, "")}


def check_names(recipe: AnyRecipe, source: str = "recipe") -> None:
    """Make sure that the scorers, methods and benchmarks of a recipe are registered; nothing is imported.

    Raises:
        RecipeError: with all that are not.
    """
    lines = []
    for key, _, annotation, name in _fields(recipe, ""):
        registry = _REGISTRIES.get(key.rpartition(".")[2])
        if registry is not None and annotation is str and name not in registry.names():
            lines.append(f"{source}: {key}: no such name '{name}'. {did_you_mean(name, registry.names())}")
    if lines:
        raise RecipeError("\n".join(lines), "All there are: pad list")


def _fields(settings: BaseModel, prefix: str) -> Iterator[tuple[str, str, Any, Any]]:
    """Key, description, annotation and value of every field that holds no further settings, nested ones included."""
    for name, field in type(settings).model_fields.items():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
            continue  # kind, stage
        value = getattr(settings, name)
        nested = [(f"{prefix}{name}{part}.", below) for part, below in _nested(value)]
        for above, below in nested:
            yield from _fields(below, above)
        if not nested:
            yield f"{prefix}{name}", field.description or "", field.annotation, value


def _nested(value: Any) -> list[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        return [("", value)]
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return [(f".{key}", item) for key, item in items if isinstance(item, BaseModel)]


def _values(name: str, annotation: Any, value: Any) -> tuple[str, ...]:
    if name in _REGISTRIES and annotation is str:
        return tuple(_REGISTRIES[name].names())
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if annotation is bool:
        return ("true", "false")
    return (str(value),) if isinstance(value, str | int | float) and value != "" else ()
