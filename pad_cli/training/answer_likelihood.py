"""How likely a model finds answers, with gradients for what it reads through (LoRA) and for what shifts its states.

    log pi(answer) = sum_t log softmax(cap(scale * (E z_t + bias)))[a_t],     z_t = h_t + delta_p(h_t)

The unembedding E is frozen, so all that a backward pass needs of a token is d log pi(a_t) / d z_t, one (H,) vector. The
forward pass computes it while it has the token's logits, which live for a piece of the batch only: memory does not grow
with the vocabulary, and the vocabulary is read twice instead of three times.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from pad_cli.memory import Halving
from pad_cli.models.language_model import LanguageModel, LogitHead
from pad_cli.progress import Bar, bar
from pad_cli.training.answer_states import answer_states
from pad_cli.training.hidden_cache import Sequence_

_PIECE_LOGITS = 2**25  # logits held at once
_BATCH_TOKENS = 8192  # tokens of one forward pass without gradients, padding included


def answer_log_probs(
    backbone: LanguageModel,
    sequences: Sequence[Sequence_],
    head: nn.Module | None = None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Log-probabilities of whole answers, as the backbone reads now: through whatever LoRA weights it has.

    Args:
        backbone: the language model.
        sequences: B (prompt, answer) token sequences, read in one forward pass.
        head: shifts (N, H) states under (N, K) weights, on the backbone's device; None for no shift.
        weights: (B, K) weights of each answer's preference, for `head`.

    Returns:
        (B,) nats, float32, on the backbone's device.
    """
    states = answer_states(backbone, sequences)
    lengths = torch.tensor([len(answer) for _, answer in sequences], device=states.device)
    owners = torch.repeat_interleave(torch.arange(len(sequences), device=states.device), lengths)
    targets = torch.tensor([token for _, answer in sequences for token in answer], device=states.device)
    if head is not None and weights is not None:
        states = states + head(states, weights.to(states.device)[owners]).to(states.dtype)
    tokens = token_log_probs(states, targets, backbone.head)
    return torch.zeros(len(sequences), device=states.device).index_add(0, owners, tokens)


@torch.no_grad()
def all_log_probs(
    backbone: LanguageModel,
    sequences: Sequence[Sequence_],
    head: nn.Module | None = None,
    weights: torch.Tensor | None = None,
    *,
    title: str | None = None,
) -> torch.Tensor:
    """As `answer_log_probs` for any number S of sequences, in batches of similar length: (S,) on the CPU.

    Progress is shown under `title`; without one there is none.
    """
    order = sorted(range(len(sequences)), key=lambda number: sum(map(len, sequences[number])))
    result = torch.zeros(len(sequences))
    halving = Halving("answers to read")

    def read(batch: Sequence[int]) -> torch.Tensor:
        part = None if weights is None else weights[list(batch)]
        return answer_log_probs(backbone, [sequences[number] for number in batch], head, part).cpu()

    with bar(title, total=len(sequences)) if title else nullcontext(Bar()) as progress:
        while order:
            longest = _last_batch(order, sequences)
            del order[-len(longest) :]
            for batch, found in halving.batches(longest, len(longest), read):
                result[list(batch)] = found
                progress.advance(len(batch))
    return result


def token_log_probs(states: torch.Tensor, targets: torch.Tensor, head: LogitHead) -> torch.Tensor:
    """log softmax(head(state))[target] of each token, float32.

    Args:
        states: (N, H).
        targets: (N,) token ids.
        head: the unembedding; gets no gradients.
    """
    result: torch.Tensor = _TokenLogProbs.apply(states, targets, head)  # type: ignore[no-untyped-call]  # of torch
    return result


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, targets: torch.Tensor, head: LogitHead) -> torch.Tensor:
        size = max(1, _PIECE_LOGITS // len(head.weight))
        pieces = zip(states.split(size), targets.split(size), strict=True)
        parts = [_values_and_slopes(*piece, head, ctx.needs_input_grad[0]) for piece in pieces]
        ctx.save_for_backward(torch.cat([slopes for _, slopes in parts]))
        return torch.cat([values for values, _ in parts])

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return (upstream[0][:, None] * slopes).to(slopes.dtype), None, None


def _values_and_slopes(
    states: torch.Tensor, targets: torch.Tensor, head: LogitHead, sloped: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities (n,) and, when asked for, their derivatives in the states (n, H), else (0, H)."""
    logits = head(states.to(head.weight.dtype)).float()
    logs = logits.log_softmax(-1)
    values = logs.gather(1, targets[:, None])[:, 0]
    if not sloped:
        return values, states[:0]
    pull = logs.exp_().neg_()  # 1[v = a] - pi(v), the derivative in the logits
    pull.scatter_add_(1, targets[:, None], torch.ones_like(values)[:, None])
    pull *= head.scale
    if head.cap is not None:
        pull *= 1 - (logits / head.cap).square_()
    return values, (pull.to(head.weight.dtype) @ head.weight).to(states.dtype)


def _last_batch(order: Sequence[int], sequences: Sequence[Sequence_]) -> list[int]:
    """The longest sequences of an ascending order that fit into one forward pass, at least one."""
    longest = sum(map(len, sequences[order[-1]]))
    return list(order[-max(1, _BATCH_TOKENS // longest) :])
