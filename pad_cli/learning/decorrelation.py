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

from pad_cli.learning.fit import BETA, Array, Fit, Margins, fit_weights

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


def fit_in(margins: Margins, basis: Array | None) -> Fit:
    """Weights and their covariance in the reward model's own terms, fitted in a basis."""
    if basis is None:
        return fit_weights(margins)
    turned = margins.slopes @ basis
    slopes = np.sign(turned) * np.maximum(np.abs(turned) - BETA * _NOISE, 0.0)  # margins are BETA times differences
    fit = fit_weights(replace(margins, slopes=slopes))
    return Fit(fit.weights @ basis.T, basis @ fit.covariance @ basis.T, fit.strength)
