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

from pad_cli.evaluation.statistics import Interval, Vector

_RIDGE = 1 / 25
_STEPS = 60
_LONGEST_STEP = 2.0
_CLOSE = 1e-9
_BATCH = 100  # resamples held at once


def length_controlled(
    outcomes: Vector, differences: Vector, prompts: Sequence[str], *, confidence: float, resamples: int, seed: int
) -> tuple[float, Interval | None]:
    """The win rate at equal length, and its percentile bootstrap interval over prompts; None for one prompt.

    Args:
        outcomes: (N,) 1 for a win, 0.5 for a tie, 0 for a loss.
        differences: (N,) characters by which each answer is longer than its opponent.
        prompts: (N,) names; answers to the same prompt are drawn together.
    """
    spread = float(np.std(differences))
    scaled = np.tanh(differences / spread) if spread > 0 else np.zeros(len(differences))
    (rate,) = _rates(outcomes, scaled, np.ones((1, len(outcomes))))
    names, numbers = np.unique(prompts, return_inverse=True)
    count = len(names)
    if count < 2:
        return float(rate), None
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)
    parts = np.array_split(drawn, range(_BATCH, resamples, _BATCH))
    rates = np.concatenate([_rates(outcomes, scaled, times[:, numbers]) for times in parts])
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(rate), Interval(float(low), float(high))


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
