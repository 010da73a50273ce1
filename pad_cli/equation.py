"""The method of PAD (Chen et al., ICLR 2025, arXiv 2410.04070): every formula, as pure functions of tensors.

    logits      = cap(scale * (E h + bias))                         h: the last hidden state, after the final norm
    shift       = sum_k w_k B_k A_k h                               w: one user's weights, one for each preference head
    r(p, s, a)  = log softmax(logits of h + shift)[a] - log softmax(logits of the reference)[a]       nats
    R(p, x, y)  = sum_t r(p, s_t, y_t)
    loss        = -log sigmoid(beta (R(chosen) - R(rejected))) + anchor relu(-R(chosen))
      or        = KL(pi(. | instruction, s) || softmax(logits of h + shift)), token by token (`distil`)
    strength^2  = mean over states of the variance of r among the reference's likeliest tokens
    calibration = 0.5 / strength
    score(a)    = log pi_policy(a | s) + guidance_weight * calibration * r(p, s, a)    for a in the policy's top C

The reference is one of three: the same state without its shift (frozen heads), the backbone without its adapter, or the
policy. The formulas do not ask which: callers pass its logits or log-probabilities.

Shapes: N states, V vocabulary, H hidden size, K heads, r rank of a head, C candidates, B answers or rows, T tokens.
Everything else in the package calls these functions; `tests/equation/` checks every path against them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import linear, logsigmoid, relu

STRENGTH = 0.5
"""What calibration aims at: nats, at guidance weight 1."""

LIKELIEST = 10
"""Tokens of the reference among which strength is measured."""


@dataclass(frozen=True)
class LogitHead:
    """The unembedding: logits = cap(scale * (E h + bias)).

    Attributes:
        weight: E, shape (V, H).
        bias: shape (V,), or None.
        scale: multiplier of the logits (Cohere, Granite); 1 for most models.
        cap: soft cap c in c * tanh(logits / c) (Gemma 2), or None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float
    cap: float | None

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, H) hidden states to (N, V) logits."""
        return self.finish(self.raw(hidden))

    def raw(self, hidden: torch.Tensor) -> torch.Tensor:
        """E h + bias: (N, V) logits before scale and cap."""
        return linear(hidden, self.weight, self.bias)

    def at(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(N, H) hidden states and (N, C) token ids to the (N, C) logits of those tokens, in the states' dtype."""
        logits = torch.einsum("nch,nh->nc", self.weight[tokens].to(hidden.dtype), hidden)
        if self.bias is not None:
            logits = logits + self.bias[tokens]
        return self.finish(logits)

    def change_at(self, hidden: torch.Tensor, shift: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """How the (N, C) logits of the given tokens change when (N, H) hidden states are shifted by (N, H)."""
        if self.cap is None:  # linear: neither the state nor the bias matters
            return torch.einsum("nch,nh->nc", self.weight[tokens], shift.to(self.weight.dtype)) * self.scale
        return self.at(hidden + shift.to(hidden.dtype), tokens) - self.at(hidden, tokens)

    def rows(self, tokens: torch.Tensor) -> LogitHead:
        """The head restricted to the given (U,) tokens, in their order."""
        bias = None if self.bias is None else self.bias[tokens]
        return LogitHead(self.weight[tokens], bias, self.scale, self.cap)

    def float32(self, device: torch.device | str | None = None) -> LogitHead:
        """The same in float32, on a device if one is given."""
        bias = None if self.bias is None else self.bias.to(device, torch.float32)
        return LogitHead(self.weight.to(device, torch.float32), bias, self.scale, self.cap)

    def finish(self, logits: torch.Tensor) -> torch.Tensor:
        """Raw logits of any shape to logits: scale, then cap."""
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.cap is not None:
            logits = self.cap * torch.tanh(logits / self.cap)
        return logits


# 1. The shift of a state under a preference


def mix_heads(hidden: torch.Tensor, down: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """w_k A_k h for every head.

    Args:
        hidden: (N, H) states.
        down: (K, r, H), the A_k.
        weights: (N, K), w of each state's preference.

    Returns:
        (N, K, r), in the heads' dtype.
    """
    count, rank, size = down.shape
    narrow = hidden.to(down.dtype) @ down.reshape(count * rank, size).T  # (N, K r): one product for all heads
    return narrow.view(-1, count, rank) * weights.unsqueeze(-1).to(down.dtype)


def shift(hidden: torch.Tensor, down: torch.Tensor, up: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """sum_k w_k B_k A_k h.

    Args:
        hidden: (N, H) states.
        down: (K, r, H), the A_k.
        up: (K, H, r), the B_k.
        weights: (N, K), w of each state's preference.

    Returns:
        (N, H), in the heads' dtype.
    """
    return mix_heads(hidden, down, weights).flatten(1) @ up.transpose(1, 2).reshape(-1, up.shape[1])


# 2. Rewards


def pick(table: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """One entry of each row: (..., V) and (...) to (...)."""
    return table.gather(-1, columns[..., None])[..., 0]


def log_prob(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """log softmax(logits)[token]: (..., V) logits and (...) columns to (...) nats, float32."""
    return pick(logits.float().log_softmax(-1), tokens)


def token_reward(personalised: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """r(p, s, a) of one token in each state.

    Args:
        personalised: (N, V) logits of the shifted states.
        reference: (N, V) logits of the reference.
        tokens: (N,), the column of each state's token.

    With the whole vocabulary in the columns the normaliser is exact. It may also be truncated, to each state's token
    and the reference's likeliest ones, the same columns for both: that keeps the order of pairs, not absolute values.

    Returns:
        (N,) nats, float32.
    """
    return log_prob(personalised, tokens) - log_prob(reference, tokens)


def rewards_of_all(personalised: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """r(p, s, a) of every token: (N, V) logits of both to (N, V) nats, float32."""
    return personalised.float().log_softmax(-1) - reference.float().log_softmax(-1)


def candidate_rewards(
    head: LogitHead,
    hidden: torch.Tensor,
    shift: torch.Tensor,
    candidates: torch.Tensor,
    reference: torch.Tensor | None = None,
) -> torch.Tensor:
    """r(p, s, a) of the candidates up to a constant of the state, from C rows of the unembedding.

    Inside the candidate set every normaliser is such a constant, and changes neither the argmax nor the softmax.

    Args:
        head: the backbone's unembedding.
        hidden: (N, H) states of the backbone, read through the adapter if there is one.
        shift: (N, H), their shift.
        candidates: (N, C) token ids.
        reference: (N, C) log-probabilities of the candidates up to a constant; None: the states without their shift.

    Returns:
        (N, C) nats, float32.
    """
    if reference is None:
        return head.change_at(hidden, shift, candidates).float()
    return head.at(hidden.float() + shift.float(), candidates) - reference


def normaliser_change(personalised: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
    """The constant of the state that `candidate_rewards` leave out: r = candidate reward - this constant.

    Args:
        personalised: (N, V) logits of the shifted states.
        reference: (N, V) logits of the reference; None where its log-probabilities are normalised already.

    Returns:
        (N,) nats, float32.
    """
    change = personalised.float().logsumexp(-1)
    return change if reference is None else change - reference.float().logsumexp(-1)


def answer_sums(values: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    """Sums over each answer's tokens, such as R(p, x, y) of token rewards.

    Args:
        values: (T, ...), one row a token.
        owners: (T,), which answer a token belongs to.
        count: B, the number of answers; one without tokens has 0.

    Returns:
        (B, ...), in the values' dtype.
    """
    return values.new_zeros(count, *values.shape[1:]).index_add(0, owners.to(values.device), values)


# 3. Learning


def preference_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float, anchor: float, label_smoothing: float = 0.0
) -> torch.Tensor:
    """The paper's equation 8 with a likelihood anchor: mean loss of a batch of pairs.

    The anchor keeps the personalised model from making the chosen answer less likely than the reference does, as
    DPO-Positive (Pal et al. 2024, arXiv 2402.13228). With label smoothing e the first term is (1 - e) of the loss of
    the pair and e of that of the swapped pair (Mitchell 2023, "A note on DPO with noisy preferences").

    Args:
        chosen: (B,), R of the chosen answers, nats.
        rejected: (B,), of the rejected ones.
        beta: the loss temperature.
        anchor: weight of the likelihood anchor.
        label_smoothing: assumed share of pairs whose labels are swapped.
    """
    logits = beta * (chosen - rejected)
    loss = -(1 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)
    return (loss + anchor * relu(-chosen)).mean()


def likelihood_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """LM-Steer (Han et al. 2024, arXiv 2305.12798): mean negative log-likelihood of a batch's tokens, up to a constant.

    With the heads it is -log pi(a | s) under the shift W h for a chosen answer and -W h for a rejected one, since the
    reference's own log-likelihood in r = log pi_p - log pi_ref does not change.

    Args:
        chosen: (T,), token rewards of the chosen answers under their preference w, nats.
        rejected: (U,), of the rejected ones under -w.
    """
    return -torch.cat([chosen, rejected]).mean()


def contrast_target(reference: torch.Tensor, instructed: torch.Tensor, contrast: float) -> torch.Tensor:
    """Logits that a head is to give: the reference's, and `contrast` times what an instruction changes.

    At 1 they are the instructed model's own; above, as in context steering (He et al. 2024, arXiv 2405.01768).

    Args:
        reference: (N, C) logits without the instruction; minus infinity in a column that stands for no token.
        instructed: (N, C) logits after the instruction.
        contrast: the multiple, above 0.
    """
    change = torch.where(reference.isfinite(), instructed - reference, 0)
    return reference + contrast * change


def distillation_loss(personalised: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """KL(softmax(target) || softmax(personalised)) among the tokens given.

    Context distillation (Askell et al. 2021, arXiv 2112.00861; Snell et al. 2022, arXiv 2209.15189).

    Args:
        personalised: (N, C) logits of the shifted states; minus infinity where the target's are.
        target: (N, C) logits.

    Returns:
        (N,) nats, float32.
    """
    wanted, given = target.float().log_softmax(-1), personalised.float().log_softmax(-1)
    terms = torch.where(target.isfinite(), wanted.exp() * (wanted - given), 0)
    return terms.sum(-1)


# 4. Calibration


def spread(rewards: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The variance of the rewards among the reference's `LIKELIEST` tokens.

    Args:
        rewards: (N, V) nats, up to a constant of the state.
        reference: (N, V) logits of the reference; minus infinity in a column that stands for no token.

    Returns:
        (N,) nats squared.
    """
    likeliest = reference.topk(min(LIKELIEST, reference.shape[-1]), dim=-1).indices
    chosen = rewards.gather(-1, likeliest)
    finite = reference.gather(-1, likeliest).isfinite()
    count = finite.sum(-1)
    mean = chosen.where(finite, 0).sum(-1, keepdim=True) / count[:, None]
    return (chosen - mean).where(finite, 0).square().sum(-1) / (count - 1).clamp(min=1)


def strength(spreads: torch.Tensor) -> torch.Tensor:
    """How far guidance weight 1 moves tokens apart: the root mean square of (N,) spreads, nats."""
    return spreads.mean().sqrt()


def calibration_factor(strengths: torch.Tensor) -> torch.Tensor:
    """The factors (K,) that scale each of K strengths to `STRENGTH`; 1 for a strength of 0."""
    return torch.where(strengths > 0, STRENGTH / strengths, 1.0)


# 5. Guided decoding


def select_candidates(policy_logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The policy's top tokens.

    Args:
        policy_logits: (B, V).
        count: C; at most V are taken.

    Returns:
        candidates (B, C), best first, and their log-probabilities (B, C) under the policy, in float32.
    """
    values, candidates = policy_logits.float().topk(min(count, policy_logits.shape[-1]), dim=-1)
    return candidates, values - policy_logits.float().logsumexp(-1, keepdim=True)


def plausible(log_probs: torch.Tensor, share: float, guidance_weight: torch.Tensor) -> torch.Tensor:
    """Candidates at least `share` times as likely under the policy as its likeliest one; all where nothing is guided.

    The plausibility constraint of contrastive decoding (Li et al. 2023, arXiv 2210.15097, equation 2), here of the
    policy that is guided. It keeps strong guidance from tokens that nobody would write there.

    Args:
        log_probs: (B, C).
        share: 0 to 1.
        guidance_weight: (B,).

    Returns:
        (B, C), whether each may be chosen.
    """
    return (log_probs.exp() >= share * log_probs.exp().amax(-1, keepdim=True)) | (guidance_weight == 0)[:, None]


def guided_scores(log_probs: torch.Tensor, rewards: torch.Tensor, guidance_weight: torch.Tensor) -> torch.Tensor:
    """log pi + guidance_weight * r (the paper's equation 10).

    Args:
        log_probs: (B, C).
        rewards: (B, C).
        guidance_weight: (B,), calibrated.
    """
    return log_probs + guidance_weight[:, None] * rewards


def guided_log_probs(log_probs: torch.Tensor, rewards: torch.Tensor, guidance_weight: float) -> torch.Tensor:
    """The guided distribution over every token given: (N, V) log-probabilities and rewards to (N, V), normalised."""
    return (log_probs + guidance_weight * rewards).log_softmax(-1)


def withhold_repeats(
    rewards: torch.Tensor, log_probs: torch.Tensor, candidates: torch.Tensor, history: torch.Tensor, size: int
) -> torch.Tensor:
    """Cap the reward of a candidate that would repeat an n-gram of the answer at the candidates' average reward.

    Without the cap, strong guidance repeats a rewarded phrase, because each repetition is rewarded again. The policy's
    own probabilities do not change. This is not part of the paper.

    Args:
        rewards: (B, C).
        log_probs: (B, C) of the candidates under the policy; the average is weighted by their probabilities.
        candidates: (B, C) token ids.
        history: (B, T) the answer so far; negative where a row has no token.
        size: n, the length of an n-gram in tokens; 0 leaves rewards as they are.

    Returns:
        (B, C) rewards.
    """
    if size == 0 or history.shape[1] < size:
        return rewards
    context = history[:, history.shape[1] - size + 1 :]  # (B, n - 1), empty for n = 1
    windows = history.unfold(1, size, 1)  # (B, T - n + 1, n)
    same = (windows[:, :, :-1] == context[:, None]).all(-1) & (windows >= 0).all(-1)
    repeats = (same[:, :, None] & (windows[:, :, -1:] == candidates[:, None])).any(1)  # (B, C)
    average = (log_probs.softmax(-1) * rewards).sum(-1, keepdim=True)
    return torch.where(repeats, torch.minimum(rewards, average), rewards)
