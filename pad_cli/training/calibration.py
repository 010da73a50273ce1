"""What guidance weight 1 means: the same strength for every reward model and every principle.

The loss temperature and the number of steps decide how large rewards grow, and what steers is how much they differ
between the tokens that compete. So the strength of a principle is the root mean square, over states, of the standard
deviation of its rewards among the reference's likeliest tokens, and calibration brings it to `equation.STRENGTH`.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from pad_cli.equation import calibration_factor, spread, strength
from pad_cli.models.heads import PreferenceHeads
from pad_cli.system.progress import Bar, bar
from pad_cli.training.token_rewards import TokenRewards

_STATES = 1024
_CHUNK = 128  # states


@torch.inference_mode()
def strengths(shift: nn.Module, rewards: TokenRewards, seed: int = 0, *, title: str | None = None) -> torch.Tensor:
    """How strongly each principle steers on its own, before calibration.

    Args:
        shift: preference heads, or a dense head.
        rewards: over the cache from which states are drawn.
        seed: of the draw.
        title: under which progress is shown; without one there is none.

    Returns:
        (K,) nats; (1,) for a head without principles.
    """
    names = shift.names if isinstance(shift, PreferenceHeads) else ()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(rewards.cache), generator=generator)[:_STATES]
    alone = torch.eye(len(names)) if names else torch.zeros(1, 0)
    total = len(alone) * len(drawn)
    with bar(title, total=total) if title else nullcontext(Bar()) as progress:
        found = [_strength(shift, rewards, drawn, weights, progress) for weights in alone]
    return torch.stack(found)


def balance(heads: PreferenceHeads, found: torch.Tensor) -> torch.Tensor:
    """Scale each head to `equation.STRENGTH`; the factor is exact: among candidates rewards are linear in B_k.

    Args:
        heads: whose B_k are changed; one that rewards nothing stays.
        found: (K,) strengths.

    Returns:
        (K,) the factors.
    """
    factors = calibration_factor(found)
    with torch.no_grad():
        heads.up.mul_(factors[:, None, None].to(heads.up))
    return factors


def overall(found: torch.Tensor) -> float:
    """The factor that brings the root mean square of some strengths to `equation.STRENGTH`; 1 if none rewards."""
    return float(calibration_factor(strength(found.square())))


def _strength(
    shift: nn.Module, rewards: TokenRewards, states: torch.Tensor, weights: torch.Tensor, progress: Bar
) -> torch.Tensor:
    squares = []
    for part in states.split(_CHUNK):
        reference, personalised, _ = rewards.logits(shift, part, weights.expand(len(part), -1))
        squares.append(spread(personalised - reference, reference))
        progress.advance(len(part))
    return strength(torch.cat(squares))
