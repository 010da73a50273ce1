"""Which principles two answers differ in, and how sure that is, as their rewards tell it.

In a basis in which principles neither vary together nor in different units (`decorrelation.py`), a principle that a
third of all pairs differ in has differences z around -g, 0 and g = sqrt(3), since their root mean square is 1. With
d = -1, 0 or 1 for "only the second answer has it", "both or neither" and "only the first has it",

    P(d | z) ~ P(d) exp(-(z - g d)^2 / 2 s^2)               P(d) = 1/6, 2/3, 1/6

says what a difference is worth: one far from 0, g and -g is doubtful, and a broken text's counts for no more than 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pad_cli.learning.decorrelation import Basis
from pad_cli.learning.fit import Array

_SHARE = 1 / 3  # of pairs that differ in a principle
_NOISE = 0.5  # s, in standard deviations of differences
_REST = 0.1  # standard deviation of what is left when it is certain that two answers differ, in principles


class Differences(NamedTuple):
    """Expected differences of N comparisons in K principles, first answer less second; 1 for a principle.

    Attributes:
        means: (N, K), between -1 and 1.
        variances: (N, K), of what is not known.
    """

    means: Array
    variances: Array

    def at(self, place: int) -> Differences:
        """One of them, as N = 1."""
        return Differences(self.means[place : place + 1], self.variances[place : place + 1])


def differences(slopes: Array, basis: Basis) -> Differences:
    """What comparisons with slopes (N, K), first answer less second, differ in."""
    seen = slopes @ basis.whitening
    gap = _SHARE**-0.5
    logs = np.stack(
        [
            np.log(share) - np.square((seen - side * gap) / _NOISE) / 2
            for side, share in ((-1, _SHARE / 2), (0, 1 - _SHARE), (1, _SHARE / 2))
        ]
    )
    odds = np.exp(logs - logs.max(0))
    second, _, first = odds / odds.sum(0)
    means = first - second
    return Differences(means, first + second - means**2 + _REST**2)


def basis_of_pool(slopes: Array) -> Basis:
    """The basis of a reward model without moments: each principle as it is, in units of a pool's slopes (N, K)."""
    spread = slopes.std(axis=0)
    units = np.where(spread > 0, spread, 1.0)
    return Basis(np.diag(1 / units), units)
