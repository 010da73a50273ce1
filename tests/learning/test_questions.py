"""Which comparison is asked next: what the expected information of an answer must satisfy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.learning.questions import Reply, as_choices, information, scale_of

SIZE = 4
WEIGHTS = np.array([1.5, -1.0, 0.0, 0.0])


def pool(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, SIZE)) * np.array([1.0, 3.0, 0.5, 2.0])


def replies_of(slopes: np.ndarray) -> list[Reply]:
    return [Reply(row, 0.0, bool(row @ WEIGHTS > 0)) for row in slopes]


@given(seed=st.integers(0, 1000), answered=st.integers(0, 12))
def test_information_is_between_nothing_and_one_bit(seed: int, answered: int) -> None:
    slopes = pool(30, seed)
    found = information(slopes, np.zeros(30), replies_of(slopes[:answered]), scale_of(slopes))
    assert np.all((found >= 0) & (found <= 1))


@given(seed=st.integers(0, 1000))
def test_the_order_of_two_answers_does_not_matter(seed: int) -> None:
    slopes = pool(20, seed)
    replies, scale = replies_of(slopes[:5]), scale_of(slopes)
    turned = [Reply(-reply.slopes, 0.0, not reply.first) for reply in replies]
    straight = information(slopes, np.zeros(20), replies, scale)
    assert information(-slopes, np.zeros(20), turned, scale) == pytest.approx(straight)


def test_answers_that_do_not_differ_tell_nothing() -> None:
    slopes = np.zeros((1, SIZE))
    assert information(slopes, np.zeros(1), [], np.ones(SIZE)) == pytest.approx([0.0], abs=1e-9)


def test_what_was_asked_often_tells_less_than_what_was_never_asked() -> None:
    known, unknown = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, 0.0])
    replies = [Reply(known, 0.0, True) for _ in range(10)]
    told, untold = information(np.stack([known, unknown]), np.zeros(2), replies, np.ones(SIZE))
    assert told < 0.5 * untold


def test_neither_says_that_a_principle_does_not_matter() -> None:
    asked = np.array([[1.0, 0.0, 0.0, 0.0]])
    before = information(asked, np.zeros(1), [], np.ones(SIZE))
    after = information(asked, np.zeros(1), [Reply(asked[0], 0.0, None)] * 3, np.ones(SIZE))
    assert after < before


def test_one_broken_text_does_not_outweigh_all_else() -> None:
    slopes = pool(50, 3)
    slopes[7] *= 100
    ordinary = np.delete(np.arange(50), 7)
    found = information(slopes, np.zeros(50), [], scale_of(slopes[ordinary]))
    assert (
        found[7]
        <= information(
            np.sign(slopes[7:8]) * 1.5 * scale_of(slopes[ordinary]), np.zeros(1), [], scale_of(slopes[ordinary])
        )[0]
        + 1e-9
    )


def test_a_tie_is_a_choice_either_way() -> None:
    slopes, offsets = as_choices([Reply(np.ones(SIZE), 0.5, None), Reply(np.ones(SIZE), 0.5, False)], np.ones(SIZE))
    assert slopes.tolist() == [[1.0] * SIZE, [-1.0] * SIZE, [-1.0] * SIZE]
    assert offsets.tolist() == [0.5, -0.5, -0.5]


def test_informative_questions_find_weights_sooner_than_random_ones() -> None:
    """Mean cosine with the true weights after eight answers, over forty pools."""
    found: dict[str, list[float]] = {"informative": [], "random": []}
    for seed in range(40):
        slopes = pool(200, seed)
        scale, rng = scale_of(slopes), np.random.default_rng(seed)
        for kind, cosines in found.items():
            replies: list[Reply] = []
            for _ in range(8):
                told = information(slopes, np.zeros(200), replies, scale) if kind == "informative" else rng.random(200)
                row = slopes[int(np.argmax(told))]
                replies.append(Reply(row, 0.0, bool(row @ WEIGHTS > 0)))
            rows, _ = as_choices(replies, scale)
            weights = np.linalg.solve(rows.T @ rows + 0.3 * np.diag(scale**2), rows.sum(0))
            cosines.append(
                float(
                    (weights * scale)
                    @ (WEIGHTS * scale)
                    / np.linalg.norm(weights * scale)
                    / np.linalg.norm(WEIGHTS * scale)
                )
            )
    assert np.mean(found["informative"]) > np.mean(found["random"]) + 0.02
