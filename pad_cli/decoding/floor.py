"""The safety floor: weights that some principles have under every preference (`always` in a recipe).

    w_k >= always_k      for every answer that is guided, whatever preference, profile or free text adds up to

Principles are held up, not outcomes: guidance weight 0 is still the policy alone, and other principles may still be
asked for more strongly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from pad_cli.errors import PreferenceError, UsageError, did_you_mean
from pad_cli.models.reward_model import RewardModel


def safety_floor(always: Mapping[str, float], model: RewardModel | None) -> dict[str, float]:
    """The floor in the reward model's own names.

    Args:
        always: principle to least weight, as in a recipe.
        model: what is steered with.

    Raises:
        PreferenceError: the reward model does not know a principle.
        UsageError: there is none that has principles, or a weight is not above 0.
    """
    if always and (model is None or not model.principles):
        raise UsageError(
            "`always` needs a reward model with named principles: words in a prompt cannot be held up.",
            "Leave `always` out, or name another reward model.",
        )
    names = {} if model is None else {name.lower(): name for name in model.principles}
    for name, weight in always.items():
        if name.lower() not in names:
            raise PreferenceError(f"always: unknown principle '{name}'.", did_you_mean(name, names.values()))
        if not 0 < weight < math.inf:
            raise UsageError(f"always: {weight} is no weight for '{name}'.", "Give a number above 0.")
    return {names[name.lower()]: weight for name, weight in always.items()}


def hold_up(weights: torch.Tensor, always: Mapping[str, float], principles: Sequence[str]) -> torch.Tensor:
    """Weights with none below the floor: (N, K), K the principles, to (N, K).

    Named weights are there already (`with_floor`); here free text, which a preference encoder reads as weights of all
    principles, is kept from taking them away again.
    """
    floor = [always.get(name, -math.inf) for name in principles]
    return torch.maximum(weights, weights.new_tensor(floor))
