"""What a choice says about weights: the difference of two answers' rewards, to first order at w = 0.

R(w)    = sum_t log softmax(E (h_t + sum_k w_k B_k A_k h_t))[y_t] - log softmax(E h_ref,t)[y_t]         nats
offset  = R(0)                                              0 without an adapter: then h_ref = h
slope_k = dR/dw_k = sum_t g_t . B_k A_k h_t,   g_t = E[y_t] - E_{v ~ softmax(E h_t)} E[v]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pad_cli.equation import answer_sums
from pad_cli.errors import UsageError
from pad_cli.learning.choices import Choice
from pad_cli.models.language_model import cut_to_context, room
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.models.scoring import TokenSequence, answer_states, in_batches, targets_and_owners, token_log_probs
from pad_cli.system.progress import note

_QUIET = 200  # answers up to which no progress is shown


@dataclass(frozen=True)
class Features:
    """N choices as linear functions of K weights: margin = offset + slopes . w, chosen less rejected, nats.

    Attributes:
        slopes: (N, K).
        offsets: (N,).
    """

    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]


@torch.no_grad()
def choice_features(model: RewardModel, choices: Sequence[Choice]) -> Features:
    """Features of choices; every distinct answer to a prompt is read once.

    Raises:
        UsageError: the reward model has no preference heads, so there are no weights to learn.
    """
    if not isinstance(model, PersonalizedRewardModel):
        raise UsageError(
            "This reward model reads preferences in its prompt: it has no weights that could be learned from choices.",
            "Use one with preference heads; pad train-rm makes them unless the recipe says `conditioning: prompt`.",
        )
    backbone, context, cut = model.backbone, model.backbone.context_length, 0
    numbers: dict[TokenSequence, int] = {}
    pairs = []
    for choice in choices:
        prompt = tuple(encode_prompt(backbone.tokenizer, choice.prompt, place=choice.place))
        answers = [encode_answer(backbone.tokenizer, text) for text in (choice.chosen, choice.rejected)]
        end = prompt[-cut_to_context(context, len(prompt), max(map(len, answers))) :]
        starts = [tuple(answer[: room(context, len(end))]) for answer in answers]
        cut += len(end) < len(prompt) or any(len(a) < len(b) for a, b in zip(starts, answers, strict=True))
        pairs.append([numbers.setdefault((end, start), len(numbers)) for start in starts])
    if cut:
        note(f"Warning: {cut} choices are cut: '{backbone.name}' reads at most {context} tokens.")
    slopes = torch.zeros(len(numbers), len(model.principles), dtype=torch.float64)
    offsets = torch.zeros(len(numbers), dtype=torch.float64)

    def read(batch: Sequence[TokenSequence], _: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return _slopes_and_offsets(model, batch)

    title = "Reading answers" if len(numbers) > _QUIET else None
    for rows, (slope, offset) in in_batches(list(numbers), read, backbone.device, title=title):
        slopes[rows], offsets[rows] = slope, offset
    chosen, rejected = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return Features((slopes[chosen] - slopes[rejected]).numpy(), (offsets[chosen] - offsets[rejected]).numpy())


def _slopes_and_offsets(
    model: PersonalizedRewardModel, answers: Sequence[TokenSequence]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, K) slopes and (S,) offsets of S answers, float64, on the CPU."""
    backbone, heads = model.backbone, model.heads
    targets, owners = targets_and_owners(answers, backbone.device)
    hidden = answer_states(backbone, answers, model.adapter).float()
    # The shift of head k enters R only through the state, so dR/dw_k = dR/dh_t . B_k A_k h_t (chain rule): one backward
    # pass to the states gives the slopes of all K heads, and of a token's V logits only the H numbers g_t are kept.
    with torch.enable_grad():
        states = hidden.requires_grad_()
        log_probs = token_log_probs(states, targets, backbone.head)
        (g,) = torch.autograd.grad(log_probs.sum(), states)
    count, rank, _ = heads.down.shape
    ones = torch.ones(len(owners), count, device=hidden.device)
    projected = (g.to(heads.up.dtype) @ heads.up_rows.T).view(-1, count, rank)  # (T, K, r): g_t . B_k
    slopes = (heads.mixed(hidden.detach(), ones) * projected).sum(-1)
    rewards = torch.zeros_like(log_probs.detach())
    if model.adapter is not None:
        plain = token_log_probs(answer_states(backbone, answers).float(), targets, backbone.head)
        rewards = log_probs.detach() - plain
    slope_sums, reward_sums = (
        answer_sums(values.detach().double().cpu(), owners.cpu(), len(answers)) for values in (slopes, rewards)
    )
    return slope_sums, reward_sums
