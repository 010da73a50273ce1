"""Which comparison to ask next: the one whose answer tells most about this user's weights.

The posterior of w after some answers is approximated by a Gaussian N(m, C) (Laplace) under a ridge. For a comparison
with slopes x, the expected information of its answer is

    H(E p) - E H(p)        p = sigmoid(x . w), H the entropy in bits

(Lindley 1956; BALD: Houlsby et al. 2011, arXiv 1112.5745, equations 3 to 5, whose closed form it is). "Neither" is an
answer, too: x . w is near 0. It counts as one choice either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_RIDGE = 0.1  # precision of the prior, for slopes of size 1: what is unknown may be large
_MOST = 1.5  # slopes beyond so many standard deviations tell no more; broken texts have such
_STEPS, _CLOSE = 50, 1e-8
_WIDTH = np.pi * np.log(2) / 2


class Reply(NamedTuple):
    """One answered comparison.

    Attributes:
        slopes: (K,) first answer less second, nats.
        offset: likewise, at w = 0.
        first: was the first one preferred? None for neither.
    """

    slopes: Array
    offset: float
    first: bool | None


def scale_of(slopes: Array) -> Array:
    """(K,) standard deviations of a pool's slopes (N, K); 1 where they do not vary."""
    spread = slopes.std(axis=0)
    return np.where(spread > 0, spread, 1.0)


def information(slopes: Array, offsets: Array, replies: Sequence[Reply], scale: Array) -> Array:
    """What each comparison's answer is expected to tell: (N,) bits.

    Args:
        slopes: (N, K) of the comparisons, first answer less second.
        offsets: (N,) likewise at w = 0.
        replies: what was answered so far.
        scale: (K,) see `scale_of`.
    """
    rows, sides = _rows(replies, scale)
    mean, covariance = _posterior(rows, sides)
    seen = _clipped(slopes, scale)
    margin = seen @ mean + offsets
    variance = np.einsum("nk,kl,nl->n", seen, covariance, seen)
    marginal = _entropy(_sigmoid(margin / np.sqrt(1 + np.pi * variance / 8)))
    spread = _WIDTH + variance
    conditional = np.sqrt(_WIDTH / spread) * np.exp(-(margin**2) / (2 * spread))
    bits: Array = np.maximum(marginal - conditional, 0.0)
    return bits


def as_choices(replies: Sequence[Reply], scale: Array) -> tuple[Array, Array]:
    """Replies as the slopes (M, K) and offsets (M,) of choices, chosen less rejected; a tie is one either way."""
    slopes, offsets = [], []
    for reply in replies:
        for sign in (1.0, -1.0) if reply.first is None else (1.0 if reply.first else -1.0,):
            slopes.append(sign * _clipped(reply.slopes, scale) * scale)
            offsets.append(sign * reply.offset)
    return np.array(slopes).reshape(-1, len(scale)), np.array(offsets)


def _rows(replies: Sequence[Reply], scale: Array) -> tuple[Array, Array]:
    slopes, offsets = as_choices(replies, scale)
    return slopes / scale, offsets


def _posterior(rows: Array, offsets: Array) -> tuple[Array, Array]:
    """Mode and covariance of scaled weights."""
    size = rows.shape[1]
    weights, precision = np.zeros(size), _RIDGE * np.eye(size)
    for _ in range(_STEPS):
        wrong = _sigmoid(-(rows @ weights + offsets))
        precision = (rows * (wrong * (1 - wrong))[:, None]).T @ rows + _RIDGE * np.eye(size)
        step = np.linalg.solve(precision, rows.T @ wrong - _RIDGE * weights)
        weights = weights + step
        if np.abs(step).max() < _CLOSE:
            break
    return weights, np.asarray(np.linalg.inv(precision), np.float64)


def _clipped(slopes: Array, scale: Array) -> Array:
    """Scaled slopes, none larger than `_MOST`."""
    clipped: Array = np.clip(slopes / scale, -_MOST, _MOST)
    return clipped


def _sigmoid(margin: Array) -> Array:
    result: Array = 0.5 * (1 + np.tanh(margin / 2))
    return result


def _entropy(share: Array) -> Array:
    inside = np.clip(share, 1e-12, 1 - 1e-12)
    bits: Array = -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside))
    return bits
