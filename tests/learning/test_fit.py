"""The fit: a least loss, the same alone and together, sparse, and chosen by what it predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pad_cli.learning import fit as module
from pad_cli.learning.features import Features
from pad_cli.learning.fit import STRENGTHS, fit_weights, held_out_margins, minimise, stack_margins

BETA, CORNER = 0.5, 0.1


def make_user(count: int, seed: int, weights: Any = (2.0, -1.0, 0.0, 0.0), offset: float = 0.0) -> Features:
    """Choices that follow weights, apart from logistic noise."""
    rng = np.random.default_rng(seed)
    slopes, offsets = rng.normal(0, 3, (count, len(weights))), rng.normal(0, offset, count)
    wrong = rng.random(count) > 1 / (1 + np.exp(-BETA * (offsets + slopes @ np.array(weights))))
    signs = np.where(wrong, -1.0, 1.0)
    return Features(slopes * signs[:, None], offsets * signs)


def loss(user: Features, weights: Any, strength: float) -> float:
    """The loss as the module's docstring writes it."""
    size = np.sqrt(np.mean((BETA * user.slopes) ** 2))
    scaled = np.abs(size * np.asarray(weights))
    fair = strength * CORNER * (scaled - CORNER * np.log1p(scaled / CORNER))
    return float(np.logaddexp(0, -BETA * (user.offsets + user.slopes @ weights)).sum() + fair.sum())


def gradient(user: Features, weights: Any, strength: float, step: float = 1e-4) -> Any:
    around = np.eye(len(weights)) * step
    return np.array([loss(user, weights + d, strength) - loss(user, weights - d, strength) for d in around]) / (
        2 * step
    )


@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_loss_is_flat_at_the_weights(strength: float, offset: float) -> None:
    user = make_user(40, seed=1, offset=offset)
    (weights,) = minimise(stack_margins([user]), np.array([strength]))
    assert np.abs(gradient(user, np.zeros(4), strength)).max() > 1
    np.testing.assert_allclose(gradient(user, weights, strength), 0, atol=5e-3)


def test_users_together_equal_users_alone_whatever_their_number_of_choices() -> None:
    users = [make_user(count, seed=count, offset=1.0) for count in (3, 7, 11, 40)]
    together = fit_weights(stack_margins(users))
    for row, user in enumerate(users):
        alone = fit_weights(stack_margins([user]))
        np.testing.assert_allclose(together.weights[row], alone.weights[0], atol=1e-6)
        np.testing.assert_allclose(together.covariance[row], alone.covariance[0], atol=1e-5)
        assert together.strength[row] == alone.strength[0]


def test_many_choices_give_the_weights_that_made_them() -> None:
    fit = fit_weights(stack_margins([make_user(4000, seed=2)]))
    np.testing.assert_allclose(fit.weights[0], [2, -1, 0, 0], atol=0.15)


def test_intervals_hold_the_weights_that_made_the_choices() -> None:
    """95 % of intervals should; with the penalty's pull and 400 of them, 91 to 98 %."""
    truth = np.array([0.8, -0.5, 0.5, -0.8])
    fit = fit_weights(stack_margins([make_user(200, seed=seed, weights=truth) for seed in range(100)]))
    deviation = np.sqrt(np.einsum("ukk->uk", fit.covariance))
    held = np.abs(fit.weights - truth) < 1.96 * deviation
    assert 0.91 <= held.mean() <= 0.98


def test_a_principle_that_decides_nothing_gets_a_small_share() -> None:
    fit = fit_weights(stack_margins([make_user(30, seed=seed) for seed in range(50)]))
    size = np.abs(fit.weights).mean(0)
    assert size[2:].max() < 0.15 * size[0]


def test_answers_half_as_long_give_weights_twice_as_large() -> None:
    """The penalty does not know the unit of rewards."""
    user = make_user(20, seed=3)
    short = Features(user.slopes / 2, user.offsets)
    first, second = (fit_weights(stack_margins([each])).weights for each in (user, short))
    np.testing.assert_allclose(2 * first, second, rtol=1e-3)


def test_an_offset_that_explains_the_choices_leaves_less_to_the_weights() -> None:
    user = make_user(20, seed=4)
    explained = Features(user.slopes, np.full(20, 10.0))
    sizes = [np.abs(fit_weights(stack_margins([each])).weights).max() for each in (user, explained)]
    assert sizes[1] < 0.5 * sizes[0]


def test_held_out_margins_come_from_weights_without_that_choice() -> None:
    margins = stack_margins([make_user(6, seed=5)])
    strength = np.array([10.0])
    found = held_out_margins(margins, lambda rest, users: minimise(rest, strength[users]))
    for left in range(6):
        rest = Features(*(np.delete(part, left, axis=0) / BETA for part in (margins.slopes[0], margins.offsets[0])))
        (weights,) = minimise(stack_margins([rest]), strength)
        np.testing.assert_allclose(found[0, left], margins.slopes[0, left] @ weights, atol=1e-5)


def test_the_strength_is_the_one_that_predicts_held_out_choices_best() -> None:
    margins = stack_margins([make_user(count, seed=count) for count in (5, 12, 30, 200)])
    fit = fit_weights(margins)
    for row, strength in enumerate(fit.strength):
        losses = {}
        for each in STRENGTHS:
            found = held_out_margins(
                margins, lambda rest, _, each=each: minimise(rest, np.full(len(rest.slopes), each))
            )
            losses[each] = np.logaddexp(0, -found[row])[margins.counted[row] > 0].sum()
        assert min(losses, key=lambda key: losses[key]) == strength
    assert len(set(fit.strength)) > 1


def test_of_equal_strengths_the_largest_is_taken() -> None:
    nothing = Features(np.zeros((5, 4)), np.zeros(5))
    fit = fit_weights(stack_margins([nothing]))
    assert fit.strength[0] == max(STRENGTHS)
    np.testing.assert_array_equal(fit.weights, 0)


def test_choices_without_noise_give_finite_weights() -> None:
    slopes = np.abs(np.random.default_rng(6).normal(0, 50, (500, 4)))
    assert np.isfinite(fit_weights(stack_margins([Features(slopes, np.zeros(500))])).weights).all()


def test_the_parabola_lies_above_the_logistic_loss() -> None:
    touch, other = np.meshgrid(np.linspace(-9, 9, 37), np.linspace(-9, 9, 37))
    bend = module._bend(touch)
    above = (
        np.logaddexp(0, -touch) + (touch - other) / 2 + bend * (other**2 - touch**2) / 2
    )  # exact at m = touch, and its slope there is the loss's
    assert (above >= np.logaddexp(0, -other) - 1e-12).all()
