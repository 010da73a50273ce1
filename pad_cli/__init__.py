"""PAD: personalised alignment of language models at decoding time. These names are the public API.

They are imported when first used, so that `import pad_cli` is fast and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pad_cli.system.offline import go_offline, offline

if TYPE_CHECKING:
    from pad_cli.bench.timing import run_bench as run_bench
    from pad_cli.decoding.engine import PadEngine as PadEngine
    from pad_cli.decoding.heat_map import heat_map as heat_map
    from pad_cli.decoding.processor import PreferenceLogitsProcessor as PreferenceLogitsProcessor
    from pad_cli.errors import PadError as PadError
    from pad_cli.evaluation.evaluate import evaluate as evaluate
    from pad_cli.evaluation.evaluate import reproduce as reproduce
    from pad_cli.evaluation.judge.judging import judge as judge
    from pad_cli.evaluation.judge.judging import plan_judging as plan_judging
    from pad_cli.evaluation.sweep import run_sweep as run_sweep
    from pad_cli.learning.choices import read_choices as read_choices
    from pad_cli.learning.choices import read_users as read_users
    from pad_cli.learning.new_principle import add_principle as add_principle
    from pad_cli.learning.user_weights import learn_user as learn_user
    from pad_cli.learning.user_weights import learn_users as learn_users
    from pad_cli.models.checkpoint import load_reward_model as load_reward_model
    from pad_cli.models.inference_only import inference_only as inference_only
    from pad_cli.models.inspection import inspect_reward_model as inspect_reward_model
    from pad_cli.models.reward_model import PersonalizedRewardModel as PersonalizedRewardModel
    from pad_cli.preference import Preference as Preference
    from pad_cli.principles import read_library as read_library
    from pad_cli.profiles import Profile as Profile
    from pad_cli.profiles import load_profile as load_profile
    from pad_cli.profiles import save_profile as save_profile
    from pad_cli.recipe import BenchRecipe as BenchRecipe
    from pad_cli.recipe import DecodingSettings as DecodingSettings
    from pad_cli.recipe import EvalRecipe as EvalRecipe
    from pad_cli.recipe import GenerateRecipe as GenerateRecipe
    from pad_cli.recipe import ModelSettings as ModelSettings
    from pad_cli.recipe import ReproduceRecipe as ReproduceRecipe
    from pad_cli.recipe import SweepRecipe as SweepRecipe
    from pad_cli.recipe import TrainRecipe as TrainRecipe
    from pad_cli.recipe import load_recipe as load_recipe
    from pad_cli.recipe import read_recipe as read_recipe
    from pad_cli.records import BenchmarkItem as BenchmarkItem
    from pad_cli.records import Generation as Generation
    from pad_cli.records import PairData as PairData
    from pad_cli.records import PairSplit as PairSplit
    from pad_cli.records import PreferencePair as PreferencePair
    from pad_cli.server.http_server import serve as serve
    from pad_cli.server.lora_export import export_preference as export_preference
    from pad_cli.server.request_reader import Limits as Limits
    from pad_cli.training.evaluate_checkpoint import evaluate_checkpoint as evaluate_checkpoint
    from pad_cli.training.train import train_reward_model as train_reward_model

    __version__: str

_PUBLIC = {
    "bench.timing": ("run_bench",),
    "decoding.engine": ("PadEngine",),
    "decoding.heat_map": ("heat_map",),
    "decoding.processor": ("PreferenceLogitsProcessor",),
    "errors": ("PadError",),
    "evaluation.evaluate": ("evaluate", "reproduce"),
    "evaluation.judge.judging": ("judge", "plan_judging"),
    "evaluation.sweep": ("run_sweep",),
    "learning.choices": ("read_choices", "read_users"),
    "learning.new_principle": ("add_principle",),
    "learning.user_weights": ("learn_user", "learn_users"),
    "models.checkpoint": ("load_reward_model",),
    "models.inference_only": ("inference_only",),
    "models.inspection": ("inspect_reward_model",),
    "models.reward_model": ("PersonalizedRewardModel",),
    "preference": ("Preference",),
    "principles": ("read_library",),
    "profiles": ("Profile", "load_profile", "save_profile"),
    "recipe": (
        "BenchRecipe",
        "DecodingSettings",
        "EvalRecipe",
        "GenerateRecipe",
        "ModelSettings",
        "ReproduceRecipe",
        "SweepRecipe",
        "TrainRecipe",
        "load_recipe",
        "read_recipe",
    ),
    "records": ("BenchmarkItem", "Generation", "PairData", "PairSplit", "PreferencePair"),
    "server.http_server": ("serve",),
    "server.lora_export": ("export_preference",),
    "server.request_reader": ("Limits",),
    "training.evaluate_checkpoint": ("evaluate_checkpoint",),
    "training.train": ("train_reward_model",),
}
"""Module to the public names that it holds; the imports above are the same for type checkers and editors."""

_FORMER = {
    "bench.timing": ("bench_table",),
    "cli.doctor": ("examine",),
    "decoding.batch": ("check_answers_output", "generate_file"),
    "decoding.compatibility": ("Fit", "fit_policy"),
    "decoding.heat_map": ("check_page_output",),
    "evaluation.judge.judging": ("JudgePlan",),
    "learning.question_session": ("Session", "make_pool"),
    "learning.trade_offs": ("Effect", "count_answers", "measure_effect", "parts_of", "read_prompts"),
    "learning.user_weights": ("Learned",),
    "models.inference_only": ("spare_threads",),
    "models.inspection": ("Inspection",),
    "models.publishing": ("push_reward_model",),
    "principles": ("Principle", "find_principle", "load_principles"),
    "profiles": ("check_profile_output", "profile_names", "profile_path"),
    "recipe": (
        "check_names",
        "find_recipe",
        "recipe_text",
        "shipped_recipes",
    ),
    "recipe.catalogue": ("catalogue_kinds", "names_of"),
    "records": ("Cell",),
    "reports.evaluation_tables": (
        "judge_tables",
        "report_table",
        "sweep_table",
    ),
    "reports.training_report": ("console_tables",),
    "server.lora_export": ("check_adapter_output", "export_users"),
    "system.runs": ("check_output", "only_here", "write_whole"),
    "training.estimate": ("Estimate", "estimate"),
    "world.demonstration": ("Demonstration", "run_demo"),
}
"""Public names of version 0.1 that are no longer, and where they are."""
_RENAMED = {
    "Pair": "learning.trade_offs.TradeOff",
    "Remeasurement": "training.evaluate_checkpoint.CheckpointMetrics",
    "build_embedded": "world.build.build",
    "known_wordings": "models.inspection.known_paraphrases",
    "measure_pairs": "learning.trade_offs.measure_trade_offs",
    "read_facts": "training.record.read_training_record",
    "remeasure_reward_model": "training.evaluate_checkpoint.evaluate_checkpoint",
}

_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
_MOVED = {name: f"{module}.{name}" for module, names in _FORMER.items() for name in names} | _RENAMED
__all__ = sorted(_HOMES)  # computed from the table

if offline():
    go_offline()  # before the hub's libraries are imported, which ask only once


if not TYPE_CHECKING:  # for a module with `__getattr__`, type checkers would accept any name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return _version()
        if name in _HOMES:
            return getattr(importlib.import_module(f"pad_cli.{_HOMES[name]}"), name)
        hint = f" any more; it is pad_cli.{_MOVED[name]}" if name in _MOVED else ""
        raise AttributeError(f"module 'pad_cli' has no attribute '{name}'{hint}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow: it brings Python's `email`

    try:
        return version("pad-cli")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return [*globals(), "__version__", *_HOMES]
