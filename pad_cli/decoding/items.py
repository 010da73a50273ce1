"""What to answer: one prompt in tokens, its preference and guidance weight; and the safety floor of preferences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from pad_cli.errors import PreferenceError, UsageError, did_you_mean
from pad_cli.models.reward_model import RewardModel
from pad_cli.preference import Preference


@dataclass(frozen=True)
class Item:
    """One prompt to answer."""

    prompt: list[int]  # in the policy's tokens
    backbone_prompt: list[int]  # in the backbone's
    preference: Preference  # empty for none
    guidance_weight: float  # not calibrated
    stream: str  # decides what sampling draws


def safety_floor(always: Mapping[str, float], model: RewardModel | None) -> dict[str, float]:
    """The safety floor (`always` in a recipe) in the reward model's own names: w_k >= always_k in guided answers."""
    if always and (model is None or not model.principles):
        raise UsageError(
            "`always` needs a reward model with named principles: words in a prompt have no minimum weight.",
            "Leave `always` out, or name another reward model.",
        )
    names = {} if model is None else {name.lower(): name for name in model.principles}
    for name, weight in always.items():
        if name.lower() not in names:
            raise PreferenceError(f"always: unknown principle '{name}'.", did_you_mean(name, names.values()))
        if not 0 < weight < math.inf:
            raise UsageError(f"always: {weight} is not a weight for '{name}'.", "Give a number above 0.")
    return {names[name.lower()]: weight for name, weight in always.items()}


def clamp_to_minimum(weights: torch.Tensor, always: Mapping[str, float], principles: Sequence[str]) -> torch.Tensor:
    """Weights (N, K) of the K principles, none below the safety floor.

    Free text, which a preference encoder reads as weights of all principles, cannot take a named minimum away.
    """
    floor = [always.get(name, -math.inf) for name in principles]
    return torch.maximum(weights, weights.new_tensor(floor))
