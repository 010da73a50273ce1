"""PAD: personalised alignment of language models at decoding time. These names are the public API.

They are imported when first used, so that `import pad_cli` is fast and needs no torch.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
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


def _modules() -> dict[str, str]:
    """Public name to its module: the imports above, which only type checkers execute, read from this file's source."""
    source = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    block = next(node for node in source.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_HOMES = _modules()
__all__ = sorted(_HOMES)  # computed from the imports

if offline():
    go_offline()  # before the hub's libraries are imported, which ask only once


if not TYPE_CHECKING:  # for a module with `__getattr__`, type checkers would accept any name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version  # slow: it brings Python's `email`

            return version("pad-cli")
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'pad_cli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), "__version__", *_HOMES]
