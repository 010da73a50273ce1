"""A user's weights from choices, how well they predict that user, and whether more choices would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pad_cli.learning.choices import Choices
from pad_cli.learning.decorrelation import basis_of, served, served_covariance, turned
from pad_cli.learning.features import Features, choice_features
from pad_cli.learning.fit import Array, Fit, Margins, fit_weights, held_out_margins, stack_margins
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.system.progress import stage
from pad_cli.training.metrics import Share, share_of

SMALL = 0.15
"""Share of the largest weight: below, a weight whose interval holds 0 is dropped."""

_STRONGEST = 2.0  # the largest weight; see docs/preferences.md for what others steered
_SURE = 1.96  # standard deviations of a 95 % interval
_SPARED = 0.05  # share of choices that need not be predicted any more for that
_ENOUGH = 0.9  # certainty from which more choices would change little
_TOGETHER = 20_000  # choices of users that are fitted at once, padding included


@dataclass(frozen=True)
class Learned:
    """What one user's choices say.

    Attributes:
        weights: principle to weight, in the reward model's order, the largest 2 or -2; 0 where nothing was found.
        intervals: principle to the ends of its weight's 95 % interval, before small weights are set to 0.
        accuracy: share of choices that weights learned from the other choices predict, the strength chosen anew.
        certainty: mean probability, over choices, that the weights are right about which answer this user prefers.
        choices: how many were used.
        ties: how many were left out because neither answer was better.
        contradictions: how many were left out because they contradict each other.
        strength: of the penalty, chosen by cross-validation; None where replies to questions need none.
        covariance: (K, K), of the weights' posterior.
    """

    weights: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    accuracy: Share
    certainty: float
    choices: int
    ties: int
    contradictions: int
    strength: float | None
    covariance: NDArray[np.float64]

    @property
    def found(self) -> str:
        """The weights in words: "you prefer: concise +1.2, humorous +0.8; you avoid: formal -0.6"."""
        signed = sorted(self.weights.items(), key=lambda item: -abs(item[1]))
        parts = [
            f"{words}: {', '.join(f'{name} {weight:+.1f}' for name, weight in kept)}"
            for words, sign in (("you prefer", 1), ("you avoid", -1))
            if (kept := [(name, weight) for name, weight in signed if weight * sign > 0])
        ]
        return "; ".join(parts) or "nothing that these choices have in common"

    @property
    def advice(self) -> str:
        """Would more choices help?"""
        sure = f"The profile is {self.certainty:.0%} certain of its predictions"
        if not any(self.weights.values()) or self.accuracy.low <= 0.5:
            return (
                f"{sure}, and its accuracy may be chance: give more choices, between answers that differ in what you "
                "care for."
            )
        if self.certainty < _ENOUGH:
            return f"{sure}: more choices would help; twice as many are worth it."
        return f"{sure}: more choices would change little."


def learn_user(model: RewardModel, choices: Choices) -> Learned:
    """Learn one user's weights; everything else of the reward model stays as it is.

    Raises:
        UsageError: the reward model has no preference heads.
    """
    return learn_users(model, {"": choices})[""]


def learn_users(model: RewardModel, users: Mapping[str, Choices]) -> dict[str, Learned]:
    """Learn the weights of many users at once: the same as one by one, in a fraction of the time.

    Raises:
        UsageError: the reward model has no preference heads.
    """
    features = choice_features(model, [choice for user in users.values() for choice in user.choices])
    assert isinstance(model, PersonalizedRewardModel)  # choice_features refuses others
    ends = np.cumsum([len(user.choices) for user in users.values()])[:-1]
    parts = zip(np.split(features.slopes, ends), np.split(features.offsets, ends), strict=True)
    told = {name: (users[name], Features(*part)) for name, part in zip(users, parts, strict=True)}
    with stage("Learning weights"):
        return learn_features(model.principles, told, model.pair_moments)


def learn_features(
    principles: Sequence[str],
    users: Mapping[str, tuple[Choices, Features]],
    moments: Sequence[Sequence[float]] | None = None,
) -> dict[str, Learned]:
    """The same from features that were read already.

    Args:
        principles: K names.
        users: name to choices and their features.
        moments: (K, K) of the reward model's training pairs; without them choices are learned from as they are.
    """
    learned: dict[str, Learned] = {}
    basis = basis_of(moments)
    for names in _groups({name: len(features.offsets) for name, (_, features) in users.items()}):
        margins = stack_margins([users[name][1] for name in names])
        told = turned(margins, basis)
        found = fit_weights(told)
        weights, covariance = (
            served(_readable(told, found), basis),
            served_covariance(found.covariance, basis),
        )
        mean, size = served(found.weights, basis), steering(weights)
        fit = Fit(mean * size[:, None], covariance * np.square(size)[:, None, None], found.strength)
        kept = weights * size[:, None]
        held_out = held_out_margins(margins, lambda rest, _: served(fit_weights(turned(rest, basis)).weights, basis))
        certainty = _certainty(margins, fit)
        for row, name in enumerate(names):
            deviation = np.sqrt(np.diagonal(fit.covariance[row]))
            ends = zip(fit.weights[row] - _SURE * deviation, fit.weights[row] + _SURE * deviation, strict=True)
            choices = users[name][0]
            learned[name] = Learned(
                weights=dict(zip(principles, kept[row].tolist(), strict=True)),
                intervals={key: (float(low), float(high)) for key, (low, high) in zip(principles, ends, strict=True)},
                accuracy=_accuracy(held_out[row][margins.counted[row] > 0]),
                certainty=float(certainty[row]),
                choices=len(choices.choices),
                ties=choices.ties,
                contradictions=choices.contradictions,
                strength=float(fit.strength[row]),
                covariance=fit.covariance[row],
            )
    return {name: learned[name] for name in users}


def steering(weights: Array) -> Array:
    """(U,) factors to the size that steers: choices tell a direction, but hardly how strongly to steer."""
    largest = np.abs(weights).max(1)
    return np.where(largest > 0, _STRONGEST / np.where(largest > 0, largest, 1.0), 1.0)


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Users with similar numbers of choices, few enough to be fitted at once."""
    waiting = sorted(sizes, key=lambda name: sizes[name])
    while waiting:
        together = max(1, _TOGETHER // sizes[waiting[-1]])
        yield waiting[-together:]
        del waiting[-together:]


def _readable(margins: Margins, fit: Fit) -> Array:
    """(U, K) weights without the small ones that may be 0, unless that would predict clearly fewer choices."""
    deviation = np.sqrt(np.einsum("ukk->uk", fit.covariance))
    size = np.abs(fit.weights)
    small = (size < _SURE * deviation) & (size < SMALL * size.max(1, keepdims=True))
    kept = np.where(small, 0.0, fit.weights)
    costs = _right(margins, kept) < _right(margins, fit.weights) - _SPARED * margins.counted.sum(1)
    return np.where(costs[:, None], fit.weights, kept)


def _right(margins: Margins, weights: Array) -> Array:
    """(U,) choices predicted."""
    right: Array = ((margins.at(weights) > 0) * margins.counted).sum(1)
    return right


def _certainty(margins: Margins, fit: Fit) -> Array:
    """(U,) mean probability that a margin has the sign of its mean, under the posterior."""
    mean = np.abs(margins.at(fit.weights))
    variance = np.einsum("unk,ukl,unl->un", margins.slopes, fit.covariance, margins.slopes)
    ratio = torch.from_numpy(mean / np.sqrt(np.maximum(variance, 1e-18)))
    sure: Array = (torch.special.ndtr(ratio).numpy() * margins.counted).sum(1) / margins.counted.sum(1)
    return sure


def _accuracy(held_out: Array) -> Share:
    return share_of(torch.from_numpy((held_out > 0) + 0.5 * (held_out == 0)))
