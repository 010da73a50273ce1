"""Recipes (floor 2): what was asked, in YAML, checked before anything runs."""

from pad_cli.recipe.load import find_recipe, load_recipe, read_recipe, recipe_text, shipped_recipes
from pad_cli.recipe.schema import (
    BenchmarkSettings,
    BenchRecipe,
    DataSettings,
    DecodingSettings,
    EncoderStage,
    EvalRecipe,
    GenerateRecipe,
    HeadsStage,
    ModelSettings,
    Recipe,
    TrainRecipe,
)

__all__ = [
    "BenchRecipe",
    "BenchmarkSettings",
    "DataSettings",
    "DecodingSettings",
    "EncoderStage",
    "EvalRecipe",
    "GenerateRecipe",
    "HeadsStage",
    "ModelSettings",
    "Recipe",
    "TrainRecipe",
    "find_recipe",
    "load_recipe",
    "read_recipe",
    "recipe_text",
    "shipped_recipes",
]
