"""What is answered while time is taken: random tokens, or prompts and preferences of a benchmark, which make sense."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pad_cli.decoding.engine import NO_PREFERENCE, PadEngine
from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel, same_vocabulary
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import RewardModel
from pad_cli.preference import Preference
from pad_cli.profiles import check_profiles
from pad_cli.records import BenchmarkItem

_SEED = 0


@dataclass(frozen=True)
class Questions:
    """One batch of B prompts, each under its own preference.

    Attributes:
        prompts: B prompts in the policy's tokens.
        backbone_prompts: the same in the backbone's tokens, with the preference where the reward model reads it there.
        preference_weights: (B, K) w_p.
    """

    prompts: list[list[int]]
    backbone_prompts: list[list[int]]
    preference_weights: torch.Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt, as the policy reads it."""
        return max(map(len, self.prompts))


def random_questions(engine: PadEngine, count: int, length: int) -> Questions:
    """Random tokens, the same every time, which both models read as they are.

    Each row is steered to one principle: the first to the reward model's first, and so on in turn.

    Raises:
        UsageError: the two models have different vocabularies.
    """
    model = _reward_model(engine)
    if not same_vocabulary(engine.policy, model.backbone):
        raise UsageError(
            f"Random tokens of '{engine.policy.name}' are no text that '{model.backbone.name}' could read: their "
            "vocabularies differ.",
            "Name a `benchmark` in the recipe: its prompts are text.",
        )
    prompts = _random_prompts(engine.policy, model.backbone, count, length)
    names = model.principles
    preferences = [NO_PREFERENCE] * count
    if names:
        preferences = [Preference({names[row % len(names)]: 1.0}, {}) for row in range(count)]
    return Questions(prompts, prompts, model.weights(preferences))


def benchmark_questions(engine: PadEngine, items: Sequence[BenchmarkItem], count: int) -> Questions:
    """So many of the items, spread evenly over them.

    Raises:
        UsageError: there are not so many.
        PreferenceError: the reward model does not know an item's preference.
        DataError: a prompt is empty, or a chat template refuses it.
    """
    if count > len(items):
        raise UsageError(f"The benchmark has {len(items)} items, too few for a batch of {count}.", "Lower batch_sizes.")
    model = _reward_model(engine)
    asked = [items[row * len(items) // count] for row in range(count)]
    check_profiles((profile for item in asked for profile in item.profiles), model)
    preferences = [engine.preference(item.preference) for item in asked]
    engine.check_prompts([(item.place or item.id, item.prompt) for item in asked])
    return Questions(
        [encode_prompt(engine.policy.tokenizer, item.prompt) for item in asked],
        [
            encode_prompt(model.backbone.tokenizer, model.prompt(item.prompt, preference))
            for item, preference in zip(asked, preferences, strict=True)
        ],
        model.weights(preferences),
    )


def _reward_model(engine: PadEngine) -> RewardModel:
    assert engine.reward_model is not None
    return engine.reward_model


def _random_prompts(policy: LanguageModel, backbone: LanguageModel, count: int, length: int) -> list[list[int]]:
    special = set(policy.tokenizer.all_special_ids)
    known = min(len(policy.tokenizer), policy.vocabulary_size, backbone.vocabulary_size)
    ordinary = [token for token in range(known) if token not in special]
    return [random.Random(f"{_SEED}/{row}").choices(ordinary, k=length) for row in range(count)]
