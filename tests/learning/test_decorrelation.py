"""Choices are fitted where principles are uncorrelated and of one unit."""

from __future__ import annotations

import numpy as np
import pytest

from pad_cli.learning.choices import Choices
from pad_cli.learning.decorrelation import basis_of, served, turned
from pad_cli.learning.features import Features
from pad_cli.learning.fit import Array, fit_weights, stack_margins
from pad_cli.learning.learn import learn_features

MIXED = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
UNITS = np.array([1.0, 3.0, 0.2])


def moments_of(slopes: Array) -> list[list[float]]:
    moments: list[list[float]] = (slopes.T @ slopes / len(slopes)).tolist()
    return moments


def drawn(count: int, seed: int) -> tuple[Array, Array]:
    """What is in answers, one principle in three differing, and the correlated, noisy rewards that tell of it."""
    rng = np.random.default_rng(seed)
    shown = rng.choice([-1.0, 0.0, 1.0], size=(count, 3), p=[1 / 6, 2 / 3, 1 / 6])
    return shown, 3 * (shown @ MIXED + 0.2 * rng.standard_normal((count, 3))) * UNITS


def test_uncorrelated_rewards_of_one_unit_are_left_alone() -> None:
    basis = basis_of(np.diag([4.0, 4.0]).tolist())
    assert basis is not None
    assert basis.whitening == pytest.approx(np.eye(2) / 2)
    assert served(np.ones((1, 2)), basis) == pytest.approx(np.full((1, 2), 0.5))


def test_in_the_basis_rewards_have_one_unit_and_vary_less_together() -> None:
    moments = np.array(moments_of(drawn(2000, 0)[1]))
    basis = basis_of(moments.tolist())
    assert basis is not None
    within = basis.whitening.T @ moments @ basis.whitening

    def correlation(table: Array) -> float:
        return abs(float(table[0, 1] / np.sqrt(table[0, 0] * table[1, 1])))

    assert correlation(within) < 0.9 * correlation(moments)
    assert np.diagonal(within) == pytest.approx(np.ones(3), rel=0.5)


@pytest.mark.parametrize("moments", [None, [[1.0, 0.0], [0.0, 0.0]]])
def test_without_moments_choices_are_fitted_as_they_are(moments: list[list[float]] | None) -> None:
    assert basis_of(moments) is None
    margins = stack_margins([Features(drawn(20, 1)[1], np.zeros(20))])
    assert turned(margins, None) is margins
    weights = fit_weights(margins).weights
    assert np.array_equal(served(weights, None), weights)


def test_weights_in_the_basis_predict_better_than_without() -> None:
    moments = moments_of(drawn(2000, 0)[1])
    right: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(40):
        wanted = np.eye(3)[seed % 3] * (-1 if seed % 2 else 1)
        shown, slopes = drawn(200, 10 + seed)
        worth = shown @ wanted
        told, signs = slopes[worth != 0], np.sign(worth[worth != 0])
        choices = told * signs[:, None]
        for known in right:
            margins = stack_margins([Features(choices[:6], np.zeros(6))])
            basis = basis_of(moments if known else None)
            (weights,) = served(fit_weights(turned(margins, basis)).weights, basis)
            right[known].append(float(np.mean(choices[6:] @ weights > 0)))
    assert np.mean(right[True]) > np.mean(right[False])


def test_the_largest_weight_is_two_whatever_the_unit_of_rewards() -> None:
    shown, slopes = drawn(40, 2)
    kept = shown[:, 0] != 0
    choices = (slopes * np.sign(shown[:, :1]))[kept]
    told = Choices((), 0, 0)
    for factor in (0.01, 1.0, 100.0):
        features = Features(choices * factor, np.zeros(len(choices)))
        learned = learn_features("abc", {"": (told, features)}, moments_of(slopes * factor))[""]
        assert max(map(abs, learned.weights.values())) == pytest.approx(2.0)
        assert learned.weights["a"] > 0
