"""A user's weights from replies to questions: the mean of the posterior, which "neither" has a part in, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from pad_cli.learning.decorrelation import Basis, served, served_covariance
from pad_cli.learning.differences import Differences
from pad_cli.learning.fit import Array, folds
from pad_cli.learning.learn import SMALL, Learned, steering
from pad_cli.learning.posterior import Posterior
from pad_cli.training.metrics import share_of

_ENDS = (0.025, 0.975)  # quantiles, of a 95 % interval


class Reply(NamedTuple):
    """One answered comparison.

    Attributes:
        seen: what its answers differ in (N = 1), first less second.
        first: was the first one preferred? None for neither.
    """

    seen: Differences
    first: bool | None


def posterior_of(replies: Sequence[Reply], principles: int) -> Posterior:
    """What replies say of the weights of K principles."""
    posterior = Posterior(principles)
    for reply in replies:
        posterior.add(*reply)
    return posterior


def weights_of(posterior: Posterior, basis: Basis) -> Array:
    """(K,) weights of the reward model's heads, the largest 2 or -2, small ones that may be 0 left out."""
    mean, (low, high) = posterior.shares @ posterior.weights, _interval(posterior)
    size = np.abs(mean)
    kept = np.where((low <= 0) & (high >= 0) & (size < SMALL * size.max()), 0.0, mean)[None]
    weights = served(kept, basis)
    result: Array = (weights * steering(weights)[:, None])[0]
    return result


def learn_replies(principles: Sequence[str], replies: Sequence[Reply], posterior: Posterior, basis: Basis) -> Learned:
    """What is learned from at least one reply that is not "neither".

    Args:
        principles: K names.
        replies: all of them, in the order in which they were given.
        posterior: what they say, see `posterior_of`.
        basis: of the reward model.
    """
    mean = served((posterior.shares @ posterior.weights)[None], basis)
    size = steering(mean)[0]
    away = posterior.weights - posterior.shares @ posterior.weights
    covariance = served_covariance((away * posterior.shares[:, None]).T @ away, basis)
    low, high = (served(end[None], basis)[0] * size for end in _interval(posterior))
    decided = [reply for reply in replies if reply.first is not None]
    right = np.array([_odds(posterior, reply) for reply in decided])
    return Learned(
        weights=dict(zip(principles, weights_of(posterior, basis).tolist(), strict=True)),
        intervals=dict(zip(principles, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
        accuracy=share_of(torch.from_numpy(_foretold(replies, len(principles)))),
        certainty=float(np.maximum(right, 1 - right).mean()),
        choices=len(decided),
        ties=len(replies) - len(decided),
        contradictions=0,
        strength=None,
        covariance=covariance * size**2,
    )


def _foretold(replies: Sequence[Reply], principles: int) -> Array:
    """Is each decided reply foretold by the mean of what other folds' replies say? 1/2 where that says nothing."""
    fold = folds(np.ones((1, len(replies))))[0]
    found = []
    for number in range(fold.max() + 1):
        rest = posterior_of([reply for reply, its in zip(replies, fold, strict=True) if its != number], principles)
        for reply, its in zip(replies, fold, strict=True):
            if its == number and reply.first is not None:
                margin = float(reply.seen.means[0] @ (rest.shares @ rest.weights))
                found.append(0.5 + 0.5 * np.sign(margin if reply.first else -margin))
    return np.array(found)


def _odds(posterior: Posterior, reply: Reply) -> float:
    """The probability that the weights are for a reply's first answer; those that are for neither count half."""
    margins = posterior.weights @ reply.seen.means[0]
    return float(posterior.shares @ (0.5 + 0.5 * np.sign(margins)))


def _interval(posterior: Posterior) -> tuple[Array, Array]:
    """(K,) ends of every weight's 95 % interval."""
    order = np.argsort(posterior.weights, axis=0, kind="stable")
    below = np.cumsum(posterior.shares[order], axis=0)
    places = [np.minimum((below < end).sum(0), len(order) - 1) for end in _ENDS]
    low, high = (np.take_along_axis(posterior.weights, order, 0)[place, np.arange(len(place))] for place in places)
    return low, high
