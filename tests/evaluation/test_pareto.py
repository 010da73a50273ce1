"""Pareto fronts against definitions written out, on points small enough to do by hand and on random ones."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from pad_cli.evaluation.sweep import hypervolume, pareto_front, weight_grid

SIXTHS = st.integers(0, 6).map(lambda number: number / 6)
POINTS = st.lists(st.tuples(SIXTHS, SIXTHS), min_size=1, max_size=9)
Points = list[tuple[float, float]]


@given(POINTS)
def test_a_point_is_on_the_front_unless_another_dominates_it(points: Points) -> None:
    members, _ = pareto_front(np.array(points)[:, None], np.zeros(2), resamples=1, confidence=0.9, seed=0)
    for number, (point, member) in enumerate(zip(points, members, strict=True)):
        dominated = any(a >= point[0] and b >= point[1] and (a, b) != point for a, b in points)
        assert member == (not dominated and point not in points[:number])


@given(POINTS)
def test_hypervolume_is_the_area_of_what_some_point_dominates(points: Points) -> None:
    cells = sum(
        any(a >= (x + 1) / 6 - 1e-9 and b >= (y + 1) / 6 - 1e-9 for a, b in points)
        for x, y in itertools.product(range(6), repeat=2)
    )
    assert hypervolume(np.array(points), np.zeros(2)) == pytest.approx(cells / 36)


@given(POINTS, POINTS)
def test_more_points_never_have_less_hypervolume(points: Points, more: Points) -> None:
    reference = np.zeros(2)
    assert hypervolume(np.array(points + more), reference) >= hypervolume(np.array(points), reference) - 1e-12


def test_the_interval_holds_the_hypervolume_and_shrinks_with_more_prompts() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for prompts in (20, 500):
        values = (rng.random((5, prompts, 2)) < np.linspace(0.2, 0.8, 5)[:, None, None]).astype(float)
        _, front = pareto_front(values, np.zeros(2), resamples=300, confidence=0.95, seed=1)
        assert front["low"] <= front["hypervolume"] <= front["high"]
        widths.append(front["high"] - front["low"])
    assert widths[1] < widths[0] / 2


def test_a_front_is_that_of_the_means_and_its_interval_scipys_percentiles_over_prompts() -> None:
    values, reference = np.random.default_rng(0).random((30, 12, 2)), np.zeros(2)
    members, front = pareto_front(values, reference, resamples=300, confidence=0.9, seed=1)
    means = values.mean(axis=1)
    on_front = [not any((other > mean).all() for other in means) for mean in means]
    assert members.tolist() == on_front
    expected = bootstrap(
        (np.arange(12),),
        lambda drawn: hypervolume(values[:, drawn].mean(axis=1), reference),
        vectorized=False,
        method="percentile",
        confidence_level=0.9,
        n_resamples=300,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    assert (front["low"], front["high"]) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("principles", "steps"), [(2, 1), (2, 4), (3, 3)])
def test_weights_sum_to_one_and_hold_every_corner_once(principles: int, steps: int) -> None:
    grid = weight_grid(principles, steps)
    assert len(set(grid)) == len(grid) == math.comb(steps + principles - 1, principles - 1)
    assert all(math.isclose(sum(weights), 1) and min(weights) >= 0 for weights in grid)
    assert {tuple(float(place == corner) for place in range(principles)) for corner in range(principles)} <= set(grid)
