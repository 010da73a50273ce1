"""The paper's equation on numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.equation import LogitHead, candidate_rewards, guided_scores, plausible, select_candidates, withhold_repeats


def test_candidates_are_the_policys_top_tokens_with_their_log_probabilities() -> None:
    """Logits ln 1, ln 5, ln 3, ln 1, whose exponentials add to 10: token 1 has 5/10 and token 2 has 3/10."""
    logits = torch.tensor([[1.0, 5.0, 3.0, 1.0]]).log()
    candidates, log_probs = select_candidates(logits, 2)
    assert candidates.tolist() == [[1, 2]]
    assert log_probs.exp().tolist() == [pytest.approx([0.5, 0.3])]


def test_no_more_candidates_are_taken_than_there_are_tokens() -> None:
    candidates, log_probs = select_candidates(torch.tensor([[0.0, 2.0, 1.0]]), 10)
    assert candidates.tolist() == [[1, 2, 0]]
    assert log_probs.exp().sum().item() == pytest.approx(1.0)


def test_log_probabilities_are_float32_whatever_the_models_format() -> None:
    candidates, log_probs = select_candidates(torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16), 2)
    assert log_probs.dtype == torch.float32
    assert candidates.tolist() == [[1, 0]]


def test_rewards_are_the_change_of_logits_under_the_shift() -> None:
    """E rows (1, 0), (0, 1), (1, 1); shift (2, -1): changes 2, -1, 1. Candidates 2 and 0 get 1 and 2."""
    head = LogitHead(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), None, 1.0, None)
    hidden, shift = torch.tensor([[7.0, 7.0]]), torch.tensor([[2.0, -1.0]])
    assert candidate_rewards(head, hidden, shift, torch.tensor([[2, 0]])).tolist() == [[1.0, 2.0]]


def test_a_reference_of_its_own_is_taken_from_the_shifted_logits() -> None:
    """E as above; state (1, 3) + shift (2, -1) = (3, 2): logits 3, 2, 5. Candidates 2 and 0 less 1.5 and -2."""
    head = LogitHead(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), None, 1.0, None)
    hidden, shift = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, -1.0]])
    rewards = candidate_rewards(head, hidden, shift, torch.tensor([[2, 0]]), torch.tensor([[1.5, -2.0]]))
    assert rewards.tolist() == [[3.5, 5.0]]


def test_scores_are_log_probabilities_plus_weighted_rewards_row_by_row() -> None:
    """-1 + 2 * 3 = 5, -2 + 2 * 0 = -2; second row with weight -0.5: -1 - 1.5 = -2.5, -2 - 0 = -2."""
    log_probs, rewards = torch.tensor([[-1.0, -2.0]] * 2), torch.tensor([[3.0, 0.0]] * 2)
    scores = guided_scores(log_probs, rewards, torch.tensor([2.0, -0.5]))
    assert scores.tolist() == [[5.0, -2.0], [-2.5, -2.0]]


@pytest.mark.parametrize(
    ("share", "kept"), [(0.0, [True, True, True]), (0.1, [True, True, False]), (1.0, [True, False, False])]
)
def test_a_plausible_candidate_has_its_share_of_the_best_ones_probability(share: float, kept: list[bool]) -> None:
    log_probs = torch.tensor([[0.6, 0.3, 0.02]] * 2).log()
    found = plausible(log_probs, share, torch.tensor([-2.0, 0.0]))
    assert found.tolist() == [kept, [True] * 3], "the second row is not guided"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cap", [None, 3.0])
def test_the_normaliser_changes_neither_the_argmax_nor_the_softmax_over_candidates(
    bias: bool, cap: float | None
) -> None:
    """Rewards up to a constant give the same distribution as log-softmax differences over the whole vocabulary."""
    torch.manual_seed(0)
    head = LogitHead(torch.randn(50, 6), torch.randn(50) if bias else None, 0.7, cap)
    hidden, shift = torch.randn(200, 6), torch.randn(200, 6)
    candidates, log_probs = select_candidates(torch.randn(200, 50), 8)
    weight = torch.linspace(-3, 3, 200)
    exact = head(hidden + shift).log_softmax(-1) - head(hidden).log_softmax(-1)
    full = guided_scores(log_probs, exact.gather(1, candidates), weight)
    ours = guided_scores(log_probs, candidate_rewards(head, hidden, shift, candidates), weight)
    assert torch.equal(full.argmax(-1), ours.argmax(-1))
    torch.testing.assert_close(ours.softmax(-1), full.softmax(-1), atol=1e-5, rtol=1e-4)


EVEN = torch.full((1, 3), -math.log(3))
"""Three equally likely candidates: the average reward is the plain mean."""


def test_a_candidate_that_repeats_a_token_keeps_no_reward_above_the_average() -> None:
    """Rewards 6, 0, 3 average 3; history 5, 8; n = 1. Candidate 5 is a repeat: 6 becomes 3; 7 and 9 stay."""
    rewards = withhold_repeats(
        torch.tensor([[6.0, 0.0, 3.0]]), EVEN, torch.tensor([[5, 7, 9]]), torch.tensor([[5, 8]]), 1
    )
    assert rewards.tolist() == [pytest.approx([3.0, 0.0, 3.0])]


def test_a_repeat_with_a_reward_below_the_average_keeps_it() -> None:
    rewards = withhold_repeats(
        torch.tensor([[6.0, 0.0, 3.0]]), EVEN, torch.tensor([[5, 7, 9]]), torch.tensor([[7, 8]]), 1
    )
    assert rewards.tolist() == [pytest.approx([6.0, 0.0, 3.0])]


def test_the_average_is_taken_with_the_policys_probabilities_of_the_candidates() -> None:
    """Probabilities 0.5 and 0.25, so 2/3 and 1/3 among the two: the average of 0 and 9 is 3."""
    log_probs = torch.tensor([[0.5, 0.25]]).log()
    rewards = withhold_repeats(torch.tensor([[0.0, 9.0]]), log_probs, torch.tensor([[4, 5]]), torch.tensor([[5]]), 1)
    assert rewards.tolist() == [pytest.approx([0.0, 3.0])]


@pytest.mark.parametrize(
    ("size", "repeats"),
    [
        (1, [True, True, False]),  # 5 and 6 occurred
        (2, [False, True, False]),  # after 5 only 6 followed
        (3, [False, True, False]),  # 4 5 6 occurred, 4 5 5 did not
        (4, [False, False, False]),  # no window of three tokens occurs twice
        (9, [False, False, False]),  # the answer is shorter than that
    ],
)
def test_an_n_gram_repeats_when_its_context_and_its_last_token_occurred(size: int, repeats: list[bool]) -> None:
    """The answer so far is 4 5 6 3 4 5; candidates 5, 6, 7 have reward 2, 2 and -4, whose average is 0."""
    history, candidates = torch.tensor([[4, 5, 6, 3, 4, 5]]), torch.tensor([[5, 6, 7]])
    rewards = withhold_repeats(torch.tensor([[2.0, 2.0, -4.0]]), EVEN, candidates, history, size)
    expected = [0.0 if again else 2.0 for again in repeats[:2]]
    assert rewards.tolist() == [pytest.approx([*expected, -4.0], abs=1e-6)]


def test_token_0_is_a_token_like_any_other() -> None:
    """Rewards 6, 0, 3 average 3; the answer so far is token 0, and so is the first candidate."""
    rewards = withhold_repeats(torch.tensor([[6.0, 0.0, 3.0]]), EVEN, torch.tensor([[0, 7, 9]]), torch.tensor([[0]]), 1)
    assert rewards.tolist() == [pytest.approx([3.0, 0.0, 3.0])]


def test_places_without_a_token_repeat_nothing() -> None:
    """Row 0 has one token, 5, between empty places, so (-1, 5) is no bigram; row 1 repeats 5 5."""
    history, candidates = torch.tensor([[-1, 5, -1], [5, 5, 5]]), torch.tensor([[5, 6], [5, 6]])
    even = torch.full((2, 2), -math.log(2))
    rewards = withhold_repeats(torch.tensor([[4.0, 0.0]] * 2), even, candidates, history, 2)
    assert rewards.tolist() == [pytest.approx([4.0, 0.0]), pytest.approx([2.0, 0.0])]


def test_rows_are_judged_by_their_own_answer_and_average() -> None:
    """Both repeat their first candidate: averages 2 of 6, 0, 0 and 3 of 9, 0, 0."""
    history, candidates = torch.tensor([[5], [6]]), torch.tensor([[5, 6, 7], [6, 5, 7]])
    rewards = withhold_repeats(
        torch.tensor([[6.0, 0.0, 0.0], [9.0, 0.0, 0.0]]), EVEN.repeat(2, 1), candidates, history, 1
    )
    assert rewards.tolist() == [pytest.approx([2.0, 0.0, 0.0]), pytest.approx([3.0, 0.0, 0.0])]


def slow_withhold(
    rewards: list[float], probabilities: list[float], candidates: list[int], history: list[int], size: int
) -> list[float]:
    """One row, in plain Python."""
    if size == 0:
        return rewards
    average = sum(p * r for p, r in zip(probabilities, rewards, strict=True)) / sum(probabilities)
    grams = [history[start : start + size] for start in range(len(history) - size + 1)]
    seen = {tuple(gram) for gram in grams if min(gram) >= 0}
    context = history[len(history) - size + 1 :]
    return [
        min(reward, average) if (*context, token) in seen else reward
        for reward, token in zip(rewards, candidates, strict=True)
    ]


@given(
    st.integers(0, 4),
    st.lists(st.integers(-1, 3), max_size=12),
    st.permutations(range(5)),
    st.lists(st.integers(-20, 20), min_size=5, max_size=5),
    st.lists(st.integers(1, 9), min_size=5, max_size=5),
)
def test_withheld_rewards_equal_a_slow_version_in_plain_python(
    size: int, history: list[int], candidates: list[int], rewards: list[int], shares: list[int]
) -> None:
    fast = withhold_repeats(
        torch.tensor([rewards], dtype=torch.float32),
        (torch.tensor([shares]) / sum(shares)).log(),
        torch.tensor([candidates]),
        torch.tensor([history], dtype=torch.long),
        size,
    )
    slow = slow_withhold([float(r) for r in rewards], [float(s) for s in shares], candidates, history, size)
    assert fast.tolist() == [pytest.approx(slow, abs=1e-4)]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(1, 3))
def test_size_0_changes_nothing_and_no_size_ever_raises_a_reward(answer: list[int], size: int) -> None:
    rewards, candidates, history = torch.tensor([[3.0, -1.0, 5.0]]), torch.tensor([[0, 1, 2]]), torch.tensor([answer])
    assert torch.equal(withhold_repeats(rewards, EVEN, candidates, history, 0), rewards)
    assert (withhold_repeats(rewards, EVEN, candidates, history, size) <= rewards).all()
