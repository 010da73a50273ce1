"""PAD on one screen (paper, equation 10): score the policy's candidates, then take the best or sample.

    score(a) = log pi_policy(a | s) + guidance_weight * r(p, s, a)        for a among the policy's top C tokens

Inside the candidate set every normaliser of r is a constant of the state. It changes neither the argmax nor the softmax
over candidates, so rewards are taken up to that constant: only C rows of the unembedding are needed.
"""

from __future__ import annotations

import torch

from pad_cli.models.language_model import LogitHead


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


def candidate_rewards(
    head: LogitHead,
    hidden: torch.Tensor,
    shift: torch.Tensor,
    candidates: torch.Tensor,
    reference: torch.Tensor | None = None,
) -> torch.Tensor:
    """r(p, s, a) of the candidates up to a constant of the state: (B, C) nats, float32.

    Args:
        head: the backbone's unembedding.
        hidden: (B, H), the backbone's state, read through the adapter if there is one.
        shift: (B, H), delta_p of that state.
        candidates: (B, C) token ids.
        reference: (B, C) log pi_ref of the candidates up to a constant; None: the same state without its shift.
    """
    if reference is None:
        return head.change_at(hidden, shift, candidates).float()
    return head.at(hidden.float() + shift.float(), candidates) - reference


def guided_scores(log_probs: torch.Tensor, rewards: torch.Tensor, guidance_weight: torch.Tensor) -> torch.Tensor:
    """log pi + guidance_weight * r.

    Args:
        log_probs: (B, C).
        rewards: (B, C).
        guidance_weight: (B,), one a row.
    """
    return log_probs + guidance_weight[:, None] * rewards


def withhold_repeats(
    rewards: torch.Tensor, log_probs: torch.Tensor, candidates: torch.Tensor, history: torch.Tensor, size: int
) -> torch.Tensor:
    """Pay a reward once: a candidate that would repeat an n-gram of the answer keeps no reward above the average.

    Steering is what makes strong guidance repeat itself, so the reward is where repetition is stopped; the policy's own
    probabilities stay as they are.

    Args:
        rewards: (B, C).
        log_probs: (B, C) of the candidates under the policy; the average is taken with them.
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
