"""What guidance weight 1 means: the same reward scale for every reward model and every principle.

The loss temperature and the number of steps decide how large rewards grow, and what steers is how much they differ
between the tokens that compete. So the scale of a principle is the root mean square, over states, of the standard
deviation of its rewards among the reference's likeliest tokens, and calibration brings it to `equation.STRENGTH`.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from pad_cli.equation import calibration_factor, spread, strength
from pad_cli.models.heads import PreferenceHeads
from pad_cli.system.progress import Bar, bar
from pad_cli.training.metrics import score_pairs
from pad_cli.training.pair_table import PairTable
from pad_cli.training.token_rewards import TokenRewards

_STATES = 1024
_CHUNK = 128  # states
_MOMENT_PAIRS = 300
_DIGITS = 4


@torch.inference_mode()
def reward_scales(shift: nn.Module, rewards: TokenRewards, seed: int = 0, *, title: str | None = None) -> torch.Tensor:
    """How strongly each principle steers on its own, before calibration.

    Args:
        shift: preference heads, or a dense head.
        rewards: over the cache from which states are drawn.
        seed: of the draw.
        title: of a progress bar; None for no bar.

    Returns:
        (K,) nats; (1,) for a head without principles.
    """
    names = shift.names if isinstance(shift, PreferenceHeads) else ()
    drawn = torch.randperm(len(rewards.cache), generator=torch.Generator().manual_seed(seed))[:_STATES]
    alone = torch.eye(len(names)) if names else torch.zeros(1, 0)
    scales = []
    with bar(title, total=len(alone) * len(drawn)) if title else nullcontext(Bar()) as progress:
        for weights in alone:
            spreads = []
            for part in drawn.split(_CHUNK):
                reference, personalised, _ = rewards.logits(shift, part, weights.expand(len(part), -1))
                spreads.append(spread(personalised - reference, reference))
                progress.advance(len(part))
            scales.append(strength(torch.cat(spreads)))
    return torch.stack(scales)


def normalise_heads(heads: PreferenceHeads, scales: torch.Tensor) -> torch.Tensor:
    """Bring each head to `equation.STRENGTH`; the factor is exact: among candidates rewards are linear in B_k.

    Args:
        heads: whose B_k are changed; one that rewards nothing stays.
        scales: (K,), from `reward_scales`.

    Returns:
        (K,) the factors.
    """
    factors = calibration_factor(scales)
    with torch.no_grad():
        heads.up.mul_(factors[:, None, None].to(heads.up))
    return factors


def global_scale(scales: torch.Tensor) -> float:
    """The factor that brings the root mean square of (K,) scales to `equation.STRENGTH`; 1 if none rewards."""
    return float(calibration_factor(strength(scales.square())))


def pair_moments(heads: PreferenceHeads, rewards: TokenRewards, pairs: PairTable) -> list[list[float]]:
    """(K, K) second moments of the pairs' margins, each principle alone, nats squared; for `pad learn`.

        M_kl = mean over pairs of d_k d_l,   d_k = R(e_k, chosen) - R(e_k, rejected)

    Moments about 0, since which answer was chosen is a question of the pair's preference.

    Args:
        heads: K of them.
        rewards: over the pairs' cache.
        pairs: of which a few hundred are drawn.
    """
    drawn = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:_MOMENT_PAIRS]
    table, margins = pairs.rows(drawn.tolist()), []
    with bar("Comparing heads", total=len(heads.names)) as progress:
        for weights in torch.eye(len(heads.names)):
            margins.append(score_pairs(heads, rewards, table, weights.expand(len(drawn), -1), 1.0).margins)
            progress.advance()
    table_of_margins = torch.stack(margins, dim=1).double()
    moments = table_of_margins.T @ table_of_margins / len(table_of_margins)
    return [[round(value, _DIGITS) for value in row] for row in moments.tolist()]
