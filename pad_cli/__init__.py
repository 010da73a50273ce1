"""PAD: personalised alignment of language models at decoding time.

The public API. Names are imported when first used, so that `import pad_cli` is fast and needs no torch.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pad_cli.offline import go_offline, offline

_HOMES = {
    "BenchRecipe": "pad_cli.recipe",
    "BenchmarkItem": "pad_cli.records",
    "Cell": "pad_cli.records",
    "DecodingSettings": "pad_cli.recipe",
    "Effect": "pad_cli.learning.effects",
    "Estimate": "pad_cli.training.estimate",
    "EvalRecipe": "pad_cli.recipe",
    "Fit": "pad_cli.decoding.fit",
    "GenerateRecipe": "pad_cli.recipe",
    "Generation": "pad_cli.records",
    "Inspection": "pad_cli.models.inspection",
    "JudgePlan": "pad_cli.evaluation.judge.run",
    "Limits": "pad_cli.server.reading",
    "ModelSettings": "pad_cli.recipe",
    "PadEngine": "pad_cli.decoding.engine",
    "PadError": "pad_cli.errors",
    "Pair": "pad_cli.learning.conflicts",
    "PairData": "pad_cli.records",
    "PairSplit": "pad_cli.records",
    "PersonalizedRewardModel": "pad_cli.models.reward_model",
    "PreferenceLogitsProcessor": "pad_cli.decoding.processor",
    "Preference": "pad_cli.preference",
    "PreferencePair": "pad_cli.records",
    "Profile": "pad_cli.profiles",
    "Remeasurement": "pad_cli.training.remeasure",
    "SweepRecipe": "pad_cli.recipe",
    "TrainRecipe": "pad_cli.recipe",
    "check_names": "pad_cli.recipe",
    "count_answers": "pad_cli.learning.conflicts",
    "bench_table": "pad_cli.benchmarking.report",
    "build_embedded": "pad_cli.embedded",
    "catalogue_kinds": "pad_cli.catalogue",
    "Demonstration": "pad_cli.demonstration",
    "Examination": "pad_cli.doctor",
    "Kept": "pad_cli.caches",
    "estimate": "pad_cli.training.estimate",
    "evaluate": "pad_cli.evaluation.run",
    "examine": "pad_cli.doctor",
    "export_preference": "pad_cli.personal_adapter",
    "export_users": "pad_cli.personal_adapter",
    "field_keys": "pad_cli.recipe",
    "find_recipe": "pad_cli.recipe",
    "fit_policy": "pad_cli.decoding.fit",
    "generate_file": "pad_cli.decoding.batch",
    "heat_map": "pad_cli.decoding.heat_map",
    "inspect_reward_model": "pad_cli.models.inspection",
    "judge": "pad_cli.evaluation.judge.run",
    "judge_tables": "pad_cli.evaluation.judge.table",
    "kept_hidden_states": "pad_cli.caches",
    "known_wordings": "pad_cli.models.inspection",
    "load_profile": "pad_cli.profiles",
    "load_recipe": "pad_cli.recipe",
    "load_reward_model": "pad_cli.models.checkpoint",
    "console_tables": "pad_cli.training.report",
    "only_here": "pad_cli.run_lock",
    "measure_effect": "pad_cli.learning.effects",
    "measure_pairs": "pad_cli.learning.conflicts",
    "names_of": "pad_cli.catalogue",
    "parts_of": "pad_cli.learning.effects",
    "plan_judging": "pad_cli.evaluation.judge.run",
    "profile_names": "pad_cli.profiles",
    "push_reward_model": "pad_cli.models.publishing",
    "read_facts": "pad_cli.training.report",
    "read_prompts": "pad_cli.learning.effects",
    "read_recipe": "pad_cli.recipe",
    "recipe_kinds": "pad_cli.recipe",
    "recipe_schema": "pad_cli.recipe",
    "recipe_text": "pad_cli.recipe",
    "remeasure_reward_model": "pad_cli.training.remeasure",
    "remove_hidden_states": "pad_cli.caches",
    "ReproduceRecipe": "pad_cli.recipe",
    "reproduce": "pad_cli.evaluation.reproduce",
    "report_table": "pad_cli.evaluation.report_table",
    "run_bench": "pad_cli.benchmarking.run",
    "run_demo": "pad_cli.demonstration",
    "run_sweep": "pad_cli.evaluation.sweep",
    "save_profile": "pad_cli.profiles",
    "shipped_recipes": "pad_cli.recipe",
    "serve": "pad_cli.server.run",
    "sweep_table": "pad_cli.evaluation.sweep_report",
    "train_reward_model": "pad_cli.training.train",
    "Learned": "pad_cli.learning.learn",
    "NewPrinciple": "pad_cli.learning.new_principle",
    "Session": "pad_cli.learning.session",
    "add_principle": "pad_cli.learning.new_principle",
    "learn_user": "pad_cli.learning.learn",
    "learn_users": "pad_cli.learning.learn",
    "make_pool": "pad_cli.learning.comparisons",
    "profile_path": "pad_cli.profiles",
    "read_choices": "pad_cli.learning.choices",
    "read_users": "pad_cli.learning.choices",
    "write_whole": "pad_cli.runs",
}
__all__ = sorted(_HOMES)

_LIGHT = ("caches", "catalogue", "doctor", "errors", "preference", "profiles", "recipe", "records", "runs")
"""Modules that import no torch."""

_around_imports: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

try:
    __version__ = version("pad-cli")
except PackageNotFoundError:
    __version__ = "0+unknown"


if offline():
    go_offline()  # before the hub's libraries are imported, which ask only once


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pad_cli' has no attribute '{name}'")
    home = _HOMES[name]
    at_once = home in sys.modules or home.removeprefix("pad_cli.") in _LIGHT
    with contextlib.nullcontext() if at_once else _around_imports():
        return getattr(importlib.import_module(home), name)


def show_imports(around: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
    """Have something shown while a public name is imported for the first time and brings torch, which takes seconds."""
    global _around_imports
    _around_imports = around


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
