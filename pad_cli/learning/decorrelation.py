"""Choices in a basis in which the reward model's principles neither vary together nor in different units.

Heads are trained one by one, so an answer that is concise is rewarded a little for being simple, too, and every head
adds a little noise to every choice. With M the second moments of the training pairs' margins (`training/moments.py`),
s the root of its diagonal, and C the correlations, shrunk half-way to none,

    x' = soft(x Z),   Z = diag(1/s) C^(-1/2),   soft(v) = sign(v) max(|v| - 0.3, 0)         and back: w = Z w'

Z is the whitening that changes its input least (ZCA: Kessy, Lewin and Strimmer 2018, arXiv 1512.00809); soft
thresholding takes differences for none that are small beside those of answers with and without a principle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pad_cli.learning.fit import BETA, Array, Margins

_SHRUNK = 0.5
_NOISE = 0.3  # standard deviations


def basis_of(moments: Sequence[Sequence[float]] | None) -> Array | None:
    """Z of (K, K) second moments; None where they are not known, or leave a principle without any variance."""
    if moments is None:
        return None
    table = np.asarray(moments, np.float64)
    size = np.sqrt(np.diagonal(table))
    if not np.all(size > 0):
        return None
    correlation = (1 - _SHRUNK) * table / np.outer(size, size) + _SHRUNK * np.eye(len(table))
    spread, axes = np.linalg.eigh(correlation)
    return np.asarray((axes / np.sqrt(spread)) @ axes.T / size[:, None], np.float64)


def turned(margins: Margins, basis: Array | None) -> Margins:
    """The same choices in a basis."""
    if basis is None:
        return margins
    slopes = margins.slopes @ basis
    noise = BETA * _NOISE  # margins are BETA times differences
    return replace(margins, slopes=np.sign(slopes) * np.maximum(np.abs(slopes) - noise, 0.0))


def turned_back(weights: Array, basis: Array | None) -> Array:
    """(U, K) weights in a basis, in the reward model's own terms."""
    return weights if basis is None else weights @ basis.T


def covariance_back(covariance: Array, basis: Array | None) -> Array:
    """The same for (U, K, K) covariances."""
    return covariance if basis is None else np.asarray(basis @ covariance @ basis.T, np.float64)
