"""What is said of one user's choices, and that many users are learned as each alone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pad_cli.learning.choices import Choice, Choices
from pad_cli.learning.features import Features
from pad_cli.learning.learn import Learned, learn_features, learn_user, learn_users
from pad_cli.records import as_messages
from pad_cli.training.metrics import Share
from tests.learning.test_features import make_choices
from tests.learning.test_fit import make_user

NAMES = ("humorous", "formal", "concise", "expert")


def learn(user: Features, ties: int = 0, contradictions: int = 0) -> Learned:
    choices = Choices((Choice(as_messages("a"), "b", "c"),) * len(user.offsets), ties, contradictions)
    return learn_features(NAMES, {"me": (choices, user)})["me"]


def test_clear_choices_are_found_and_named() -> None:
    learned = learn(make_user(100, seed=1, weights=(3.0, -2.0, 0.0, 0.0)), ties=2, contradictions=4)
    assert learned.found.startswith("you prefer: humorous +")
    assert "; you avoid: formal -" in learned.found
    assert (learned.choices, learned.ties, learned.contradictions) == (100, 2, 4)
    for name, (low, high) in learned.intervals.items():
        assert low < high
        assert learned.weights[name] == 0 or low < learned.weights[name] < high


def test_small_weights_that_may_be_0_are_0() -> None:
    learned = [learn(make_user(60, seed=seed, weights=(3.0, 0.0, 0.0, 0.0))) for seed in range(10)]
    zeros = [weight == 0 for each in learned for weight in [*each.weights.values()][1:]]
    assert sum(zeros) / len(zeros) > 0.7
    assert all(each.weights["humorous"] > 1 for each in learned)


def test_dropping_small_weights_loses_few_choices_that_were_predicted() -> None:
    for seed in range(20):
        user = make_user(12, seed=seed, weights=(1.0, 0.3, 0.3, 0.0))
        learned = learn(user)
        kept = np.array([*learned.weights.values()])
        whole = np.mean([learned.intervals[name] for name in NAMES], axis=1)  # the middle of an interval
        assert (user.slopes @ kept > 0).sum() >= (user.slopes @ whole > 0).sum() - 0.05 * 12


def test_accuracy_is_that_of_choices_the_weights_have_not_seen() -> None:
    """Random choices are predicted in half of all cases, however well they are remembered."""
    rng = np.random.default_rng(0)
    learned = [learn(Features(rng.normal(0, 3, (12, 4)), np.zeros(12))) for _ in range(60)]
    assert 0.4 < np.mean([each.accuracy.value for each in learned]) < 0.55
    share = learned[0].accuracy
    assert share.low < share.value < share.high
    assert share.n == 12


def test_certainty_is_the_accuracy_to_expect() -> None:
    truth = np.array([0.5, -0.5, 0.3, 0.0])
    fresh = np.random.default_rng(9).normal(0, 3, (400, 4))
    learned = [learn(make_user(30, seed=seed, weights=truth)) for seed in range(60)]
    right = [np.mean(np.sign(fresh @ np.array([*each.weights.values()])) == np.sign(fresh @ truth)) for each in learned]
    assert np.mean([each.certainty for each in learned]) == pytest.approx(np.mean(right), abs=0.05)


def test_advice_follows_from_chance_and_certainty() -> None:
    learned = learn(make_user(100, seed=1))
    sure = Share(0.9, 100, 0.8, 0.95)
    assert "would change little" in replace(learned, certainty=0.97, accuracy=sure).advice
    assert "more choices would help" in replace(learned, certainty=0.8, accuracy=sure).advice
    assert "may be chance" in replace(learned, certainty=0.97, accuracy=Share(0.7, 10, 0.4, 0.9)).advice
    empty = replace(learned, weights=dict.fromkeys(NAMES, 0.0))
    assert "may be chance" in empty.advice
    assert empty.found == "nothing that these choices have in common"


def test_users_learned_at_once_are_learned_as_each_alone(reward_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    users = {str(n): Choices(tuple(make_choices(rng.choice([3, 5, 12]), seed=n)), ties=n) for n in range(6)}
    monkeypatch.setattr("pad_cli.learning.learn._TOGETHER", 24)
    together = learn_users(reward_model, users)
    assert list(together) == list(users)
    for name, choices in users.items():
        alone = learn_user(reward_model, choices)
        assert together[name].weights == pytest.approx(alone.weights, abs=1e-3)
        assert (together[name].accuracy, together[name].ties) == (alone.accuracy, alone.ties)
        assert tuple(alone.weights) == reward_model.principles


def test_who_always_chooses_the_answer_that_a_principle_rewards_is_found_to_like_it(reward_model: Any) -> None:
    from pad_cli.learning.features import choice_features

    choices = make_choices(30)
    wanted = choice_features(reward_model, choices).slopes[:, 1] > 0
    turned = [c if keep else Choice(c.prompt, c.rejected, c.chosen) for c, keep in zip(choices, wanted, strict=True)]
    learned = learn_user(reward_model, Choices(tuple(turned)))
    assert max(learned.weights, key=lambda name: learned.weights[name]) == reward_model.principles[1]
    assert learned.accuracy.low > 0.5
