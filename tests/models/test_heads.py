"""Preference heads: the identity at birth, linear in the weights."""

from __future__ import annotations

import pytest
import torch

from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.records import as_messages


def random_heads(hidden_size: int = 6, rank: int = 3) -> PreferenceHeads:
    heads = PreferenceHeads(("a", "b", "c", "d"), hidden_size, rank, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        heads.up.copy_(torch.randn_like(heads.up))
    return heads.requires_grad_(False)


def test_zero_heads_give_reward_0(policy: LanguageModel) -> None:
    model = PersonalizedRewardModel(policy, PreferenceHeads(("a", "b"), policy.hidden_size, 4, seed=0))
    rewards = model.token_rewards(as_messages("Hi"), "An answer.", model.preference(["a=3", "not b"]))
    assert torch.equal(rewards, torch.zeros(len("An answer.") + 1))


def test_two_heads_of_rank_1_on_two_dimensions_by_hand() -> None:
    """h = (1, 2). Head 1: A = (1, 1), so A h = 3; B = (1, 0) gives (3, 0). Head 2: A = (2, -1), so A h = 0.

    With h = (3, 1) head 1 gives (4, 0) and head 2 has A h = 5; B = (1, -1) gives (5, -5).
    Weights (2, 7) on the first state: (6, 0). Weights (1, -1) on the second: (4, 0) - (5, -5) = (-1, 5).
    """
    heads = PreferenceHeads(("a", "b"), 2, 1).requires_grad_(False)
    heads.down.copy_(torch.tensor([[[1.0, 1.0]], [[2.0, -1.0]]]))
    heads.up.copy_(torch.tensor([[[1.0], [0.0]], [[1.0], [-1.0]]]))
    shift = heads(torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.tensor([[2.0, 7.0], [1.0, -1.0]]))
    assert shift.tolist() == [[6.0, 0.0], [-1.0, 5.0]]


def test_the_shift_is_the_weighted_sum_of_b_a_h() -> None:
    heads, hidden, weights = random_heads(), torch.randn(5, 6), torch.randn(5, 4)
    for row in range(5):
        expected = sum(weights[row, k] * heads.up[k] @ heads.down[k] @ hidden[row] for k in range(4))
        torch.testing.assert_close(heads(hidden, weights)[row], expected, atol=1e-5, rtol=1e-5)


def test_the_shift_is_linear_in_the_weights() -> None:
    heads, hidden = random_heads(), torch.randn(5, 6)
    first, second = torch.randn(5, 4), torch.randn(5, 4)
    mixed = heads(hidden, 2 * first - 0.5 * second)
    torch.testing.assert_close(mixed, 2 * heads(hidden, first) - 0.5 * heads(hidden, second), atol=1e-5, rtol=1e-5)


def test_mixed_times_up_rows_is_the_shift() -> None:
    heads, hidden, weights = random_heads(), torch.randn(5, 6), torch.randn(5, 4)
    assert heads.mixed(hidden, weights).shape == (5, 4, 3)
    assert heads.up_rows.shape == (12, 6)
    torch.testing.assert_close(heads.mixed(hidden, weights).flatten(1) @ heads.up_rows, heads(hidden, weights))


def test_up_rows_stand_in_the_order_of_head_and_rank() -> None:
    heads = random_heads()
    for k in range(4):
        for r in range(3):
            assert torch.equal(heads.up_rows[k * 3 + r], heads.up[k, :, r])


@pytest.mark.parametrize("rank", [1, 8])
def test_the_seed_decides_the_random_half(rank: int) -> None:
    first, again = (PreferenceHeads(("a", "b"), 16, rank, seed=4).down for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, PreferenceHeads(("a", "b"), 16, rank, seed=5).down)


def test_heads_work_in_their_own_number_format_on_bfloat16_states() -> None:
    heads, hidden = random_heads(), torch.randn(5, 6).bfloat16()
    shift = heads(hidden, torch.ones(5, 4))
    assert shift.dtype == torch.float32
    assert torch.equal(shift, heads(hidden.float(), torch.ones(5, 4)))
