"""Features of choices: the slopes of the exact rewards, whatever the batch."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from pad_cli.errors import UsageError
from pad_cli.learning import user_weights as module
from pad_cli.learning.choices import Comparison
from pad_cli.learning.user_weights import choice_features
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel
from pad_cli.preference import Preference
from pad_cli.records import as_messages
from tests.architectures import make_architecture
from tests.decoding.adapters import LINEARS, train_lora, with_adapter
from tests.tiny import make_reward_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

_STEP = 0.05


def make_comparisons(count: int, seed: int = 0) -> list[Comparison]:
    rng = random.Random(seed)

    def text() -> str:
        return "".join(rng.choice("abcdefgh ") for _ in range(rng.randint(3, 12)))

    return [Comparison(as_messages(f"Write {text()}"), f"x{text()}", f"y{text()}") for _ in range(count)]


def make_model(name: str, tokenizer: Any, *, adapted: bool) -> PersonalizedRewardModel:
    backbone = make_architecture(name, tokenizer)
    model = make_reward_model(backbone)
    return with_adapter(model, train_lora(backbone, LINEARS[name])) if adapted else model


def exact(model: PersonalizedRewardModel, choice: Comparison, weights: dict[str, float]) -> float:
    """The exact reward of the first answer less that of the second one."""
    preference = Preference(weights, {})
    rewards = [model.token_rewards(choice.prompt, text, preference) for text in (choice.first, choice.second)]
    return float(rewards[0].double().sum() - rewards[1].double().sum())


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_slopes_and_offsets_are_those_of_the_exact_rewards(byte_tokenizer: Any, name: str, adapted: bool) -> None:
    model = make_model(name, byte_tokenizer, adapted=adapted)
    choices = make_comparisons(3)
    found = choice_features(model, choices)
    for row, choice in enumerate(choices):
        slopes = [
            (exact(model, choice, {key: _STEP}) - exact(model, choice, {key: -_STEP})) / (2 * _STEP)
            for key in model.principles
        ]
        np.testing.assert_allclose(found.slopes[row], slopes, rtol=0.02, atol=0.02)
        np.testing.assert_allclose(found.offsets[row], exact(model, choice, {}), atol=1e-4)
    assert np.abs(found.slopes).max() > 0.1
    assert adapted == bool(np.abs(found.offsets).max() > 0.1)


def test_a_batch_equals_single_choices(byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama", byte_tokenizer, adapted=True)
    choices = make_comparisons(7)
    together = choice_features(model, choices)
    alone = [choice_features(model, [choice]) for choice in choices]
    monkeypatch.setattr("pad_cli.models.scoring._BATCH_TOKENS", 60)
    small = choice_features(model, choices)
    for other in (small, alone_as_one(alone)):
        np.testing.assert_allclose(together.slopes, other.slopes, atol=1e-4)
        np.testing.assert_allclose(together.offsets, other.offsets, atol=1e-4)


def alone_as_one(parts: list[module.Features]) -> module.Features:
    return module.Features(np.concatenate([p.slopes for p in parts]), np.concatenate([p.offsets for p in parts]))


def test_every_distinct_answer_is_read_once(reward_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_comparisons(2)
    third = Comparison(first.prompt, first.second, second.first)
    read: list[int] = []
    inner = module.answer_states

    def counting(backbone: Any, batch: Any, adapter: Any = None) -> torch.Tensor:
        read.append(len(batch))
        return inner(backbone, batch, adapter)

    monkeypatch.setattr(module, "answer_states", counting)
    found = choice_features(reward_model, [first, second, third, first])
    assert sum(read) == 5
    np.testing.assert_array_equal(found.slopes[0], found.slopes[3])


def test_the_opposite_choice_has_the_opposite_slopes(reward_model: Any) -> None:
    (choice,) = make_comparisons(1)
    found = choice_features(reward_model, [choice, Comparison(choice.prompt, choice.second, choice.first)])
    np.testing.assert_array_equal(found.slopes[0], -found.slopes[1])


def test_a_reward_model_that_reads_preferences_in_its_prompt_is_refused(policy: Any) -> None:
    model = PromptRewardModel(policy, torch.nn.Linear(policy.hidden_size, policy.hidden_size))
    with pytest.raises(UsageError, match="no weights that could be learned"):
        choice_features(model, make_comparisons(1))
