"""A finished reward model measured again: exact rewards from the model itself, whatever its form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pad_cli.errors import DataError, UsageError
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel
from pad_cli.pairs import load_pairs
from pad_cli.preference import Preference
from pad_cli.recipe import DataSettings, ModelSettings
from pad_cli.records import PreferencePair, as_messages
from pad_cli.training.evaluate_checkpoint import evaluate_checkpoint, evaluate_pairs
from pad_cli.training.train import train_reward_model
from tests.decoding.adapters import train_lora, with_adapter
from tests.models.test_prompt_reward_model import make_head
from tests.tiny import make_reward_model
from tests.training.conftest import MakeRecipe, make_rows, write_rows

ANSWERS = ("Begin with the king.", "Buy a camera, then wait for the light", "No.", "Why not?")
PAIRS = [
    PreferencePair(as_messages("How do I start?"), {"humorous": 1.0, "concise": -0.5}, chosen, rejected)
    for chosen, rejected in pairwise(ANSWERS)
]

adapted = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def exact_sums(model: PersonalizedRewardModel, pair: PreferencePair) -> tuple[float, float]:
    """What the reward model itself says of the two answers."""
    preference = Preference(pair.preference, {})
    chosen, rejected = (
        model.token_rewards(pair.prompt, answer, preference).sum() for answer in (pair.chosen, pair.rejected)
    )
    return chosen.item(), rejected.item()


@adapted
@pytest.mark.parametrize("has_adapter", [False, True])
def test_pairs_are_judged_by_the_models_own_rewards(
    reward_model: PersonalizedRewardModel, policy: LanguageModel, has_adapter: bool
) -> None:
    model = with_adapter(reward_model, train_lora(policy)) if has_adapter else reward_model
    sums = [exact_sums(model, pair) for pair in PAIRS]
    found = evaluate_pairs(model, PAIRS, policy)
    assert found.pair_accuracy == pytest.approx(
        sum(chosen > rejected for chosen, rejected in sums) / len(sums), abs=1e-4
    )
    margin = sum(chosen - rejected for chosen, rejected in sums) / len(sums)
    assert found.margin == pytest.approx(margin, abs=1e-4)
    swapped = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in PAIRS]
    assert evaluate_pairs(model, swapped, policy).pair_accuracy == pytest.approx(1 - found.pair_accuracy, abs=2e-4)


def test_without_guidance_the_likelier_answer_wins(
    reward_model: PersonalizedRewardModel, policy: LanguageModel
) -> None:
    found = evaluate_pairs(replace(reward_model, calibration=0.0), PAIRS, policy)
    plain = [[likelihood(policy, pair, answer) for answer in (pair.chosen, pair.rejected)] for pair in PAIRS]
    assert found.policy_accuracy == pytest.approx(
        sum(chosen > rejected for chosen, rejected in plain) / len(PAIRS), abs=1e-4
    )


def likelihood(policy: LanguageModel, pair: PreferencePair, answer: str) -> float:
    """Mean log-probability of an answer's tokens, by transformers' own forward."""
    from pad_cli.models.prompts import encode_answer, encode_prompt

    prompt, target = encode_prompt(policy.tokenizer, pair.prompt), encode_answer(policy.tokenizer, answer)
    logits = policy.model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None]).mean().item()


def test_a_trained_model_measures_the_same_on_its_validation_file(
    make_recipe: MakeRecipe, own_cache: Path, tmp_path: Path
) -> None:
    recipe = make_recipe()
    directory = train_reward_model(recipe)
    rows = write_rows(tmp_path / "again.jsonl", make_rows(60, seed=2))
    found = evaluate_checkpoint(str(directory), rows)
    assert found.pairs == len(load_pairs(DataSettings(train=rows, contrast=False), 0).train)
    assert found.pair_accuracy > 0.9


def test_the_released_form_is_relative_to_a_policy(policy: LanguageModel, other_policy: LanguageModel) -> None:
    model = PromptRewardModel(other_policy, make_head(other_policy.hidden_size))
    pairs = [replace(pair, preference={}, texts={"humorous": 1.0}) for pair in PAIRS]
    other, itself = evaluate_pairs(model, pairs, policy), evaluate_pairs(model, pairs, other_policy)
    assert other.margin != pytest.approx(itself.margin)


def test_the_released_form_without_a_policy_is_refused(other_policy: LanguageModel, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from tests.models.test_prompt_reward_model import VALUE_HEAD, tensors_of

    other_policy.model.save_pretrained(tmp_path / "released")
    other_policy.tokenizer.save_pretrained(tmp_path / "released")
    save_file(tensors_of(make_head(other_policy.hidden_size)), tmp_path / "released" / VALUE_HEAD)
    rows = write_rows(tmp_path / "pairs.jsonl", make_rows(4, seed=0))
    with pytest.raises(UsageError, match="relative to the policy"):
        evaluate_checkpoint(str(tmp_path / "released"), rows)


@pytest.mark.parametrize("preference", ["exes", {"exes": 1.0}])
def test_a_preference_that_the_model_does_not_know_is_named(
    policy: LanguageModel, model_directory: Path, tmp_path: Path, preference: object
) -> None:
    save_reward_model(make_reward_model(policy), tmp_path, ModelSettings(model=str(model_directory)))
    rows = [{**row, "preference": preference} for row in make_rows(4, seed=0)]
    with pytest.raises(DataError, match="exes") as caught:
        evaluate_checkpoint(str(tmp_path), write_rows(tmp_path / "pairs.jsonl", rows))
    assert caught.value.hint
