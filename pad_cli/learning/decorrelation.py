"""Choices in a basis in which the reward model's principles neither vary together nor in different units.

Heads are trained one by one, so an answer that is concise is rewarded a little for being simple, too, and every head
adds a little noise to every choice. With M the second moments of the training pairs' margins (`pair_moments` of
`training/calibration.py`), s the root of its diagonal, and C the correlations, shrunk half-way to none, choices are
fitted as

    x' = soft(x diag(1/s) C^(-1/2)),        soft(v) = sign(v) max(|v| - 0.3, 0)

C^(-1/2) is the whitening that changes its input least (ZCA: Kessy, Lewin and Strimmer 2018, arXiv 1512.00809); soft
thresholding takes differences for none that are small beside those of answers with and without a principle. The
weights w' say what a user wants of every principle as such, and each is served by that principle's own head:
w = w' / s. (Turned back by C^(-1/2), too, they would predict the embedded world's choices as well, but steer less well:
they ask a little of every head.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pad_cli.learning.fit import BETA, Array, Margins

_SHRUNK = 0.5
_NOISE = 0.3  # standard deviations


@dataclass(frozen=True)
class Basis:
    """Where choices between K principles are fitted.

    Attributes:
        whitening: (K, K), diag(1/s) C^(-1/2).
        units: (K,), s.
    """

    whitening: Array
    units: Array


def basis_of(moments: Sequence[Sequence[float]] | None) -> Basis | None:
    """The basis of (K, K) second moments; None where they are not known, or leave a principle without any variance."""
    if moments is None:
        return None
    table = np.asarray(moments, np.float64)
    units = np.sqrt(np.diagonal(table))
    if not np.all(units > 0):
        return None
    correlation = (1 - _SHRUNK) * table / np.outer(units, units) + _SHRUNK * np.eye(len(table))
    spread, axes = np.linalg.eigh(correlation)
    return Basis((axes / np.sqrt(spread)) @ axes.T / units[:, None], units)


def turned(margins: Margins, basis: Basis | None) -> Margins:
    """The same choices in a basis."""
    if basis is None:
        return margins
    slopes = margins.slopes @ basis.whitening
    noise = BETA * _NOISE  # margins are BETA times differences
    return replace(margins, slopes=np.sign(slopes) * np.maximum(np.abs(slopes) - noise, 0.0))


def served(weights: Array, basis: Basis | None) -> Array:
    """(U, K) weights that were fitted in a basis, as weights of the reward model's heads."""
    return weights if basis is None else weights / basis.units


def served_covariance(covariance: Array, basis: Basis | None) -> Array:
    """The same for (U, K, K) covariances."""
    return covariance if basis is None else covariance / np.outer(basis.units, basis.units)
