"""Do two paths write the same? Times of paths that do not cannot be compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pad_cli.errors import PadError

_TOLERANCE = 0.5  # nats by which scores may differ between paths in half precision
_NEAR_TIE = 1e-3  # nats between two tokens that rounding in float32 may decide between


@dataclass(frozen=True)
class Written:
    """What a path wrote.

    Attributes:
        path: its name.
        tokens: (B, T).
        top: (B, T, 2), at each step the two best log-probabilities among the candidates, see `top_two`.
    """

    path: str
    tokens: torch.Tensor
    top: torch.Tensor


def top_two(scores: torch.Tensor, count: int) -> torch.Tensor:
    """(B, C or V) scores up to a constant to (B, 2): the two best's log-probabilities among the top `count`, in nats.

    Where there is one candidate only, the second is minus infinity.
    """
    top = scores.float().topk(min(count, scores.shape[-1]), dim=-1).values.log_softmax(-1)
    return torch.nn.functional.pad(top, (0, 1), value=-torch.inf)[:, :2].cpu()


def check_agreement(first: Written, second: Written, *, exact: bool) -> None:
    """Did two paths write the same?

    Args:
        first: one path.
        second: another.
        exact: compare tokens, as float32 allows, in each row up to the first near tie, which may fall either way. Else
            near ties are frequent: compare scores within half a nat, in each row as far as both have read the same.

    Raises:
        PadError: they did not; both are named.
    """
    same = first.tokens == second.tokens
    alike = torch.cat([torch.ones_like(same[:, :1]), same[:, :-1]], dim=1).cumprod(1).bool()  # have read the same
    problem = None
    if exact:
        gaps = torch.minimum(*(written.top[..., 0] - written.top[..., 1] for written in (first, second)))
        wrong = (alike & ~same & ~(gaps <= _NEAR_TIE)).nonzero().tolist()
        if wrong:
            row, step = wrong[0]
            problem = f"token {step + 1} of answer {row + 1} differs"
    else:
        gap = float(((first.top[..., 0] - second.top[..., 0]).abs() * alike).max())
        if not gap <= _TOLERANCE:
            problem = f"scores differ by {gap:.2g} nats"
    if problem is not None:
        raise PadError(
            f"The paths '{first.path}' and '{second.path}' do not agree: {problem}.",
            "Their times cannot be compared. Models in float32 (policy.dtype=float32) show whether it is rounding.",
        )
