"""Do two paths write the same? Times of paths that do not cannot be compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pad_cli.errors import PadError

_TOLERANCE = 0.5  # nats by which scores may differ between paths in half precision


@dataclass(frozen=True)
class Written:
    """What a path wrote: `tokens` (B, T) and `best` (B, T), the log-probability of each among its candidates."""

    path: str
    tokens: torch.Tensor
    best: torch.Tensor


def best_of(scores: torch.Tensor, count: int) -> torch.Tensor:
    """(B, C or V) scores up to a constant to (B,): the best one's log-probability among the top `count`, in nats."""
    top = scores.float().topk(min(count, scores.shape[-1]), dim=-1).values
    return top.log_softmax(-1)[:, 0].cpu()


def check_agreement(first: Written, second: Written, *, exact: bool) -> None:
    """Did two paths write the same?

    Args:
        first: one path.
        second: another.
        exact: compare tokens, as float32 allows. Else near-ties may fall either way: compare scores within half a nat,
            in each row as far as both have read the same tokens.

    Raises:
        PadError: they did not; both are named.
    """
    same = first.tokens == second.tokens
    if exact and not bool(same.all()):
        row, step = (~same).nonzero()[0].tolist()
        problem = f"token {step + 1} of answer {row + 1} differs"
    else:
        alike = torch.cat([torch.ones_like(same[:, :1]), same[:, :-1]], dim=1).cumprod(1)
        gap = float(((first.best - second.best).abs() * alike).max())
        if exact or gap <= _TOLERANCE:
            return
        problem = f"scores differ by {gap:.2g} nats"
    raise PadError(
        f"The paths '{first.path}' and '{second.path}' do not agree: {problem}.",
        "Their times cannot be compared. Models in float32 (policy.dtype=float32) show whether it is rounding.",
    )
