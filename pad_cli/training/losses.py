"""The preference loss (paper, equation 8, with a likelihood anchor).

    -log sigmoid(beta * (sum_t r(chosen) - sum_t r(rejected))) + anchor * relu(-sum_t r(chosen))

The anchor keeps the personalised model from making the chosen answer less likely than the reference does.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid, relu


def preference_loss(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float, anchor: float) -> torch.Tensor:
    """Mean loss of a batch of pairs.

    Args:
        chosen: (B,), summed token rewards of the chosen answers, nats.
        rejected: (B,), of the rejected ones.
        beta: the loss temperature.
        anchor: weight of the likelihood anchor.
    """
    return (-logsigmoid(beta * (chosen - rejected)) + anchor * relu(-chosen)).mean()
