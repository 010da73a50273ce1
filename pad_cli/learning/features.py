"""What a choice says about weights: the difference of two answers' rewards, to first order at w = 0.

    R(w)    = sum_t log softmax(E (h_t + sum_k w_k B_k A_k h_t))[y_t] - log softmax(E h_ref,t)[y_t]         nats
    offset  = R(0)                                              0 without an adapter: then h_ref = h
    slope_k = dR/dw_k = sum_t g_t . B_k A_k h_t,   g_t = E[y_t] - E_{v ~ softmax(E h_t)} E[v]

Only the H numbers g_t are kept of a token's V logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pad_cli.errors import UsageError
from pad_cli.learning.choices import Choice
from pad_cli.memory import Halving
from pad_cli.models.context import cut_to_context, room
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.progress import Bar, bar, note
from pad_cli.training.answer_likelihood import token_log_probs
from pad_cli.training.answer_states import answer_states
from pad_cli.training.hidden_cache import Sequence_

_BATCH_TOKENS = 4096  # tokens of one forward pass, padding included
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
    numbers: dict[Sequence_, int] = {}
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
def _read(model: PersonalizedRewardModel, answers: Sequence[Sequence_]) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, K) slopes and (S,) offsets of S answers to prompts, in float64, on the CPU."""
    slopes = torch.zeros(len(answers), len(model.principles), dtype=torch.float64)
    offsets = torch.zeros(len(answers), dtype=torch.float64)
    order = sorted(range(len(answers)), key=lambda number: sum(map(len, answers[number])))
    shown = bar("Reading answers", len(answers)) if len(answers) > _QUIET else nullcontext(Bar())
    halving = Halving("answers to read")

    def read(batch: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return _batch(model, [answers[number] for number in batch])

    with shown as progress:
        while order:
            longest = sum(map(len, answers[order[-1]]))
            last = order[-max(1, _BATCH_TOKENS // longest) :]
            del order[-len(last) :]
            for batch, found in halving.batches(last, len(last), read):
                slopes[list(batch)], offsets[list(batch)] = found
                progress.advance(len(batch))
    return slopes, offsets


def _batch(model: PersonalizedRewardModel, answers: Sequence[Sequence_]) -> tuple[torch.Tensor, torch.Tensor]:
    backbone, heads = model.backbone, model.heads
    owners = torch.tensor([row for row, (_, answer) in enumerate(answers) for _ in answer])
    targets = torch.tensor([token for _, answer in answers for token in answer], device=backbone.device)
    if model.adapter is None:
        hidden = answer_states(backbone, answers).float()
    else:
        with model.adapter.on_rows_from(0):
            hidden = answer_states(backbone, answers).float()
    with torch.enable_grad():
        states = hidden.requires_grad_()
        values = token_log_probs(states, targets, backbone.head)
        (pull,) = torch.autograd.grad(values.sum(), states)
    count, rank, _ = heads.down.shape
    ones = torch.ones(len(owners), count, device=hidden.device)
    narrow = heads.mixed(hidden.detach(), ones) * (pull.to(heads.up.dtype) @ heads.up_rows.T)  # (T, K r)
    slopes = narrow.view(-1, count, rank).sum(-1)
    change = torch.zeros_like(values.detach())
    if model.adapter is not None:
        change = values.detach() - token_log_probs(answer_states(backbone, answers).float(), targets, backbone.head)
    return _sums(slopes, owners, len(answers)), _sums(change, owners, len(answers))


def _sums(values: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    """Sums of each answer's tokens, in float64 on the CPU."""
    found = values.detach().double().cpu()
    return torch.zeros(count, *found.shape[1:], dtype=torch.float64).index_add(0, owners, found)
