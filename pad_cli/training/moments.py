"""How the heads' rewards vary together over pairs, so that choices can be learned from in a basis where they do not."""

from __future__ import annotations

import torch

from pad_cli.models.heads import PreferenceHeads
from pad_cli.system.progress import bar
from pad_cli.training.metrics import score_pairs
from pad_cli.training.pair_table import PairTable
from pad_cli.training.token_rewards import TokenRewards

_PAIRS = 300
_DIGITS = 4


def pair_moments(heads: PreferenceHeads, rewards: TokenRewards, pairs: PairTable) -> list[list[float]]:
    """(K, K) second moments of the pairs' margins, each principle asked for alone, nats squared.

        M_kl = mean over pairs of d_k d_l,   d_k = R(e_k, chosen) - R(e_k, rejected)

    Moments about 0, since which answer was chosen is a question of the pair's preference.

    Args:
        heads: K of them.
        rewards: over the pairs' cache.
        pairs: of which a few hundred are drawn.
    """
    drawn = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:_PAIRS]
    table = pairs.rows(drawn.tolist())
    alone = torch.eye(len(heads.names))
    found = []
    with bar("Comparing heads", total=len(alone)) as progress:
        for each in alone:
            found.append(score_pairs(heads, rewards, table, each.expand(len(drawn), -1), 1.0).margins)
            progress.advance()
    margins = torch.stack(found, dim=1).double()
    return [[round(value, _DIGITS) for value in row] for row in (margins.T @ margins / len(margins)).tolist()]
