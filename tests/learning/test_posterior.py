"""The sample of weights: it is the prior before any reply, Bayes' rule after some, and narrows to who replied."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.learning.posterior import Differences, Posterior, outcomes

DOUBT = 0.02


def seen_of(*means: list[float]) -> Differences:
    every = np.array(means, np.float64)
    return Differences(every, np.full_like(every, DOUBT), np.zeros(len(every)))


@given(seed=st.integers(0, 1000))
def test_three_outcomes_make_up_all_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = outcomes(
        Differences(rng.uniform(-1, 1, (7, 4)), rng.uniform(0, 1, (7, 4)), rng.normal(size=7)), rng.normal(size=(5, 4))
    )
    assert found.shape == (3, 5, 7)
    assert np.all(found > 0.03), "one reply in ten may be anything"
    np.testing.assert_allclose(found.sum(0), 1)


def test_a_user_prefers_what_they_want_and_says_neither_where_nothing_matters() -> None:
    weights = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    found = outcomes(seen_of([1.0, 0.0]), weights)[:, :, 0]
    assert found.argmax(0).tolist() == [0, 1, 2]
    assert found.max(0).min() > 0.9


def test_doubt_about_the_answers_is_doubt_about_the_reply() -> None:
    means = np.array([[1.0, 0.0]])
    sure, doubtful = (
        outcomes(Differences(means, np.full((1, 2), v), np.zeros(1)), np.array([[1.0, 0.0]])) for v in (0.01, 1.0)
    )
    assert doubtful[0, 0, 0] < sure[0, 0, 0] - 0.1


def test_before_any_reply_a_few_principles_matter_either_way() -> None:
    posterior = Posterior(12)
    assert (posterior.weights != 0).sum(1).mean() == pytest.approx(3, abs=0.2)
    assert np.abs(posterior.mean).max() < 0.1
    assert posterior.shares.sum() == pytest.approx(1)


def test_replies_count_as_bayes_rule_says() -> None:
    """Six replies about two of twelve principles: probabilities on a fine grid of their weights, and in the sample."""
    replies: list[tuple[tuple[float, float], bool | None]] = [
        ((1.0, 0.0), True),
        ((1.0, 1.0), None),
        ((0.0, 1.0), False),
        ((1.0, 1.0), True),
        ((1.0, 0.0), True),
        ((0.2, -1.0), None),
    ]
    posterior = Posterior(12)
    places = np.linspace(-3, 3, 61)
    sizes, density = np.exp(0.4 * places), np.exp(-(places**2) / 2)
    axis = np.concatenate([-sizes, [0.0], sizes])
    prior = np.concatenate([density / density.sum() / 8, [0.75], density / density.sum() / 8])
    grid = np.array(list(itertools.product(axis, axis)))
    odds = np.array([one * other for one, other in itertools.product(prior, prior)])
    for means, first in replies:
        seen = seen_of(list(means))
        wide = seen_of([*means, *[0.0] * 10])
        posterior.add(wide._replace(variances=np.pad(seen.variances, ((0, 0), (0, 10)))), first)
        odds = odds * outcomes(seen, grid)[{True: 0, False: 1, None: 2}[first], :, 0]
    odds /= odds.sum()
    assert len(np.unique(posterior.weights[:, 0])) > 100, "drawn anew, and moved"
    mean = posterior.mean
    np.testing.assert_allclose(mean[:2], odds @ grid, atol=0.1)
    on = posterior.shares @ (posterior.weights != 0)
    np.testing.assert_allclose(on[:2], odds @ (grid != 0), atol=0.06)
    np.testing.assert_allclose(on[2:], 0.25, atol=0.08)


def test_many_replies_leave_the_weights_that_gave_them() -> None:
    rng, truth = np.random.default_rng(0), np.array([1.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    posterior = Posterior(6)
    for _ in range(30):
        row = rng.choice([-1.0, 0.0, 1.0], 6)
        posterior.add(seen_of(row.tolist()), None if row @ truth == 0 else bool(row @ truth > 0))
    mean = posterior.mean
    assert mean[0] > 0.5
    assert mean[1] < -0.5
    np.testing.assert_allclose(mean[2:], 0, atol=0.1)


def test_neither_says_that_a_principle_does_not_matter() -> None:
    posterior = Posterior(4)
    for _ in range(2):
        posterior.add(seen_of([1.0, 0.0, 0.0, 0.0]), None)
    on = posterior.shares @ (posterior.weights != 0)
    assert on[0] < 0.1
    assert on[1:].min() > 0.3


def test_the_same_replies_give_the_same_sample() -> None:
    one, other = Posterior(3), Posterior(3)
    for posterior in (one, other):
        for seen in (seen_of([1.0, 0.0, 1.0]), seen_of([0.0, 1.0, 1.0]), seen_of([1.0, -1.0, 0.0])):
            posterior.add(seen, True)
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.shares, other.shares)


def test_one_principle_alone_can_be_asked_about() -> None:
    posterior = Posterior(1)
    for _ in range(6):
        posterior.add(seen_of([1.0]), False)
    assert posterior.mean[0] < -0.5


def replies_to(seen: Differences, truth: np.ndarray, seed: int = 0) -> list[bool | None]:
    """What a user with these weights says, drawn as the posterior assumes."""
    rng = np.random.default_rng(seed)
    shares = outcomes(seen, truth[None])[:, 0]
    return [
        (True, False, None)[rng.choice(3, p=shares[:, row] / shares[:, row].sum())] for row in range(len(seen.means))
    ]


def drawn(rng: np.random.Generator, count: int, principles: int) -> Differences:
    return seen_of(*rng.choice([-1.0, 0.0, 1.0], (count, principles), p=[1 / 6, 2 / 3, 1 / 6]).tolist())


def test_intervals_hold_the_weights_that_gave_the_replies() -> None:
    """95 % of intervals should: 60 users drawn from the prior, ten principles, 15 replies each."""
    rng, inside = np.random.default_rng(1), []
    for user in range(60):
        on = rng.random(10) < 0.3
        truth = np.where(on, rng.choice([-1.0, 1.0], 10) * np.exp(0.4 * rng.standard_normal(10)), 0.0)
        seen, posterior = drawn(rng, 15, 10), Posterior(10)
        for row, first in enumerate(replies_to(seen, truth, user)):
            posterior.add(seen.at(row), first)
        low, high = posterior.interval()
        inside += ((low <= truth) & (truth <= high)).tolist()
    assert 0.92 <= np.mean(inside) <= 0.99


def test_margins_without_a_reply_are_those_of_a_posterior_that_never_had_it() -> None:
    rng, truth = np.random.default_rng(2), np.array([1.0, -0.8, 0.0, 0.0])
    seen = drawn(rng, 12, 4)
    replies = replies_to(seen, truth)

    def posterior_without(left: int | None) -> Posterior:
        posterior = Posterior(4)
        for row, first in enumerate(replies):
            if row != left:
                posterior.add(seen.at(row), first)
        return posterior

    found = posterior_without(None).margins()
    expected = np.array([seen.means[row] @ posterior_without(row).mean for row in range(12)])
    assert np.ptp(expected) > 1
    assert np.abs(found - expected).mean() < 0.1


def test_an_offset_that_explains_the_replies_leaves_less_to_the_weights() -> None:
    sizes = []
    for offset in (0.0, 2.0):
        posterior = Posterior(4)
        for _ in range(4):
            posterior.add(seen_of([1.0, 0.0, 0.0, 0.0])._replace(offsets=np.array([offset])), True)
        sizes.append(posterior.mean[0])
    assert sizes[1] < 0.5 * sizes[0]
