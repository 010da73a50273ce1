"""What is learned from replies to questions, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from pad_cli.learning.posterior import Basis, Differences, Posterior
from pad_cli.learning.user_weights import Learned, summarise

NAMES = ("humorous", "formal", "concise", "expert")
PLAIN = Basis(np.eye(4), np.ones(4))
WEIGHTS = np.array([1.0, -0.8, 0.0, 0.0])

Reply = tuple[Differences, bool | None]
"""One comparison (N = 1), and whether its first answer was preferred; None for neither."""


def reply_to(differing: list[float], first: bool | None) -> Reply:
    return Differences(np.array([differing]), np.full((1, 4), 0.02), np.zeros(1)), first


def replies_of(count: int, seed: int = 0, mistakes: float = 0.0) -> list[Reply]:
    """Replies that follow weights, apart from mistakes."""
    rng = np.random.default_rng(seed)
    replies = []
    for _ in range(count):
        means = rng.choice([-1.0, 0.0, 1.0], (1, 4))
        margin = float(means[0] @ WEIGHTS)
        first = None if margin == 0 else (margin > 0) is not (rng.random() < mistakes)
        replies.append(reply_to(means[0].tolist(), first))
    return replies


def learn(replies: list[Reply], basis: Basis = PLAIN) -> Learned:
    posterior = Posterior(4)
    for seen, first in replies:
        posterior.add(seen, first)
    return summarise(NAMES, posterior, basis)


def test_what_a_user_wants_is_found_and_named() -> None:
    replies = replies_of(25)
    learned = learn(replies)
    assert learned.summary.startswith("you prefer: humorous +")
    assert "you avoid: formal -" in learned.summary
    assert [name for name, weight in learned.weights.items() if not weight] == ["concise", "expert"]
    assert max(map(abs, learned.weights.values())) == pytest.approx(2)
    assert learned.choices + learned.ties == len(replies)
    assert learned.ties == sum(first is None for _, first in replies) > 3


def test_a_weight_lies_in_its_interval_and_an_unasked_principle_has_a_wide_one() -> None:
    replies = [reply_to([1.0, 0.0, 0.0, 0.0], True)] * 6
    learned = learn(replies)
    for name, (low, high) in learned.intervals.items():
        assert low <= learned.weights[name] <= high
    assert learned.intervals["humorous"][0] > 0
    assert learned.intervals["expert"][0] < -1
    assert learned.intervals["expert"][1] > 1


def test_neither_is_learned_from() -> None:
    """Two principles always differ together; "neither" to one of them alone says that it is the other."""
    together = reply_to([1.0, 1.0, 0.0, 0.0], True)
    alone = reply_to([1.0, 0.0, 0.0, 0.0], None)
    before, after = learn([together] * 4), learn([together] * 4 + [alone] * 2)
    assert before.weights["humorous"] > 1
    assert after.weights["humorous"] == 0
    assert after.weights["formal"] == 2


def test_accuracy_is_that_of_replies_the_weights_have_not_seen() -> None:
    rng = np.random.default_rng(1)
    random = [(seen, bool(rng.random() < 0.5)) for seen, _ in replies_of(40, seed=2)]
    told = learn(replies_of(40, seed=2))
    assert told.accuracy.value > 0.9
    assert learn(random).accuracy.value < 0.7
    assert told.accuracy.low < told.accuracy.value


def test_each_head_serves_its_own_principle_in_its_own_unit() -> None:
    replies, units = replies_of(25), np.array([1.0, 2.0, 4.0, 8.0])
    bases = PLAIN, Basis(np.eye(4), units)
    plain, other = (np.array([*learn(replies, basis).weights.values()]) for basis in bases)
    ratio = (other * units) / np.where(plain, plain, 1.0)
    np.testing.assert_allclose(ratio[plain != 0], ratio[0])
    assert np.abs(other).max() == pytest.approx(2)


def test_replies_that_say_nothing_leave_the_weights_at_0_or_in_doubt() -> None:
    learned = learn([*[reply_to([0.0] * 4, None)] * 3, *[reply_to([0.0] * 4, True)] * 3])
    assert all(low <= 0 <= high for low, high in learned.intervals.values())
    assert learned.accuracy.low <= 0.5
