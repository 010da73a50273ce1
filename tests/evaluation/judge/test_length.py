"""The length-controlled win rate: a regression, equal to scikit-learn's, that takes away what length alone won."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pad_cli.evaluation.judge.length import length_controlled
from pad_cli.evaluation.statistics import Interval


def made(seed: int, *, ability: float, taste: float, rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of a judge who sees `ability` and likes length by `taste`, of answers that are mostly longer."""
    generator = np.random.default_rng(seed)
    differences = generator.normal(60.0, 80.0, rows).round()
    chance = 1 / (1 + np.exp(-(ability + taste * np.tanh(differences / differences.std()))))
    outcomes = (generator.random(rows) < chance).astype(float)
    outcomes[generator.random(rows) < 0.2] = 0.5
    return outcomes, differences


def rate(outcomes: np.ndarray, differences: np.ndarray) -> float:
    return length_controlled(outcomes, differences, ["a"] * len(outcomes), confidence=0.95, resamples=1, seed=0)[0]


def resampled(
    outcomes: np.ndarray, differences: np.ndarray, prompts: list[str], confidence: float = 0.95, seed: int = 1,
    resamples: int = 300,
) -> Interval:  # fmt: skip
    _, found = length_controlled(outcomes, differences, prompts, confidence=confidence, resamples=resamples, seed=seed)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(10))
def test_it_equals_scikit_learns_regression(seed: int) -> None:
    outcomes, differences = made(seed, ability=seed / 5 - 1, taste=seed / 3, rows=20 + 10 * seed)
    scaled = np.tanh(differences / differences.std())[:, None]
    twice = np.concatenate([scaled, scaled])
    won = np.repeat([1, 0], len(outcomes))
    shares = np.concatenate([outcomes, 1 - outcomes])
    model = LogisticRegression(C=25.0, tol=1e-10, max_iter=10_000).fit(twice, won, sample_weight=shares)
    assert rate(outcomes, differences) == pytest.approx(1 / (1 + np.exp(-model.intercept_[0])), abs=1e-6)


def test_what_length_alone_won_is_taken_away() -> None:
    outcomes, differences = made(1, ability=0.0, taste=3.0, rows=3000)
    assert outcomes.mean() > 0.65
    assert rate(outcomes, differences) == pytest.approx(0.5, abs=0.06)


def test_what_ability_won_stays() -> None:
    outcomes, differences = made(2, ability=1.5, taste=0.0, rows=3000)
    assert rate(outcomes, differences) == pytest.approx(outcomes.mean(), abs=0.05)


def test_lengths_may_have_any_unit() -> None:
    outcomes, differences = made(4, ability=0.5, taste=1.0)
    assert rate(outcomes, differences / 1e4) == pytest.approx(rate(outcomes, differences))


def test_answers_of_equal_length_keep_their_plain_rate() -> None:
    outcomes = np.array([1.0, 1.0, 0.5, 0.0, 1.0])
    assert rate(outcomes, np.full(5, 12.0)) == pytest.approx(outcomes.mean())


def test_swapping_the_sides_gives_the_complement() -> None:
    outcomes, differences = made(3, ability=0.7, taste=1.0)
    assert rate(1 - outcomes, -differences) == pytest.approx(1 - rate(outcomes, differences))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_clean_sweep_is_a_clean_sweep(value: float) -> None:
    differences = np.array([3.0, -5.0, 40.0, 7.0])
    assert rate(np.full(4, value), differences) == pytest.approx(value, abs=1e-6)


def test_wins_of_all_longer_answers_and_no_others_are_finite() -> None:
    differences = np.array([-30.0, -20.0, -10.0, 10.0, 20.0, 30.0])
    assert rate((differences > 0).astype(float), differences) == pytest.approx(0.5)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        outcomes, differences = made(seed, ability=0.0, taste=2.0, rows=120)
        low, high = resampled(outcomes, differences, [str(row) for row in range(120)])
        assert low < rate(outcomes, differences) < high
        covered += low <= 0.5 <= high
    assert covered >= 51  # of 57 expected; fewer has a chance of about 1 in 200


def test_the_interval_is_decided_by_its_seed_and_wider_with_more_confidence() -> None:
    outcomes, differences = made(6, ability=0.5, taste=1.0, rows=40)
    names = [str(row) for row in range(40)]

    def ends(confidence: float, seed: int) -> Interval:
        return resampled(outcomes, differences, names, confidence, seed)

    assert ends(0.95, 1) == ends(0.95, 1) != ends(0.95, 2)
    assert ends(0.95, 1)[0] < ends(0.6, 1)[0] < ends(0.6, 1)[1] < ends(0.95, 1)[1]


@pytest.mark.parametrize(("won", "low"), [([1, 0], 0.0), ([1, 1, 1, 1, 0], 0.4)])
def test_the_interval_is_the_percentiles_of_the_resampled_rates(won: list[int], low: float) -> None:
    """Of equally long answers. Of five prompts one is lost: 6 % of resamples lose three or more, 1 % four or more."""
    names = [str(row) for row in range(len(won))]
    found = resampled(np.array(won, float), np.full(len(won), 5.0), names, seed=0, resamples=2000)
    assert found == pytest.approx((low, 1.0))


def test_copies_of_a_prompt_do_not_narrow_the_interval() -> None:
    outcomes, differences = made(5, ability=0.5, taste=1.0, rows=40)
    names = [str(row) for row in range(40)]
    single = resampled(outcomes, differences, names)
    copied = resampled(np.tile(outcomes, 4), np.tile(differences, 4), names * 4)
    assert copied[1] - copied[0] == pytest.approx(single[1] - single[0], rel=0.1)


def test_one_prompt_has_no_interval() -> None:
    _, one = length_controlled(
        np.array([1.0, 0.0]), np.array([1.0, 2.0]), ["a", "a"], confidence=0.95, resamples=100, seed=0
    )
    assert one is None
