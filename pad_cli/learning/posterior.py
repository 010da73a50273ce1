"""What a user may want, given the replies so far: a sample of weights, each of which explains them.

A user cares for a few of K principles (three on average), about equally much, for or against:

    w_k = 0, or +-exp(0.4 n), n standard normal                          1 is what a principle usually weighs

Of a comparison with differences d +- v (`differences.py`) the user sees m = d . w, in which s^2 = w^2 . v + 0.05^2 is
doubt, and says "first" when it is clearly above 0, "second" when it is clearly below, and else "neither":

    P(first) = sigmoid((m - 1/2) / 0.55 s),   P(second) = sigmoid((-m - 1/2) / 0.55 s),   P(neither) = what is left

(0.55 makes a logistic's spread that of a normal), except for one reply in ten, which may be anything.

The sample is kept by sequential Monte Carlo (Chopin 2002): a reply makes some weights likelier; when few carry most of
the probability, a new sample is drawn from them and spread by Metropolis steps that switch a principle on or off, swap
two, or draw one anew. "Neither" is worth as much as the others: that nothing which two answers differ in matters.
"""

from __future__ import annotations

import numpy as np

from pad_cli.learning.differences import Differences
from pad_cli.learning.fit import Array

_WANTED = 3.0  # principles that a user is expected to care for
_SPREAD = 0.4
_INDIFFERENT = 0.5
_SHARPEST = 0.05
_LOGISTIC = 0.55
_ANYTHING = 0.1  # share of replies
_SIZE, _STEPS = 1000, 15
_FEW = 0.6  # effective share of the sample below which it is drawn anew
_SWITCH, _SWAP = 0.4, 0.35  # shares of the steps; the others draw a weight anew
_MOST = 60.0  # exponents beyond are the same


class Posterior:
    """A sample of S weights, which replies change. The same replies in the same order give the same sample.

    Attributes:
        weights: (S, K), 1 for what a principle usually weighs.
        shares: (S,) their probabilities; they sum to 1.
    """

    def __init__(self, principles: int) -> None:
        """Before any reply, for K principles."""
        self._rng = np.random.default_rng(0)
        self._prior = min(0.5, _WANTED / principles)
        shape = (_SIZE, principles)
        self.weights: Array = np.where(self._rng.random(shape) < self._prior, self._drawn(shape), 0.0)
        self.shares: Array = np.full(_SIZE, 1 / _SIZE)
        self._seen = Differences(np.zeros((0, principles)), np.zeros((0, principles)))
        self._told: list[int] = []

    def add(self, seen: Differences, first: bool | None) -> None:
        """Take a reply into account.

        Args:
            seen: of the one comparison (N = 1).
            first: was the first answer preferred? None for neither.
        """
        told = _OUTCOMES[first]
        self.shares = self.shares * outcomes(seen, self.weights)[told, :, 0]
        self.shares = self.shares / self.shares.sum()
        self._seen = Differences(*(np.concatenate(both) for both in zip(self._seen, seen, strict=True)))
        self._told.append(told)
        if 1 / np.square(self.shares).sum() < _FEW * _SIZE:
            self.weights = self.drawn(_SIZE)
            self.shares = np.full(_SIZE, 1 / _SIZE)
            likely = self._likelihood(self.weights)
            for _ in range(_STEPS):
                likely = self._step(likely)

    def drawn(self, count: int) -> Array:
        """(count, K) weights, each as often as it is probable: evenly spaced over the sample."""
        places = (np.arange(count) + 0.5) / count
        return self.weights[np.minimum(np.searchsorted(np.cumsum(self.shares), places), _SIZE - 1)]

    def _step(self, likely: Array) -> Array:
        """Propose one change to every weight vector, and make those that the replies and the prior allow."""
        size, principles = self.weights.shape
        rows = np.arange(size)
        one, other = self._rng.integers(principles, size=(2, size))
        kind = self._rng.random(size)
        fresh, turn = self._drawn((size,)), self._signs((size,))
        before, beside = self.weights[rows, one], self.weights[rows, other]
        on = before != 0
        switch, swap = kind < _SWITCH, (kind >= _SWITCH) & (kind < _SWITCH + _SWAP)
        changed = self.weights.copy()
        changed[rows, other] = np.where(swap, before * turn, beside)
        anew = np.where(switch ^ on, fresh, 0.0)  # a switch turns it off, another draw leaves it off
        changed[rows, one] = np.where(swap, beside * turn, anew)
        odds = np.log(self._prior / (1 - self._prior))
        gain = np.where(switch, np.where(on, -odds, odds), 0.0)
        found = self._likelihood(changed)
        kept = np.log(self._rng.random(size)) < found - likely + gain
        self.weights = np.where(kept[:, None], changed, self.weights)
        return np.where(kept, found, likely)

    def _likelihood(self, weights: Array) -> Array:
        """(S,) log-likelihood of all replies."""
        every = outcomes(self._seen, weights)
        told: Array = np.log(every[self._told, :, np.arange(len(self._told))]).sum(0)
        return told

    def _drawn(self, shape: tuple[int, ...]) -> Array:
        drawn: Array = self._signs(shape) * np.exp(_SPREAD * self._rng.standard_normal(shape))
        return drawn

    def _signs(self, shape: tuple[int, ...]) -> Array:
        return np.where(self._rng.random(shape) < 0.5, -1.0, 1.0)


_OUTCOMES: dict[bool | None, int] = {True: 0, False: 1, None: 2}


def outcomes(seen: Differences, weights: Array) -> Array:
    """Probabilities (3, S, N) of "first", "second" and "neither" for N comparisons under weights (S, K)."""
    margin = weights @ seen.means.T
    doubt = _LOGISTIC * np.sqrt(np.square(weights) @ seen.variances.T + _SHARPEST**2)
    first, second = (
        1 / (1 + np.exp(np.minimum((_INDIFFERENT - side * margin) / doubt, _MOST))) for side in (1.0, -1.0)
    )
    every = np.stack([first, second, np.maximum(1 - first - second, 0.0)])
    return (1 - _ANYTHING) * every + _ANYTHING / 3
