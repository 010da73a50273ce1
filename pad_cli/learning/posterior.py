"""What a user may want, given the replies so far: a sample of weights, each of which explains them.

A user cares for a few of K principles (three on average), about equally much, for or against:

    w_k = 0, or +-exp(0.4 n), n standard normal                          1 is what a principle usually weighs

Of a comparison with differences d +- v and offset o the user sees m = o + d . w, in which
s^2 = w^2 . v + 0.05^2 is doubt, and says "first" when it is clearly above 0, "second" when it is clearly below, and
else "neither":

    P(first) = sigmoid((m - 1/2) / 0.55 s),   P(second) = sigmoid((-m - 1/2) / 0.55 s),   P(neither) = what is left

(0.55 makes a logistic's spread that of a normal), except for one reply in ten, which may be anything.

The sample is kept by sequential Monte Carlo (Chopin 2002): a reply makes some weights likelier; when few carry most of
the probability, a new sample is drawn from them and spread by Metropolis steps that switch a principle on or off, swap
two, or draw one anew. "Neither" is worth as much as the others: that nothing which two answers differ in matters.

Which principles two answers differ in: heads are trained one by one, so an answer that is concise is rewarded a little
for being simple, too, and every head adds a little noise to every answer. With M the second moments of the training
pairs' margins (a reward model's `pair_moments`), s the root of its diagonal, and C the correlations, shrunk half-way to
none, rewards are read as

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
from scipy.special import entr, expit

Array = NDArray[np.float64]

_SHRINKAGE = 0.5  # of correlations
_SHARE = 1 / 3  # of pairs that differ in a principle
_GAP = _SHARE**-0.5  # g
_NOISE = 0.5  # n
_RESIDUAL = 0.1  # standard deviation within a principle when it is certain that two answers differ in it
_EXPECTED_PRINCIPLES = 3.0  # that a user cares for
_SPREAD = 0.4
_INDIFFERENT = 0.5
_SHARPEST = 0.05
_LOGISTIC = 0.55
_ANYTHING = 0.1  # share of replies
_SIZE, _STEPS = 1000, 15
_FEW = 0.6  # effective share of the sample below which it is drawn anew
_SWITCH, _SWAP = 0.4, 0.35  # shares of the steps; the others draw a weight anew
_OUTCOMES: dict[bool | None, int] = {True: 0, False: 1, None: 2}


class Basis(NamedTuple):
    """How rewards are read."""

    whitening: Array  # (K, K), diag(1/s) C^(-1/2)
    units: Array  # (K,), s in nats; weights w' / s are those of the reward model's heads


class Differences(NamedTuple):
    """Expected differences of N comparisons in K principles, first answer less second; 1 for a principle."""

    means: Array  # (N, K), between -1 and 1
    variances: Array  # (N, K)
    offsets: Array  # (N,) differences in what the reward model's adapter rewards for every user

    def at(self, row: int) -> Differences:
        """One of them, as N = 1."""
        return Differences(*(each[row : row + 1] for each in self))


def basis_of(moments: Sequence[Sequence[float]] | None, slopes: Array) -> Basis:
    """The basis of a reward model's (K, K) second moments, or without usable ones of some slopes (N, K).

    Slopes tell nothing of correlations, and their unit is that of all principles: calibration makes heads equally
    strong.
    """
    if moments is not None and np.all(np.diagonal(moments) > 0):
        table = np.asarray(moments, np.float64)
        units = np.sqrt(np.diagonal(table))
        correlation = (1 - _SHRINKAGE) * table / np.outer(units, units) + _SHRINKAGE * np.eye(len(table))
        spread, axes = np.linalg.eigh(correlation)
        return Basis((axes / np.sqrt(spread)) @ axes.T / units[:, None], units)
    units = np.full(slopes.shape[1], np.sqrt(np.square(slopes).mean()) or 1.0)
    return Basis(np.diag(1 / units), units)


def differences(slopes: Array, offsets: Array, basis: Basis) -> Differences:
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
    return Differences(means, variances, offsets / (_GAP * basis.units.mean()))


class Posterior:
    """A sample of S weights, which replies change. The same replies in the same order give the same sample.

    Attributes:
        weights: (S, K), 1 for what a principle usually weighs.
        shares: (S,) their probabilities; they sum to 1.
        replies: N replies so far; True if the first answer was preferred, None for neither.
    """

    def __init__(self, principles: int) -> None:
        """Before any reply, for K principles."""
        self._rng = np.random.default_rng(0)
        self._prior = min(0.5, _EXPECTED_PRINCIPLES / principles)
        shape = (_SIZE, principles)
        self.weights: Array = np.where(self._rng.random(shape) < self._prior, self._sizes(shape), 0.0)
        self.shares: Array = np.full(_SIZE, 1 / _SIZE)
        self._seen = Differences(np.zeros((0, principles)), np.zeros((0, principles)), np.zeros(0))
        self.replies: list[bool | None] = []

    def add(self, seen: Differences, first: bool | None) -> None:
        """Take a reply to one comparison (N = 1) into account: was the first answer preferred? None for neither."""
        self.shares = self.shares * outcomes(seen, self.weights)[_OUTCOMES[first], :, 0]
        self.shares = self.shares / self.shares.sum()
        self._seen = Differences(*(np.concatenate(both) for both in zip(self._seen, seen, strict=True)))
        self.replies.append(first)
        if 1 / np.square(self.shares).sum() < _FEW * _SIZE:
            places = (np.arange(_SIZE) + 0.5) / _SIZE  # evenly spaced: each as often as it is probable
            self.weights = self.weights[np.minimum(np.searchsorted(np.cumsum(self.shares), places), _SIZE - 1)]
            self.shares = np.full(_SIZE, 1 / _SIZE)
            log_likelihood = np.log(self._likelihoods(self.weights)).sum(0)
            for _ in range(_STEPS):
                log_likelihood = self._step(log_likelihood)

    @property
    def mean(self) -> Array:
        """(K,) weights."""
        mean: Array = self.shares @ self.weights
        return mean

    def interval(self) -> tuple[Array, Array]:
        """(K,) ends of every weight's 95 % interval."""
        low, high = np.quantile(self.weights, (0.025, 0.975), axis=0, method="inverted_cdf", weights=self.shares)
        return low, high

    def margins(self) -> Array:
        """(N,) expected m of each reply's comparison, by the other replies alone; first answer less second.

        The sample without reply n is this one with shares divided by that reply's likelihood (importance sampling),
        which one reply in ten that may be anything keeps from 0.
        """
        without = (self.shares / self._likelihoods(self.weights)).T  # (S, N)
        without = without / without.sum(0)
        margins = self._seen.offsets + self.weights @ self._seen.means.T
        expected: Array = (without * margins).sum(0)
        return expected

    def information(self, seen: Differences) -> Array:
        """What the reply to each of N comparisons is expected to tell: (N,) bits, between 0 and log2(3).

        For a reply r of "first", "second" or "neither", with means over the posterior and H the entropy,

            H(E p) - E H(p)        p = P(r | w)

        (Lindley 1956; BALD: Houlsby et al. 2011, arXiv 1112.5745).
        """
        every = outcomes(seen, self.weights)
        bits: Array = (entr(self.shares @ every).sum(0) - self.shares @ entr(every).sum(0)) / np.log(2)
        return np.maximum(bits, 0.0)

    def _step(self, log_likelihood: Array) -> Array:
        """One Metropolis step: propose a change to every weight vector, and accept it by posterior odds."""
        size, principles = self.weights.shape
        rows = np.arange(size)
        one, other = self._rng.integers(principles, size=(2, size))
        kind = self._rng.random(size)
        fresh, turn = self._sizes((size,)), self._signs((size,))
        before, beside = self.weights[rows, one], self.weights[rows, other]
        on = before != 0
        switch, swap = kind < _SWITCH, (kind >= _SWITCH) & (kind < _SWITCH + _SWAP)
        changed = self.weights.copy()
        changed[rows, other] = np.where(swap, before * turn, beside)
        redrawn = np.where(switch ^ on, fresh, 0.0)  # a switch turns it off, another draw leaves it off
        changed[rows, one] = np.where(swap, beside * turn, redrawn)
        odds = np.log(self._prior / (1 - self._prior))
        prior_gain = np.where(switch, np.where(on, -odds, odds), 0.0)
        proposed = np.log(self._likelihoods(changed)).sum(0)
        accepted = np.log(self._rng.random(size)) < proposed - log_likelihood + prior_gain
        self.weights = np.where(accepted[:, None], changed, self.weights)
        return np.where(accepted, proposed, log_likelihood)

    def _likelihoods(self, weights: Array) -> Array:
        """(N, S) probability of each reply under each weights."""
        replies = [_OUTCOMES[reply] for reply in self.replies]
        every: Array = outcomes(self._seen, weights)[replies, :, np.arange(len(replies))]
        return every

    def _sizes(self, shape: tuple[int, ...]) -> Array:
        sizes: Array = self._signs(shape) * np.exp(_SPREAD * self._rng.standard_normal(shape))
        return sizes

    def _signs(self, shape: tuple[int, ...]) -> Array:
        return np.where(self._rng.random(shape) < 0.5, -1.0, 1.0)


def outcomes(seen: Differences, weights: Array) -> Array:
    """Probabilities (3, S, N) of "first", "second" and "neither" for N comparisons under weights (S, K)."""
    margin = seen.offsets + weights @ seen.means.T
    doubt = _LOGISTIC * np.sqrt(np.square(weights) @ seen.variances.T + _SHARPEST**2)
    first, second = (expit((side * margin - _INDIFFERENT) / doubt) for side in (1.0, -1.0))
    every = np.stack([first, second, np.maximum(1 - first - second, 0.0)])
    return (1 - _ANYTHING) * every + _ANYTHING / 3
