"""Which principles two answers differ in, and how certain that is, given their rewards.

Heads are trained one by one, so an answer that is concise is rewarded a little for being simple, too, and every head
adds a little noise to every answer. With M the second moments of the training pairs' margins (a reward model's
`pair_moments`), s the root of its diagonal, and C the correlations, shrunk half-way to none, rewards are read as

    z = x diag(1/s) C^(-1/2)

C^(-1/2) is the whitening that changes its input least (ZCA: Kessy, Lewin and Strimmer 2018, arXiv 1512.00809). The
weights w' on z say what a user wants of every principle as such, and each is applied to that principle's own head:
w = w' / s. (Turned back by C^(-1/2), too, they would predict the embedded world's choices as well, but steer less well:
they ask a little of every head.)

A principle that a third of all pairs differ in has z around -g, 0 and g = sqrt(3), since the root mean square of z
is 1. With d = -1, 0 or 1 for "only the second answer has it", "both or neither" and "only the first has it",

    P(d | z) ~ P(d) exp(-(z - g d)^2 / 2 n^2)               P(d) = 1/6, 2/3, 1/6,  n = 1/2

A z far from 0, g and -g is doubtful, and a broken text's counts for no more than 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SHRINKAGE = 0.5  # of correlations
_SHARE = 1 / 3  # of pairs that differ in a principle
_GAP = _SHARE**-0.5  # g
_NOISE = 0.5  # n
_RESIDUAL = 0.1  # standard deviation within a principle when it is certain that two answers differ in it
_PRIOR_ROWS = 20  # comparisons that a principle's own unit needs to count as much as the common one


class Basis(NamedTuple):
    """How rewards are read.

    Attributes:
        whitening: (K, K), diag(1/s) C^(-1/2).
        units: (K,), s in nats.
    """

    whitening: Array
    units: Array

    def head_weights(self, weights: Array) -> Array:
        """(..., K) weights w' as weights of the reward model's heads."""
        return weights / self.units


class Differences(NamedTuple):
    """Expected differences of N comparisons in K principles, first answer less second; 1 for a principle.

    Attributes:
        means: (N, K), between -1 and 1.
        variances: (N, K).
        offsets: (N,) differences in what the reward model's adapter rewards for every user.
    """

    means: Array
    variances: Array
    offsets: Array

    def at(self, row: int) -> Differences:
        """One of them, as N = 1."""
        return Differences(*(each[row : row + 1] for each in self))


def basis_of(moments: Sequence[Sequence[float]] | None, slopes: Array) -> Basis:
    """The basis of a reward model's (K, K) second moments, or without usable ones of some slopes (N, K).

    Slopes tell nothing of correlations, and few of them little of each principle's unit, which is shrunk to a common
    one: calibration makes heads equally strong.
    """
    if moments is not None and np.all(np.diagonal(moments) > 0):
        table = np.asarray(moments, np.float64)
        units = np.sqrt(np.diagonal(table))
        correlation = (1 - _SHRINKAGE) * table / np.outer(units, units) + _SHRINKAGE * np.eye(len(table))
        spread, axes = np.linalg.eigh(correlation)
        return Basis((axes / np.sqrt(spread)) @ axes.T / units[:, None], units)
    common = np.square(slopes).mean() or 1.0
    squares = np.square(slopes).sum(0) + _PRIOR_ROWS * common
    units = np.sqrt(squares / (len(slopes) + _PRIOR_ROWS))
    return Basis(np.diag(1 / units), units)


def differences(slopes: Array, basis: Basis, offsets: Array | None = None) -> Differences:
    """What comparisons with slopes (N, K) and offsets (N,), in nats, first answer less second, differ in."""
    z = slopes @ basis.whitening
    logs = np.stack(
        [
            np.log(share) - np.square((z - sign * _GAP) / _NOISE) / 2
            for sign, share in ((-1, _SHARE / 2), (0, 1 - _SHARE), (1, _SHARE / 2))
        ]
    )
    odds = np.exp(logs - logs.max(0))
    second, _, first = odds / odds.sum(0)
    means = first - second
    variances = first + second - means**2 + _RESIDUAL**2
    if offsets is None:
        return Differences(means, variances, np.zeros(len(slopes)))
    return Differences(means, variances, offsets / (_GAP * basis.units.mean()))
