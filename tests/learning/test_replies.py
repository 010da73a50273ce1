"""What is learned from replies to questions, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from pad_cli.learning.posterior import Basis, Differences
from pad_cli.learning.user_weights import Learned, Reply, head_weights, learn_replies, posterior_of

NAMES = ("humorous", "formal", "concise", "expert")
PLAIN = Basis(np.eye(4), np.ones(4))
WEIGHTS = np.array([1.0, -0.8, 0.0, 0.0])


def replies_of(count: int, seed: int = 0, mistakes: float = 0.0) -> list[Reply]:
    """Replies that follow weights, apart from mistakes."""
    rng = np.random.default_rng(seed)
    replies = []
    for _ in range(count):
        means = rng.choice([-1.0, 0.0, 1.0], (1, 4))
        margin = float(means[0] @ WEIGHTS)
        first = None if margin == 0 else (margin > 0) is not (rng.random() < mistakes)
        replies.append(Reply(Differences(means, np.full((1, 4), 0.02), np.zeros(1)), first))
    return replies


def learn(replies: list[Reply], basis: Basis = PLAIN) -> Learned:
    return learn_replies(NAMES, replies, posterior_of(replies, 4), basis)


def test_what_a_user_wants_is_found_and_named() -> None:
    replies = replies_of(25)
    learned = learn(replies)
    assert learned.summary.startswith("you prefer: humorous +")
    assert "you avoid: formal -" in learned.summary
    assert [name for name, weight in learned.weights.items() if not weight] == ["concise", "expert"]
    assert max(map(abs, learned.weights.values())) == pytest.approx(2)
    assert learned.choices + learned.ties == len(replies)
    assert learned.ties == sum(reply.first is None for reply in replies) > 3


def test_a_weight_lies_in_its_interval_and_an_unasked_principle_has_a_wide_one() -> None:
    replies = [Reply(Differences(np.eye(4)[[0]], np.full((1, 4), 0.02), np.zeros(1)), True)] * 6
    learned = learn(replies)
    for name, (low, high) in learned.intervals.items():
        assert low <= learned.weights[name] <= high
    assert learned.intervals["humorous"][0] > 0
    assert learned.intervals["expert"][0] < -1
    assert learned.intervals["expert"][1] > 1


def test_neither_is_learned_from() -> None:
    """Two principles always differ together; "neither" to one of them alone says that it is the other."""
    together = Reply(Differences(np.array([[1.0, 1.0, 0.0, 0.0]]), np.full((1, 4), 0.02), np.zeros(1)), True)
    alone = Reply(Differences(np.array([[1.0, 0.0, 0.0, 0.0]]), np.full((1, 4), 0.02), np.zeros(1)), None)
    before, after = learn([together] * 4), learn([together] * 4 + [alone] * 2)
    assert before.weights["humorous"] > 1
    assert after.weights["humorous"] == 0
    assert after.weights["formal"] == 2


def test_accuracy_is_that_of_replies_the_weights_have_not_seen() -> None:
    rng = np.random.default_rng(1)
    random = [reply._replace(first=bool(rng.random() < 0.5)) for reply in replies_of(40, seed=2)]
    told = learn(replies_of(40, seed=2))
    assert told.accuracy.value > 0.9
    assert learn(random).accuracy.value < 0.7
    assert told.certainty > 0.95
    assert told.accuracy.low < told.accuracy.value


def test_each_head_serves_its_own_principle_in_its_own_unit() -> None:
    replies, units = replies_of(25), np.array([1.0, 2.0, 4.0, 8.0])
    plain, other = (head_weights(posterior_of(replies, 4), basis) for basis in (PLAIN, Basis(np.eye(4), units)))
    ratio = (other * units) / np.where(plain, plain, 1.0)
    np.testing.assert_allclose(ratio[plain != 0], ratio[0])
    assert np.abs(other).max() == pytest.approx(2)


def test_the_weights_alone_are_those_that_are_learned() -> None:
    replies = replies_of(12)
    weights = head_weights(posterior_of(replies, 4), PLAIN)
    assert learn(replies).weights == dict(zip(NAMES, weights.tolist(), strict=True))


def test_replies_that_say_nothing_leave_the_weights_at_0_or_in_doubt() -> None:
    nothing = [Reply(Differences(np.zeros((1, 4)), np.full((1, 4), 0.02), np.zeros(1)), None)] * 3
    learned = learn([*nothing, *[Reply(Differences(np.zeros((1, 4)), np.full((1, 4), 0.02), np.zeros(1)), True)] * 3])
    assert all(low <= 0 <= high for low, high in learned.intervals.values())
    assert learned.accuracy.low <= 0.5
    assert "may be chance" in learned.advice
