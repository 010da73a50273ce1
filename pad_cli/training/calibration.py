"""What guidance weight 1 means: the same strength for every reward model.

The loss temperature and the number of steps decide how large rewards grow, and what steers is how much they differ
between the tokens that compete. So a reward model's strength is the root mean square, over states and principles, of
the standard deviation of its rewards among the reference's likeliest tokens; decoding scales it to `STRENGTH`.
"""

from __future__ import annotations

import torch

from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LogitHead
from pad_cli.training.hidden_cache import HiddenCache

STRENGTH = 0.5
"""Nats, at guidance weight 1."""

_STATES = 1024
_CANDIDATES = 10


@torch.inference_mode()
def calibrate(heads: PreferenceHeads, head: LogitHead, cache: HiddenCache, seed: int) -> float:
    """The factor that brings a reward model to `STRENGTH`; 1 for heads that reward nothing.

    Args:
        heads: the trained preference heads.
        head: the backbone's unembedding.
        cache: where states are drawn from.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(cache.targets), generator=generator)[:_STATES]
    hidden = cache.hidden[drawn].float()
    candidates = torch.cat([head(part).topk(_CANDIDATES, dim=-1).indices for part in hidden.split(64)])
    spreads = []
    for weights in torch.eye(len(heads.names)):
        shift = heads(hidden, weights.expand(len(hidden), -1))
        spreads.append(head.change_at(hidden, shift, candidates).std(-1))
    strength = torch.stack(spreads).square().mean().sqrt().item()
    return STRENGTH / strength if strength > 0 else 1.0
