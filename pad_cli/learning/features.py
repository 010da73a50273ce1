"""What a choice says about weights: the difference of two answers' rewards, to first order at w = 0.

    R(w)    = sum_t log softmax(E (h_t + sum_k w_k B_k A_k h_t))[y_t] - log softmax(E h_ref,t)[y_t]         nats
    offset  = R(0)                                              0 without an adapter: then h_ref = h
    slope_k = dR/dw_k = sum_t g_t . B_k A_k h_t,   g_t = E[y_t] - E_{v ~ softmax(E h_t)} E[v]

Only the H numbers g_t are kept of a token's V logits.
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
    tokenizer = model.backbone.tokenizer
    context, cut = model.backbone.context_length, 0
    numbers: dict[TokenSequence, int] = {}
    pairs = []
    for choice in choices:
        whole = encode_prompt(tokenizer, choice.prompt, place=choice.place)
        both = [encode_answer(tokenizer, text) for text in (choice.chosen, choice.rejected)]
        prompt = tuple(whole[-cut_to_context(context, len(whole), max(map(len, both))) :])
        answers = [tuple(answer[: room(context, len(prompt))]) for answer in both]
        cut += len(prompt) < len(whole) or any(len(read) < len(full) for read, full in zip(answers, both, strict=True))
        pairs.append([numbers.setdefault((prompt, answer), len(numbers)) for answer in answers])
    if cut:
        note(f"Warning: {cut} choices are cut: '{model.backbone.name}' reads at most {context} tokens.")
    slopes, offsets = _read(model, list(numbers))
    chosen, rejected = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return Features((slopes[chosen] - slopes[rejected]).numpy(), (offsets[chosen] - offsets[rejected]).numpy())


@torch.no_grad()
def _read(model: PersonalizedRewardModel, answers: Sequence[TokenSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, K) slopes and (S,) offsets of S answers to prompts, in float64, on the CPU."""
    slopes = torch.zeros(len(answers), len(model.principles), dtype=torch.float64)
    offsets = torch.zeros(len(answers), dtype=torch.float64)

    def read(batch: Sequence[TokenSequence], _: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return _batch(model, batch)

    title = "Reading answers" if len(answers) > _QUIET else None
    for numbers, found in in_batches(answers, read, model.backbone.device, title=title):
        slopes[numbers], offsets[numbers] = found
    return slopes, offsets


def _batch(model: PersonalizedRewardModel, answers: Sequence[TokenSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    backbone, heads = model.backbone, model.heads
    targets, owners = targets_and_owners(answers, backbone.device)
    hidden = answer_states(backbone, answers, model.adapter).float()
    with torch.enable_grad():  # one backward pass gives g_t for every token, from which the slopes of all heads follow
        states = hidden.requires_grad_()
        values = token_log_probs(states, targets, backbone.head)
        (pull,) = torch.autograd.grad(values.sum(), states)
    count, rank, _ = heads.down.shape
    ones = torch.ones(len(owners), count, device=hidden.device)
    pulled = (pull.to(heads.up.dtype) @ heads.up_rows.T).view(-1, count, rank)  # (T, K, r): g_t . B_k
    slopes = (heads.mixed(hidden.detach(), ones) * pulled).sum(-1)
    change = torch.zeros_like(values.detach())
    if model.adapter is not None:
        change = values.detach() - token_log_probs(answer_states(backbone, answers).float(), targets, backbone.head)
    return _sums(slopes, owners, len(answers)), _sums(change, owners, len(answers))


def _sums(values: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    """Sums of each answer's tokens, in float64 on the CPU."""
    return answer_sums(values.detach().double().cpu(), owners.cpu(), count)
