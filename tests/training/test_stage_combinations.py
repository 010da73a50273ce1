"""Every order of stages gives a checkpoint whose rewards are those that training measured, and which decodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pad_cli.decoding.compatibility import choose_path
from pad_cli.decoding.engine import PadEngine
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import DecodingSettings, TrainRecipe
from pad_cli.records import as_messages
from pad_cli.training.train import METRICS, train_reward_model
from tests.agreement import alone, assert_agree
from tests.training.conftest import STAGE, TEXTS, MakeRecipe, make_rows

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # by peft

LORA = {"steps": 6, "batch_size": 8, "lora_rank": 2, "warmup_steps": 2, "learning_rate": 0.01}
ADAPTER, JOINT = {"stage": "adapter", **LORA}, {"stage": "joint", **LORA, "heads_learning_rate": 0.03}
HEADS = {"stage": "heads", **STAGE, "steps": 20}
ENCODER = {"stage": "encoder", "hidden_size": 16, **STAGE, "steps": 10}
COMBINATIONS = {
    "adapter": [ADAPTER],
    "adapter, heads": [ADAPTER, HEADS],
    "heads, adapter": [HEADS, ADAPTER],
    "joint": [JOINT],
    "heads, joint, encoder": [HEADS, JOINT, ENCODER],
    "adapter, joint": [ADAPTER, JOINT],
}


def measured(recipe: TrainRecipe) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(recipe.output) / METRICS).read_text())["held_out"]
    return content


def margins(recipe: TrainRecipe, policy: LanguageModel) -> torch.Tensor:
    """Of the held-out pairs, from the checkpoint: what the loaded reward model itself says, an answer at a time."""
    model = load_reward_model(recipe.output, backbone=policy)
    found = []
    for row in make_rows(60, seed=2):
        preference = model.preference([row["preference"]])
        sums = [
            model.token_rewards(as_messages(row["prompt"]), row[side], preference).sum()
            for side in ("chosen", "rejected")
        ]
        found.append(sums[0] - sums[1])
    if model.adapter is not None:
        model.adapter.remove_hooks()
    return torch.stack(found)


@pytest.mark.parametrize("stages", COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_the_checkpoint_gives_the_rewards_that_were_measured(
    make_recipe: MakeRecipe, policy: LanguageModel, stages: list[dict[str, Any]]
) -> None:
    recipe = make_recipe(data={"texts": TEXTS}, stages=stages)
    train_reward_model(recipe)
    found = margins(recipe, policy)
    assert measured(recipe)["margin"] == pytest.approx(found.mean().item(), abs=2e-3)
    assert measured(recipe)["pair_accuracy"] == pytest.approx((found > 0).float().mean().item(), abs=0.02)


@pytest.mark.parametrize("stages", [[ADAPTER, HEADS], [JOINT]], ids=["adapter, heads", "joint"])
def test_an_adapter_decodes_through_paired_and_steers(
    make_recipe: MakeRecipe, policy: LanguageModel, stages: list[dict[str, Any]]
) -> None:
    recipe = make_recipe(stages=stages)
    train_reward_model(recipe)
    model = load_reward_model(recipe.output, backbone=policy)
    assert choose_path(policy, model, "auto") == "paired"
    engine, prompts = PadEngine(policy, model), ["Write a1", "Write b2"]
    preferences = [model.preference(["exes"])] * 2
    settings = [DecodingSettings(path=path, guidance_weight=3) for path in ("paired", "separate")]
    paired, separate = (engine.generate(prompts, preferences, how) for how in settings)
    assert_agree(paired, separate, alone(engine, prompts, preferences, settings[0]))
    assert paired != engine.generate(prompts, None)
    assert model.adapter is not None
    model.adapter.remove_hooks()
