"""How good a reward model is on preference pairs.

pair_accuracy    share of pairs whose chosen answer has the higher summed reward
margin           mean difference of the sums, nats
policy_accuracy  share of pairs whose chosen answer the guided distribution finds likelier, per token, at guidance
                 weight 1; unlike pair accuracy it predicts steering (arXiv 2512.23067)
"""

from __future__ import annotations

import torch

from pad_cli.models.heads import PreferenceHeads
from pad_cli.training.pair_table import PairTable
from pad_cli.training.token_rewards import TokenRewards

_CHUNK = 64  # pairs


@torch.inference_mode()
def measure(
    heads: PreferenceHeads, rewards: TokenRewards, pairs: PairTable, weights: torch.Tensor, calibration: float
) -> dict[str, float]:
    """Metrics of one split.

    Args:
        heads: the preference heads.
        rewards: over the split's cache.
        pairs: N pairs.
        weights: (N, K), their preferences' weights.
        calibration: what guidance weight 1 multiplies rewards by.
    """
    sums, guided = [], []
    for start in range(0, len(pairs), _CHUNK):
        batch = torch.arange(start, min(start + _CHUNK, len(pairs)))
        answers = torch.cat([pairs.chosen[batch], pairs.rejected[batch]])
        positions, owners = rewards.cache.positions(answers)
        rows = torch.cat([weights[batch], weights[batch]])[owners]
        reference, personalised, realised = rewards.logits(heads, positions, rows)
        reward = _at(personalised.log_softmax(-1) - reference.log_softmax(-1), realised)
        steered = reference + calibration * (personalised - reference).masked_fill(reference == -torch.inf, 0)
        lengths = torch.zeros(len(answers)).index_add(0, owners, torch.ones(len(owners)))
        sums.append(torch.zeros(len(answers)).index_add(0, owners, reward).view(2, -1))
        likelihood = torch.zeros(len(answers)).index_add(0, owners, _at(steered.log_softmax(-1), realised))
        guided.append((likelihood / lengths).view(2, -1))
    summed, likely = torch.cat(sums, dim=1), torch.cat(guided, dim=1)
    return {
        "pairs": len(pairs),
        "pair_accuracy": round((summed[0] > summed[1]).float().mean().item(), 4),
        "margin": round((summed[0] - summed[1]).mean().item(), 4),
        "policy_accuracy": round((likely[0] > likely[1]).float().mean().item(), 4),
    }


def _at(table: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return table.gather(1, places[:, None])[:, 0]
