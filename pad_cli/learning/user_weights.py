"""A user's weights from choices or replies, how well they predict that user, and whether more would help.

The weights are the mean of `posterior.py`'s sample. A penalised logistic regression with a Laplace interval was less
accurate and less certain at any number of choices; see docs/preferences.md for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from pad_cli.learning.choices import Choices
from pad_cli.learning.differences import Array, Basis, Differences, basis_of, differences
from pad_cli.learning.features import Features, choice_features
from pad_cli.learning.posterior import Posterior
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.system.progress import bar
from pad_cli.training.metrics import Share, share_of

_SMALL = 0.15  # share of the largest weight below which a weight is dropped if its interval includes 0
_LARGEST = 2.0  # the largest weight; see docs/preferences.md for what others steered
_ENOUGH = 0.9  # certainty from which more choices would change little


class Reply(NamedTuple):
    """One answered comparison.

    Attributes:
        seen: what its answers differ in (N = 1), first less second.
        first: was the first one preferred? None for neither.
    """

    seen: Differences
    first: bool | None


@dataclass(frozen=True)
class Learned:
    """What one user's choices say.

    Attributes:
        weights: principle to weight, in the reward model's order, the largest 2 or -2; 0 where there is no evidence.
        intervals: principle to the ends of its weight's 95 % interval.
        accuracy: share of choices that weights learned from the other choices predict.
        certainty: mean probability, over choices, that those weights are right about which answer is better.
        choices: number used.
        ties: number in which neither answer was better.
        contradictions: number left out because they contradict each other.
    """

    weights: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    accuracy: Share
    certainty: float
    choices: int
    ties: int
    contradictions: int

    @property
    def summary(self) -> str:
        """The weights in words: "you prefer: concise +1.2, humorous +0.8; you avoid: formal -0.6"."""
        ranked = sorted(self.weights.items(), key=lambda item: -abs(item[1]))
        parts = []
        for words, sign in (("you prefer", 1), ("you avoid", -1)):
            names = [f"{name} {weight:+.1f}" for name, weight in ranked if weight * sign > 0]
            parts += [f"{words}: {', '.join(names)}"] if names else []
        return "; ".join(parts) or "nothing that these choices have in common"

    @property
    def advice(self) -> str:
        """Would more choices help?"""
        certain = f"The profile is {self.certainty:.0%} certain of its predictions"
        if not any(self.weights.values()) or self.accuracy.low <= 0.5:
            return (
                f"{certain}, and its accuracy may be chance: give more choices, between answers that differ in what "
                "you care for."
            )
        if self.certainty < _ENOUGH:
            return f"{certain}: more choices would help; twice as many are worth it."
        return f"{certain}: more choices would change little."


def learn_user(model: RewardModel, choices: Choices) -> Learned:
    """Learn one user's weights; everything else of the reward model stays as it is.

    Raises:
        UsageError: the reward model has no preference heads.
    """
    return learn_users(model, {"": choices})[""]


def learn_users(model: RewardModel, users: Mapping[str, Choices]) -> dict[str, Learned]:
    """Learn the weights of many users: the same as one by one, but every answer is read once and in large batches.

    Raises:
        UsageError: the reward model has no preference heads.
    """
    features = choice_features(model, [choice for user in users.values() for choice in user.choices])
    assert isinstance(model, PersonalizedRewardModel)  # choice_features refuses others
    ends = np.cumsum([len(user.choices) for user in users.values()])[:-1]
    parts = zip(np.split(features.slopes, ends), np.split(features.offsets, ends), strict=True)
    learned = {}
    with bar("Learning weights", total=len(users)) as progress:
        for (name, choices), part in zip(users.items(), parts, strict=True):
            learned[name] = learn_features(model.principles, choices, Features(*part), model.pair_moments)
            progress.advance()
    return learned


def learn_features(
    principles: Sequence[str],
    choices: Choices,
    features: Features,
    moments: Sequence[Sequence[float]] | None = None,
) -> Learned:
    """The weights of one user from the features of choices; `moments` (K, K) are those of the reward model's pairs."""
    basis = basis_of(moments, features.slopes)
    seen = differences(features.slopes, basis, features.offsets)
    replies = [Reply(seen.at(row), True) for row in range(len(seen.means))]
    posterior = posterior_of(replies, len(principles))
    return learn_replies(principles, replies, posterior, basis, choices.ties, choices.contradictions)


def posterior_of(replies: Sequence[Reply], principles: int) -> Posterior:
    """What replies say of the weights of K principles."""
    posterior = Posterior(principles)
    for reply in replies:
        posterior.add(*reply)
    return posterior


def head_weights(posterior: Posterior, basis: Basis) -> Array:
    """(K,) weights of the reward model's heads, the largest 2 or -2, without small ones that may be 0."""
    mean, (low, high) = posterior.mean, posterior.interval()
    size = np.abs(mean)
    weights = basis.head_weights(np.where((low <= 0) & (high >= 0) & (size < _SMALL * size.max()), 0.0, mean))
    return weights * _scale(weights)


def learn_replies(
    principles: Sequence[str],
    replies: Sequence[Reply],
    posterior: Posterior,
    basis: Basis,
    ties: int = 0,
    contradictions: int = 0,
) -> Learned:
    """What is learned from replies, at least one of which is not "neither".

    Args:
        principles: K names.
        replies: all of them, in order.
        posterior: what they say, see `posterior_of`.
        basis: in which their differences are.
        ties: further choices in which neither answer was better, and that were left out.
        contradictions: further choices that were left out.
    """
    scale = _scale(basis.head_weights(posterior.mean))
    low, high = (basis.head_weights(end) * scale for end in posterior.interval())
    decided = np.array([reply.first is not None for reply in replies])
    signs = np.array([1.0 if reply.first else -1.0 for reply in replies])
    margins, certainty = posterior.margins()
    predicted = 0.5 + 0.5 * np.sign(margins * signs)[decided]
    return Learned(
        weights=dict(zip(principles, head_weights(posterior, basis).tolist(), strict=True)),
        intervals=dict(zip(principles, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
        accuracy=share_of(torch.from_numpy(predicted)),
        certainty=float(certainty[decided].mean()),
        choices=int(decided.sum()),
        ties=ties + int((~decided).sum()),
        contradictions=contradictions,
    )


def _scale(weights: Array) -> float:
    """The factor to the size that steers: choices determine a direction, but hardly how strongly to steer."""
    largest = float(np.abs(weights).max())
    return _LARGEST / largest if largest > 0 else 1.0
