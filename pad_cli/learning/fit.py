"""Weights from choices: a sparse logistic regression, for many users at once.

For one user, x_n are the K slopes of choice n (chosen less rejected), o_n is its offset, and

    m_n  = b (o_n + x_n . w)                                   b = 0.5: the temperature of the heads' own training
    loss = sum_n log(1 + exp(-m_n)) + sum_k P(s w_k)
    P(v) = l e (|v| - e log(1 + |v| / e))                      so that P'(v) = l e v / (|v| + e)

P is the "fair" penalty of robust regression: a ridge of strength l near 0, and beyond e nearly a lasso of strength l e,
since a user wants few things. s is the root mean square of the user's own b x, one number for all principles:
calibration has given heads the same strength, and five choices tell too little to scale each of K. The loss is convex.
It is minimised by majorising both parts with parabolas (the logistic one as in Jaakkola and Jordan 2000): every step is
one linear system, and none raises the loss.

The strength l is the one under which held-out choices are likeliest (leave one out up to 10 choices, else 5 folds).
Margins are linear in w. Refining w on the exact loss, with the normalisers' second order, changed accuracy by less than
.002 at 5 to 100 choices of the embedded world, so it is not done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pad_cli.learning.features import Features

Array = NDArray[np.float64]

BETA = 0.5
"""b: the temperature of margins."""

STRENGTHS = (30.0, 10.0, 3.0)
"""Candidates for l, for slopes of size 1; the first of equally good ones is taken."""

_CORNER = 0.1  # e
_STEPS, _CLOSE = 200, 1e-5  # steps at most, and the change of scaled weights that ends them
_LEAVE_ONE_OUT, _FOLDS = 10, 5
_TIE = 1e-9  # nats


@dataclass(frozen=True)
class Margins:
    """Choices of U users, up to N each, as linear functions of K weights: b x, and b o.

    Attributes:
        slopes: (U, N, K).
        offsets: (U, N).
        counted: (U, N), 1 for a choice and 0 for padding, whose slopes and offsets are 0.
    """

    slopes: Array
    offsets: Array
    counted: Array

    def at(self, weights: Array) -> Array:
        """(U, N) margins under (U, K) weights."""
        margins: Array = self.offsets + np.einsum("unk,uk->un", self.slopes, weights)
        return margins

    def only(self, users: NDArray[np.intp], counted: Array) -> Margins:
        """Some users, with those of their choices that are counted."""
        return Margins(self.slopes[users] * counted[..., None], self.offsets[users] * counted, counted)


@dataclass(frozen=True)
class Fit:
    """Weights of U users.

    Attributes:
        weights: (U, K).
        covariance: (U, K, K), of the Gaussian that has the loss's curvature at the weights (Laplace).
        strength: (U,), the l of each.
    """

    weights: Array
    covariance: Array
    strength: Array


def stack_margins(users: Sequence[Features]) -> Margins:
    """The margins of some users' choices, padded."""
    longest, count = max(len(each.offsets) for each in users), users[0].slopes.shape[1]
    slopes = np.zeros((len(users), longest, count))
    offsets, counted = np.zeros((len(users), longest)), np.zeros((len(users), longest))
    for row, each in enumerate(users):
        length = len(each.offsets)
        slopes[row, :length], offsets[row, :length], counted[row, :length] = each.slopes, each.offsets, 1.0
    return Margins(BETA * slopes, BETA * offsets, counted)


def fit_weights(margins: Margins) -> Fit:
    """Weights of every user, with the strength that predicts held-out choices best."""
    users = len(margins.slopes)
    grid = np.array(STRENGTHS)
    losses = np.stack([_held_out_loss(margins, np.full(users, strength)) for strength in grid])  # (L, U)
    strength = grid[np.argmax(losses <= losses.min(0) + _TIE, axis=0)]
    weights = minimise(margins, strength)
    return Fit(weights, _covariance(margins, weights, strength), strength)


def minimise(margins: Margins, strength: Array) -> Array:
    """The weights (U, K) of least loss under given strengths (U,)."""
    size = _sizes(margins)
    slopes = margins.slopes / size[:, None, None]
    weights = np.zeros((len(slopes), slopes.shape[2]))
    running = np.arange(len(slopes))
    for _ in range(_STEPS):
        x, o, w = slopes[running], margins.offsets[running], weights[running]
        bend = _bend(o + np.einsum("unk,uk->un", x, w))
        system = np.swapaxes(x, 1, 2) @ (x * bend[..., None])
        np.einsum("ukk->uk", system)[...] += strength[running, None] * _CORNER / (np.abs(w) + _CORNER)
        pull = np.einsum("unk,un->uk", x, 0.5 - bend * o)  # padding pulls nothing: its x is 0
        weights[running] = np.linalg.solve(system, pull[..., None])[..., 0]
        running = running[np.abs(weights[running] - w).max(1) > _CLOSE]
        if not len(running):
            break
    return weights / size[:, None]


def held_out_margins(margins: Margins, weigh: Callable[[Margins, NDArray[np.intp]], Array]) -> Array:
    """Every choice's margin under weights that its fold had no part in.

    Args:
        margins: of U users.
        weigh: margins of some users, and which they are, to their weights.

    Returns:
        (U, N).
    """
    fold = folds(margins.counted)
    result = np.zeros_like(margins.offsets)
    for number in range(int(fold.max()) + 1):
        held = fold == number
        users = np.flatnonzero(held.any(1))
        weights = weigh(margins.only(users, margins.counted[users] * ~held[users]), users)
        found = np.einsum("unk,uk->un", margins.slopes[users], weights) + margins.offsets[users]
        result[users] = np.where(held[users], found, result[users])
    return result


def _held_out_loss(margins: Margins, strength: Array) -> Array:
    """(U,) nats."""
    found = held_out_margins(margins, lambda rest, users: minimise(rest, strength[users]))
    nats: Array = (np.logaddexp(0, -found) * margins.counted).sum(1)
    return nats


def folds(counted: Array) -> NDArray[np.int64]:
    """(U, N) the fold of each choice, by its place among those counted (U, N); -1 for the others."""
    total = counted.sum(1, keepdims=True)
    place = np.cumsum(counted, axis=1) - 1
    return np.where(counted > 0, place % np.where(total <= _LEAVE_ONE_OUT, total, _FOLDS), -1).astype(np.int64)


def _sizes(margins: Margins) -> Array:
    """s of every user, (U,); 1 where all slopes are 0."""
    count = np.maximum(margins.counted.sum(1), 1) * margins.slopes.shape[2]
    square = np.square(margins.slopes).sum((1, 2)) / count
    return np.where(square > 0, np.sqrt(square), 1.0)


def _covariance(margins: Margins, weights: Array, strength: Array) -> Array:
    size = _sizes(margins)[:, None]
    odds = 1 / (1 + np.exp(-margins.at(weights)))
    precision = np.swapaxes(margins.slopes, 1, 2) @ (margins.slopes * (odds * (1 - odds))[..., None])
    curve = strength[:, None] * np.square(size * _CORNER / (size * np.abs(weights) + _CORNER))  # s^2 P''(s w)
    np.einsum("ukk->uk", precision)[...] += curve
    return np.asarray(np.linalg.inv(precision), np.float64)


def _bend(margin: Array) -> Array:
    """tanh(m / 2) / (2 m): the curvature of the parabola that touches the logistic loss at m and -m; 1/4 at 0."""
    away = np.maximum(np.abs(margin), _TIE)
    curvature: Array = np.tanh(away / 2) / (2 * away)
    return curvature
