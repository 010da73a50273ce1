"""The preference loss against the same formula written out, and against DPO."""

from __future__ import annotations

import math

import pytest
import torch

from pad_cli.equation import contrast_target, distillation_loss, preference_loss


def plain_loss(chosen: list[float], rejected: list[float], beta: float, anchor: float) -> float:
    """-log sigmoid(beta * (chosen - rejected)) + anchor * max(0, -chosen), averaged, in plain Python."""
    losses = []
    for better, worse in zip(chosen, rejected, strict=True):
        sigmoid = 1 / (1 + math.exp(-beta * (better - worse)))
        losses.append(-math.log(sigmoid) + anchor * max(0.0, -better))
    return sum(losses) / len(losses)


def test_a_margin_of_0_costs_log_2_and_the_anchor_costs_its_weight_per_nat() -> None:
    """Chosen -4, rejected -4: log 2 + 0.25 * 4 = 1.6931."""
    loss = preference_loss(torch.tensor([-4.0]), torch.tensor([-4.0]), beta=0.5, anchor=0.25)
    assert loss.item() == pytest.approx(math.log(2) + 1, abs=1e-6)


@pytest.mark.parametrize(("beta", "anchor"), [(0.1, 0.0), (0.5, 0.03), (2.0, 1.0)])
def test_the_loss_equals_the_formula_written_out(beta: float, anchor: float) -> None:
    chosen, rejected = [3.0, -2.0, 0.5, -0.1], [-1.0, 4.0, 0.5, 0.0]
    loss = preference_loss(torch.tensor(chosen), torch.tensor(rejected), beta=beta, anchor=anchor)
    assert loss.item() == pytest.approx(plain_loss(chosen, rejected, beta, anchor), abs=1e-5)


def test_without_anchor_the_loss_is_dpos_sigmoid_loss() -> None:
    """DPO: the sums of token rewards are its log-ratios of policy and reference, summed over the answer."""
    torch.manual_seed(0)
    policy, reference = (torch.randn(2, 6, 9, 30).log_softmax(-1) for _ in range(2))  # chosen/rejected, B, T, V
    tokens = torch.randint(30, (2, 6, 9, 1))
    policy_sums, reference_sums = (table.gather(3, tokens)[..., 0].sum(-1) for table in (policy, reference))
    beta = 0.3
    logits = (policy_sums[0] - policy_sums[1]) - (reference_sums[0] - reference_sums[1])
    dpo = torch.nn.functional.binary_cross_entropy_with_logits(beta * logits, torch.ones(6))
    chosen, rejected = policy_sums - reference_sums
    torch.testing.assert_close(preference_loss(chosen, rejected, beta=beta, anchor=0.0), dpo, atol=1e-5, rtol=1e-5)


def test_a_smoothed_label_is_the_loss_of_both_orders_by_their_shares() -> None:
    chosen, rejected = torch.tensor([3.0, -2.0]), torch.tensor([-1.0, 4.0])
    asked, swapped = (preference_loss(*pair, beta=0.5, anchor=0.0) for pair in ((chosen, rejected), (rejected, chosen)))
    smoothed = preference_loss(chosen, rejected, beta=0.5, anchor=0.0, label_smoothing=0.2)
    assert smoothed.item() == pytest.approx((0.8 * asked + 0.2 * swapped).item())


def test_an_anchored_chosen_answer_above_the_reference_costs_nothing_more() -> None:
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([1.0, -1.0])
    anchored = preference_loss(chosen, rejected, beta=0.5, anchor=7.0)
    assert torch.equal(anchored, preference_loss(chosen, rejected, beta=0.5, anchor=0.0))


def test_extreme_margins_stay_finite() -> None:
    loss = preference_loss(torch.tensor([-1e4, 1e4]), torch.tensor([1e4, -1e4]), beta=0.5, anchor=0.0)
    assert loss.item() == pytest.approx(5000.0)


def test_the_distillation_loss_is_the_divergence_of_the_target() -> None:
    torch.manual_seed(1)
    target, given = torch.randn(5, 7), torch.randn(5, 7)
    absent = torch.tensor([0, 3]), torch.tensor([2, 6])  # columns without a token
    target[absent] = given[absent] = -torch.inf
    loss = distillation_loss(given, target)
    wanted, found = (torch.distributions.Categorical(logits=each.double()) for each in (target, given))
    expected = torch.where(wanted.probs > 0, wanted.probs * (wanted.logits - found.logits), 0).sum(-1)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    assert distillation_loss(target, target).abs().max() < 1e-6


def test_a_contrast_target_moves_from_the_reference_through_the_instructed_model() -> None:
    reference, instructed = torch.tensor([[0.0, 1.0, -torch.inf]]), torch.tensor([[2.0, 0.0, 5.0]])
    for contrast, expected in ((1.0, [2.0, 0.0, -torch.inf]), (2.0, [4.0, -1.0, -torch.inf])):
        assert contrast_target(reference, instructed, contrast).tolist() == [expected]
