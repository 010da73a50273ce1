"""What two answers differ in: near -1, 0 or 1 where rewards are clear, and in doubt between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.learning.posterior import Array, Basis, Differences, basis_of, differences

PLAIN = Basis(np.eye(1), np.ones(1))
GAP = 3**0.5


def read(slopes: Array, basis: Basis) -> Differences:
    return differences(slopes, np.zeros(len(slopes)), basis)


def test_clear_differences_are_certain_and_others_doubtful() -> None:
    found = read(np.array([[-GAP], [0.0], [GAP], [GAP / 2]]), PLAIN)
    np.testing.assert_allclose(found.means[:3, 0], [-1, 0, 1], atol=0.02)
    assert 0.1 < found.means[3, 0] < 0.5, "both answers alike is likelier beforehand"
    assert found.variances[3, 0] > 5 * found.variances[:3, 0].max()


def test_shares_are_those_of_three_normals() -> None:
    """By hand: z = 1, densities exp(-2 z'^2) at z' = 1 + g, 1 and 1 - g, with priors 1/6, 2/3 and 1/6."""
    second, neither, first = (
        share * np.exp(-2 * (1 - side * GAP) ** 2) for side, share in ((-1, 1 / 6), (0, 2 / 3), (1, 1 / 6))
    )
    mean = (first - second) / (first + second + neither)
    found = read(np.array([[1.0]]), PLAIN)
    assert found.means[0, 0] == pytest.approx(mean)
    assert found.variances[0, 0] == pytest.approx((first + second) / (first + second + neither) - mean**2 + 0.01)


@given(seed=st.integers(0, 1000), size=st.floats(0.1, 1e6))
def test_a_broken_text_counts_for_no_more_than_one_principle(seed: int, size: float) -> None:
    slopes = size * np.random.default_rng(seed).normal(size=(20, 3))
    found = read(slopes, Basis(np.eye(3), np.ones(3)))
    assert np.all(np.abs(found.means) <= 1)
    assert np.all(found.variances > 0)


def test_answers_the_other_way_round_differ_the_other_way_round() -> None:
    slopes = np.random.default_rng(0).normal(size=(20, 3))
    basis = basis_of(None, slopes)
    straight, turned = read(slopes, basis), read(-slopes, basis)
    np.testing.assert_allclose(turned.means, -straight.means)
    np.testing.assert_allclose(turned.variances, straight.variances)


def test_principles_are_told_apart_in_the_basis() -> None:
    """Slopes that mix two principles, and the whitening that undoes it."""
    mixing = np.array([[1.0, 0.5], [0.5, 1.0]])
    truth = GAP * np.array([[1.0, 0.0], [0.0, -1.0]])
    found = read(truth @ mixing, Basis(np.linalg.inv(mixing), np.ones(2)))
    np.testing.assert_allclose(found.means, [[1, 0], [0, -1]], atol=0.02)


def test_without_moments_all_principles_have_the_unit_of_the_slopes() -> None:
    assert basis_of(None, np.array([[1.0, 7.0], [-5.0, 5.0]])).units == pytest.approx([5.0, 5.0])
    assert np.all(np.isfinite(basis_of(None, np.zeros((3, 2))).whitening))


MIXED = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
UNITS = np.array([1.0, 3.0, 0.2])


def drawn(count: int, seed: int) -> Array:
    """Correlated, noisy rewards of answers, one principle in three differing."""
    rng = np.random.default_rng(seed)
    shown = rng.choice([-1.0, 0.0, 1.0], size=(count, 3), p=[1 / 6, 2 / 3, 1 / 6])
    return 3 * (shown @ MIXED + 0.2 * rng.standard_normal((count, 3))) * UNITS


def test_uncorrelated_rewards_of_one_unit_are_left_alone() -> None:
    basis = basis_of(np.diag([4.0, 4.0]).tolist(), np.ones((1, 2)))
    assert basis.whitening == pytest.approx(np.eye(2) / 2)
    assert basis.units == pytest.approx(np.full(2, 2.0))


def test_in_the_basis_rewards_have_one_unit_and_vary_less_together() -> None:
    slopes = drawn(2000, 0)
    moments = slopes.T @ slopes / len(slopes)
    basis = basis_of(moments.tolist(), slopes)
    within = basis.whitening.T @ moments @ basis.whitening

    def correlation(table: Array) -> float:
        return abs(float(table[0, 1] / np.sqrt(table[0, 0] * table[1, 1])))

    assert correlation(within) < 0.9 * correlation(moments)
    assert np.diagonal(within) == pytest.approx(np.ones(3), rel=0.5)


def test_moments_that_leave_a_principle_without_variance_are_not_used() -> None:
    slopes = drawn(200, 1)
    unusable, without = (basis_of(moments, slopes) for moments in ([[1.0, 0, 0], [0, 0.0, 0], [0, 0, 1.0]], None))
    np.testing.assert_array_equal(unusable.whitening, without.whitening)
