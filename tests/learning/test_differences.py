"""What two answers differ in: near -1, 0 or 1 where rewards are clear, and in doubt between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.learning.decorrelation import Basis
from pad_cli.learning.differences import basis_of_pool, differences

PLAIN = Basis(np.eye(1), np.ones(1))
GAP = 3**0.5


def test_clear_differences_are_certain_and_others_doubtful() -> None:
    found = differences(np.array([[-GAP], [0.0], [GAP], [GAP / 2]]), PLAIN)
    np.testing.assert_allclose(found.means[:3, 0], [-1, 0, 1], atol=0.02)
    assert 0.1 < found.means[3, 0] < 0.5, "both answers alike is likelier beforehand"
    assert found.variances[3, 0] > 5 * found.variances[:3, 0].max()


def test_shares_are_those_of_three_normals() -> None:
    """By hand: z = 1, densities exp(-2 z'^2) at z' = 1 + g, 1 and 1 - g, with priors 1/6, 2/3 and 1/6."""
    second, neither, first = (
        share * np.exp(-2 * (1 - side * GAP) ** 2) for side, share in ((-1, 1 / 6), (0, 2 / 3), (1, 1 / 6))
    )
    mean = (first - second) / (first + second + neither)
    found = differences(np.array([[1.0]]), PLAIN)
    assert found.means[0, 0] == pytest.approx(mean)
    assert found.variances[0, 0] == pytest.approx((first + second) / (first + second + neither) - mean**2 + 0.01)


@given(seed=st.integers(0, 1000), size=st.floats(0.1, 1e6))
def test_a_broken_text_counts_for_no_more_than_one_principle(seed: int, size: float) -> None:
    slopes = size * np.random.default_rng(seed).normal(size=(20, 3))
    found = differences(slopes, Basis(np.eye(3), np.ones(3)))
    assert np.all(np.abs(found.means) <= 1)
    assert np.all(found.variances > 0)


def test_answers_the_other_way_round_differ_the_other_way_round() -> None:
    slopes = np.random.default_rng(0).normal(size=(20, 3))
    basis = basis_of_pool(slopes)
    straight, turned = differences(slopes, basis), differences(-slopes, basis)
    np.testing.assert_allclose(turned.means, -straight.means)
    np.testing.assert_allclose(turned.variances, straight.variances)


def test_principles_are_told_apart_in_the_basis() -> None:
    """Slopes that mix two principles, and the whitening that undoes it."""
    mixing = np.array([[1.0, 0.5], [0.5, 1.0]])
    truth = GAP * np.array([[1.0, 0.0], [0.0, -1.0]])
    found = differences(truth @ mixing, Basis(np.linalg.inv(mixing), np.ones(2)))
    np.testing.assert_allclose(found.means, [[1, 0], [0, -1]], atol=0.02)


def test_a_principle_that_never_varies_in_a_pool_keeps_its_unit() -> None:
    slopes = np.array([[2.0, 0.0], [-2.0, 0.0]])
    basis = basis_of_pool(slopes)
    assert basis.units.tolist() == [2.0, 1.0]
    np.testing.assert_allclose(slopes @ basis.whitening, [[1, 0], [-1, 0]])
