"""What is left of a win rate when the answers are equally long: judges like length, and a method may just write more.

The logistic regression of length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475), without its
term for the difficulty of single instructions, which needs many models:

    logit P(i wins) = theta + phi tanh((l_i - m_i) / s)        l_i, m_i: characters of its answer and its opponent's
    length-controlled win rate = P(wins | l = m) = 1 / (1 + exp(-theta))

s is the standard deviation of the differences l - m. A tie is half a win and half a loss. theta is free; phi has the
weak ridge phi^2 / (2 * 25), as otherwise it is infinite where the longer answer always wins. Fitted by Newton's method,
for all resamples of a bootstrap at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from pad_cli.evaluation.statistics import Interval

Vector = NDArray[np.float64]

_RIDGE = 1 / 25
_STEPS = 60
_LONGEST_STEP = 2.0
_CLOSE = 1e-9
_BATCH = 100  # resamples held at once


def length_controlled(outcomes: Vector, differences: Vector) -> float:
    """The win rate at equal length.

    Args:
        outcomes: (N,) 1 for a win, 0.5 for a tie, 0 for a loss.
        differences: (N,) characters by which each answer is longer than its opponent.
    """
    return float(_rates(outcomes, _scaled(differences), np.ones((1, len(outcomes))))[0])


def length_controlled_interval(
    outcomes: Vector, differences: Vector, prompts: Sequence[str], *, confidence: float, resamples: int, seed: int
) -> Interval | None:
    """Its percentile bootstrap interval over N prompts, whose answers are drawn together; None for one prompt."""
    names, numbers = np.unique(np.array(prompts), return_inverse=True)
    if len(names) < 2:
        return None
    scaled = _scaled(differences)

    def rates(drawn: NDArray[np.int64], axis: int) -> Vector:
        draws = drawn.reshape(-1, drawn.shape[-1])
        times = np.stack([np.bincount(row, minlength=len(names)) for row in draws]).astype(float)
        return _rates(outcomes, scaled, times[:, numbers]).reshape(drawn.shape[:-1])

    interval = bootstrap(
        (np.arange(len(names)),),
        rates,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=_BATCH,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(interval.low), float(interval.high))


def _scaled(differences: Vector) -> Vector:
    spread = float(np.std(differences))
    return np.tanh(differences / spread) if spread > 0 else np.zeros(len(differences))


def _rates(outcomes: Vector, scaled: Vector, weights: Vector) -> Vector:
    """(R,) rates at equal length under (R, N) weights of the N outcomes."""
    theta, phi = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-(theta[:, None] + phi[:, None] * scaled)))
        slope, bend = weights * (outcomes - chance), weights * chance * (1 - chance)
        up, side = slope.sum(1), slope @ scaled - _RIDGE * phi
        a, b, d = bend.sum(1), bend @ scaled, bend @ scaled**2 + _RIDGE
        determinant = a * d - b * b
        steps = np.stack([d * up - b * side, a * side - b * up]) / np.maximum(determinant, np.finfo(float).tiny)
        steps = np.clip(steps, -_LONGEST_STEP, _LONGEST_STEP)
        theta, phi = theta + steps[0], phi + steps[1]
        if np.abs(steps).max() < _CLOSE:
            break
    return 1 / (1 + np.exp(-theta))
