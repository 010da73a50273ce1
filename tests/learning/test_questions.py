"""Which comparison is asked next: what the expected information of a reply must satisfy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pad_cli.learning.posterior import Differences, Posterior, outcomes

SIZE = 8
WEIGHTS = np.array([1.2, -0.8, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0])


def pool(count: int, seed: int, differing: float = 0.3) -> Differences:
    rng = np.random.default_rng(seed)
    return Differences(
        rng.choice([-1.0, 0.0, 1.0], (count, SIZE), p=[differing / 2, 1 - differing, differing / 2]),
        rng.choice([0.01, 0.2], (count, SIZE)),
        np.zeros(count),
    )


def reply(seen: Differences, place: int) -> bool | None:
    margin = float(seen.means[place] @ WEIGHTS)
    return None if abs(margin) < 1e-9 else margin > 0


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), answered=st.integers(0, 8))
def test_information_is_between_nothing_and_three_outcomes(seed: int, answered: int) -> None:
    seen, posterior = pool(30, seed), Posterior(SIZE)
    for place in range(answered):
        posterior.add(seen.at(place), reply(seen, place))
    found = posterior.information(seen)
    assert found.shape == (30,)
    assert np.all((found >= 0) & (found <= np.log2(3)))


def test_the_order_of_two_answers_does_not_matter() -> None:
    seen, posterior = pool(20, 1), Posterior(SIZE)
    for place in range(3):
        posterior.add(seen.at(place), reply(seen, place))
    turned = Differences(-seen.means, seen.variances, seen.offsets)
    assert posterior.information(turned) == pytest.approx(posterior.information(seen))


def test_answers_that_do_not_differ_tell_nothing() -> None:
    alike = Differences(np.zeros((1, SIZE)), np.full((1, SIZE), 1e-6), np.zeros(1))
    assert Posterior(SIZE).information(alike) == pytest.approx([0.0], abs=1e-3)


def test_what_is_doubtful_tells_less() -> None:
    means = np.tile([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], (2, 1))
    variances = np.array([[0.01], [0.5]]) * np.ones((1, SIZE))
    sure, doubtful = Posterior(SIZE).information(Differences(means, variances, np.zeros(2)))
    assert doubtful < 0.7 * sure


def test_what_was_asked_often_tells_less_than_what_was_never_asked() -> None:
    every, posterior = Differences(np.eye(SIZE), np.full((SIZE, SIZE), 0.01), np.zeros(SIZE)), Posterior(SIZE)
    for _ in range(4):
        posterior.add(every.at(0), True)
    found = posterior.information(every)
    assert found[0] < 0.2 * found[1:].min()


def test_information_is_by_how_much_a_reply_is_expected_to_narrow_the_weights() -> None:
    """The mean, over replies, of the divergence of the probabilities after it from those before, in bits."""
    seen, posterior = pool(10, 2), Posterior(SIZE)
    every = outcomes(seen, posterior.weights)
    expected = np.zeros(10)
    for told in every:
        likely = told.mean(0)
        after = told / told.sum(0)
        expected += likely * (after * np.log2(after * len(posterior.weights))).sum(0)
    assert expected.max() > 0.8
    np.testing.assert_allclose(posterior.information(seen), expected)


def test_informative_questions_find_weights_sooner_than_random_ones() -> None:
    """Mean cosine with the true weights after eight replies, over six pools of which most pairs hardly differ."""
    found: dict[str, list[float]] = {"informative": [], "random": []}
    for seed in range(6):
        seen = pool(200, seed, differing=0.1)
        for kind, cosines in found.items():
            posterior = Posterior(SIZE)
            for place in range(8):
                chosen = int(np.argmax(posterior.information(seen))) if kind == "informative" else place
                posterior.add(seen.at(chosen), reply(seen, chosen))
            mean = posterior.shares @ posterior.weights
            cosines.append(float(mean @ WEIGHTS / np.linalg.norm(mean) / np.linalg.norm(WEIGHTS)))
    assert np.mean(found["informative"]) > np.mean(found["random"]) + 0.1
