"""Intervals cover, tests do not cry wolf, and prompts are what counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from pad_cli.evaluation.statistics import Sample, by_prompt, holm, intervals, p_values

TIMES = 200


def interval(sample: Sample, bounds: tuple[float, float] | None = None, resamples: int = 1000) -> tuple[float, float]:
    (found,) = intervals([sample], confidence=0.95, resamples=resamples, seed=0, bounds=[bounds])
    assert found is not None
    return found


def prompts_of(rng: np.random.Generator, *, prompts: int, items: int, effect: float = 0.0) -> Sample:
    """Items of one prompt share most of what makes their score."""
    return by_prompt(
        (f"p{number}", shared + 0.3 * rng.normal() + effect)
        for number, shared in enumerate(rng.normal(size=prompts))
        for _ in range(items)
    )


def test_mean_and_standard_error_are_those_worked_by_hand() -> None:
    """2, 4, 6, 8 of four prompts: mean 5, squares 9 + 1 + 1 + 9 = 20, sqrt(4/3 * 20) / 4 = sqrt(20/3/4) = 1.2910."""
    sample = by_prompt([("a", 2.0), ("b", 4.0), ("c", 6.0), ("d", 8.0)])
    assert sample.mean == 5.0
    assert sample.stderr == pytest.approx(math.sqrt(20 / 3 / 4))


def test_two_items_of_a_prompt_count_as_one_observation() -> None:
    """a: 2, 4; b: 6, 8: mean 5, sums off by 6 - 10 = -4 and 14 - 10 = 4, sqrt(2 / 1 * 32) / 4 = 2."""
    sample = by_prompt([("a", 2.0), ("b", 6.0), ("a", 4.0), ("b", 8.0)])
    assert (sample.prompts, sample.mean) == (("a", "b"), 5.0)
    assert sample.stderr == pytest.approx(2.0)
    assert by_prompt([("a", 2.0), ("a", 8.0)]).stderr is None


def test_the_interval_is_scipys_for_the_ratio_of_sums_and_sizes() -> None:
    rng = np.random.default_rng(3)
    sample = Sample(tuple(map(str, range(30))), rng.normal(size=30), rng.integers(1, 5, 30).astype(float))
    expected = bootstrap(
        (sample.sums, sample.sizes),
        lambda sums, sizes, axis: sums.sum(axis) / sizes.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=1000,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    assert interval(sample) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("items", [1, 6])
def test_the_interval_covers_the_truth_as_often_as_it_says_however_alike_a_prompts_items_are(items: int) -> None:
    rng = np.random.default_rng(0)
    samples = [prompts_of(rng, prompts=40, items=items) for _ in range(TIMES)]
    covered = sum(low <= 0 <= high for low, high in map(interval, samples))
    assert binom.cdf(covered, TIMES, 0.95) > 0.001
    assert binom.sf(covered - 1, TIMES, 0.95) > 0.001


def test_an_interval_of_items_as_if_they_were_prompts_would_not_cover() -> None:
    """Guards the test above: its data can tell the difference."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(TIMES // 2):
        sample = [(f"{number}", shared + 0.3 * rng.normal()) for number, shared in enumerate(rng.normal(size=40))] * 6
        low, high = interval(by_prompt((f"{place}", value) for place, (_, value) in enumerate(sample)))
        covered += low <= 0 <= high
    assert binom.cdf(covered, TIMES // 2, 0.95) < 1e-6


def test_shares_of_some_prompts_are_covered_too() -> None:
    rng = np.random.default_rng(1)
    samples = [by_prompt((str(i), float(x)) for i, x in enumerate(rng.random(60) < 0.05)) for _ in range(TIMES)]
    covered = sum(low <= 0.05 <= high for low, high in (interval(sample, (0.0, 1.0)) for sample in samples))
    assert binom.cdf(covered, TIMES, 0.95) > 0.001


@pytest.mark.parametrize(
    ("value", "bounds", "low", "high"),
    [
        (0.0, (0.0, 1.0), 0.0, 1 - 0.05**0.1),  # none of ten: at most 26 % of all
        (1.0, (0.0, 1.0), 0.05**0.1, 1.0),
        (0.0, (-1.0, 1.0), 0.05**0.1 - 1, 1 - 0.05**0.1),
        (0.0, None, 0.0, 0.0),
        (3.0, None, 3.0, 3.0),
    ],
)
def test_prompts_that_all_say_the_same_are_no_certainty(
    value: float, bounds: tuple[float, float] | None, low: float, high: float
) -> None:
    sample = by_prompt((str(number), value) for number in range(10))
    assert interval(sample, bounds) == pytest.approx((low, high))


def test_prompts_say_the_same_when_their_means_do_however_many_items_they_have() -> None:
    uneven = by_prompt([("a", 0.5), ("a", 0.5), ("a", 0.5), ("b", 0.5)])
    even = by_prompt([("a", 0.5), ("b", 0.5)])
    assert (
        interval(uneven, (0.0, 1.0)) == interval(even, (0.0, 1.0)) == pytest.approx((0.05**0.5 / 2, 1 - 0.05**0.5 / 2))
    )


def test_one_prompt_has_no_interval_and_no_effect_size() -> None:
    sample = by_prompt([("a", 1.0), ("a", 0.0)])
    assert intervals([sample], confidence=0.95, resamples=200, seed=0) == [None]
    assert sample.effect_size is None
    assert p_values([sample], seed=0) == [1.0]


def test_one_prompt_among_others_leaves_them_their_tests() -> None:
    """Two of two in one direction: 2 of the 4 flips are as extreme."""
    one, two = by_prompt([("a", 1.0)]), by_prompt([("a", 1.0), ("b", 2.0)])
    assert p_values([one, two, one], seed=0) == [1.0, 0.5, 1.0]


def test_an_interval_depends_on_its_own_sample_only() -> None:
    rng = np.random.default_rng(2)
    one, two, other = (prompts_of(rng, prompts=size, items=2) for size in (20, 20, 7))
    together = intervals([other, one, two], confidence=0.95, resamples=500, seed=5)
    assert together[1:] == intervals([one, two], confidence=0.95, resamples=500, seed=5)
    assert together[0] == intervals([other], confidence=0.95, resamples=500, seed=5)[0]
    assert together[1] != intervals([one], confidence=0.95, resamples=500, seed=6)[0]
    assert p_values([other, one, two], seed=5)[1:] == p_values([one, two], seed=5)


def test_more_confidence_is_a_wider_interval() -> None:
    sample = prompts_of(np.random.default_rng(0), prompts=20, items=1)
    narrow, wide = (intervals([sample], confidence=share, resamples=1000, seed=0)[0] for share in (0.6, 0.99))
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low < sample.mean < narrow.high < wide.high


@pytest.mark.parametrize("prompts", [8, 40])
def test_two_identical_methods_seldom_differ(prompts: int) -> None:
    """The null test: same distribution, the same prompts, 200 times; 5 % may seem to differ, and the noise of 200."""
    rng = np.random.default_rng(4)
    differences = [prompts_of(rng, prompts=prompts, items=3) for _ in range(TIMES)]
    wrong = sum(p < 0.05 for p in p_values(differences, seed=0))
    assert binom.sf(wrong - 1, TIMES, 0.05) > 0.001  # at most 20 of 200


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(5)
    differences = [prompts_of(rng, prompts=40, items=3, effect=1.0) for _ in range(20)]
    assert sum(p < 0.01 for p in p_values(differences, seed=0)) >= 18


def test_few_prompts_are_tested_exactly_and_both_ways() -> None:
    """Five of five in one direction: 2 of the 32 flips are as extreme."""
    up = by_prompt((str(number), number + 1.0) for number in range(5))
    down = by_prompt((str(number), -number - 1.0) for number in range(5))
    assert p_values([up, down], seed=0) == pytest.approx([2 / 32, 2 / 32])


def test_answers_that_are_the_same_do_not_differ() -> None:
    assert p_values([by_prompt((str(number), 0.0) for number in range(30))], seed=0) == [1.0]


def test_holm_is_that_worked_by_hand() -> None:
    """Smallest first: .01 x 4, .02 x 3, .03 x 2 lifted to the one before, .8 x 1; order kept; never above 1."""
    assert holm([0.8, 0.01, 0.03, 0.02]) == pytest.approx([0.8, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_corrected_table_of_ten_identical_methods_seldom_has_any_that_differs() -> None:
    rng = np.random.default_rng(6)
    tables = [[prompts_of(rng, prompts=12, items=1) for _ in range(10)] for _ in range(40)]
    tested = [p_values(table, seed=number) for number, table in enumerate(tables)]
    wrong = sum(min(holm(p)) < 0.05 for p in tested)
    assert binom.sf(wrong - 1, len(tables), 0.05) > 0.001
    assert sum(min(p) < 0.05 for p in tested) > 10, "without the correction every third table has one"


def test_the_effect_size_is_that_worked_by_hand() -> None:
    """Prompts' means 1 (of 0 and 2), 2, 3: mean 2, sd 1. Means 0 and 2: mean 1, sd sqrt(2)."""
    assert by_prompt([("a", 0.0), ("a", 2.0), ("b", 2.0), ("c", 3.0)]).effect_size == pytest.approx(2.0)
    assert by_prompt([("a", 0.0), ("b", 2.0)]).effect_size == pytest.approx(math.sqrt(0.5))
    assert by_prompt([("a", 1.0), ("b", 1.0)]).effect_size is None
