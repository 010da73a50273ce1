"""What is said of one user's choices, and that many users are learned as each alone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pad_cli.learning.choices import Choice
from pad_cli.learning.user_weights import Features, Learned, choice_features, learn_features, learn_user, learn_users
from tests.learning.test_features import make_comparisons

NAMES = ("humorous", "formal", "concise", "expert")
UNIT, GAP = 3.0, 3**0.5  # nats; see `differences`
MOMENTS = (UNIT**2 * np.eye(4)).tolist()


def drawn(count: int, seed: int) -> tuple[Any, Any]:
    """What two answers differ in, one principle in three, and the noisy slopes that tell of it."""
    rng = np.random.default_rng(seed)
    present = rng.choice([-1.0, 0.0, 1.0], (count, 4), p=[1 / 6, 2 / 3, 1 / 6])
    return present, UNIT * (GAP * present + 0.3 * rng.standard_normal((count, 4)))


def make_user(count: int, seed: int, weights: Any = (1.5, -1.0, 0.0, 0.0), mistakes: float = 0.05) -> Features:
    """Choices between answers that are not worth the same to a user, some of them mistaken."""
    rng = np.random.default_rng(seed)
    present, slopes = drawn(20 * count, seed)
    worth = present @ np.array(weights)
    slopes, worth = slopes[worth != 0][:count], worth[worth != 0][:count]
    signs = np.sign(worth) * np.where(rng.random(count) < mistakes, -1.0, 1.0)
    return Features(slopes * signs[:, None], np.zeros(count))


def learn(user: Features, moments: Any = MOMENTS) -> Learned:
    return learn_features(NAMES, [True] * len(user.slopes), user, moments)


def test_clear_choices_are_found_and_named() -> None:
    learned = learn(make_user(60, seed=1))
    assert learned.summary.startswith("you prefer: humorous +")
    assert "; you avoid: formal -" in learned.summary
    assert (learned.choices, learned.ties) == (60, 0)
    assert max(map(abs, learned.weights.values())) == pytest.approx(2.0)
    for name, (low, high) in learned.intervals.items():
        assert low <= high
        assert learned.weights[name] == 0 or low <= learned.weights[name] <= high


def test_small_weights_that_may_be_0_are_0() -> None:
    learned = [learn(make_user(40, seed=seed, weights=(1.0, 0.0, 0.0, 0.0))) for seed in range(10)]
    zeros = [weight == 0 for each in learned for weight in [*each.weights.values()][1:]]
    assert sum(zeros) / len(zeros) > 0.7
    assert all(each.weights["humorous"] > 1 for each in learned)


def test_the_largest_weight_is_two_whatever_the_unit_of_rewards() -> None:
    user = make_user(20, seed=3)
    for factor in (0.01, 1.0, 100.0):
        moments = (np.array(MOMENTS) * factor**2).tolist()
        for known in (moments, None):
            learned = learn(Features(user.slopes * factor, user.offsets), known)
            assert max(map(abs, learned.weights.values())) == pytest.approx(2.0)
            assert learned.weights["humorous"] > 0


def test_accuracy_is_that_of_choices_the_weights_have_not_seen() -> None:
    """Random choices are predicted in half of all cases, however well they are remembered."""
    learned = [learn(Features(drawn(12, seed)[1], np.zeros(12))) for seed in range(60)]
    assert 0.4 < np.mean([each.accuracy.value for each in learned]) < 0.55
    share = learned[0].accuracy
    assert share.low < share.value < share.high
    assert share.n == 12


def test_without_weights_nothing_is_named() -> None:
    learned = replace(learn(make_user(40, seed=1)), weights=dict.fromkeys(NAMES, 0.0))
    assert learned.summary == "nothing that these choices have in common"


def test_choices_between_answers_that_do_not_differ_say_nothing() -> None:
    learned = learn(Features(np.zeros((5, 4)), np.zeros(5)))
    assert learned.accuracy.low <= 0.5
    assert all(low <= 0 <= high for low, high in learned.intervals.values())


def test_a_broken_text_gives_finite_weights() -> None:
    slopes = 1e4 * np.abs(np.random.default_rng(6).normal(0, 1, (50, 4)))
    assert np.isfinite([*learn(Features(slopes, np.zeros(50))).weights.values()]).all()


def test_users_learned_at_once_are_learned_as_each_alone(reward_model: Any) -> None:
    rng = random.Random(0)
    users = {
        str(n): [Choice(each, rng.choice([True, True, None])) for each in make_comparisons(3 * n + 3, seed=n)]
        for n in range(6)
    }
    together = learn_users(reward_model, users)
    assert list(together) == list(users)
    for name, choices in users.items():
        alone = learn_user(reward_model, choices)
        assert together[name].weights == pytest.approx(alone.weights, abs=1e-3)
        assert (together[name].accuracy, together[name].ties) == (alone.accuracy, alone.ties)
        assert tuple(alone.weights) == reward_model.principles


def test_who_always_chooses_the_answer_that_a_principle_rewards_is_found_to_like_it(reward_model: Any) -> None:
    comparisons = make_comparisons(30)
    wanted = choice_features(reward_model, comparisons).slopes[:, 1] > 0
    learned = learn_user(reward_model, list(map(Choice, comparisons, wanted.tolist())))
    assert max(learned.weights, key=lambda name: learned.weights[name]) == reward_model.principles[1]
    assert learned.accuracy.low > 0.5
