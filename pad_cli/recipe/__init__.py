"""Recipes (floor 2): what was asked, in YAML, checked before anything runs."""

from pad_cli.recipe.decoding import DecodingSettings
from pad_cli.recipe.evaluation import BenchmarkSettings, EvalRecipe, MethodSettings, ScorerSettings
from pad_cli.recipe.fields import check_names, field_keys, recipe_kinds, recipe_schema
from pad_cli.recipe.load import find_recipe, load_recipe, read_recipe, recipe_text, shipped_recipes
from pad_cli.recipe.models import ModelSettings
from pad_cli.recipe.reproduce import ReproduceRecipe
from pad_cli.recipe.schema import AnyRecipe, BenchRecipe, GenerateRecipe, Recipe
from pad_cli.recipe.sweep import SweepRecipe
from pad_cli.recipe.training import (
    AdapterStage,
    DataSettings,
    EncoderStage,
    HeadsStage,
    JointStage,
    LoraStage,
    PairsSettings,
    Stage,
    TrainRecipe,
)

__all__ = [
    "AdapterStage",
    "AnyRecipe",
    "BenchRecipe",
    "BenchmarkSettings",
    "DataSettings",
    "DecodingSettings",
    "EncoderStage",
    "EvalRecipe",
    "GenerateRecipe",
    "HeadsStage",
    "JointStage",
    "LoraStage",
    "MethodSettings",
    "ModelSettings",
    "PairsSettings",
    "Recipe",
    "ReproduceRecipe",
    "ScorerSettings",
    "Stage",
    "SweepRecipe",
    "TrainRecipe",
    "check_names",
    "field_keys",
    "find_recipe",
    "load_recipe",
    "read_recipe",
    "recipe_kinds",
    "recipe_schema",
    "recipe_text",
    "shipped_recipes",
]
