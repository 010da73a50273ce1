"""Preference heads: the linear features of the reward model.

For K principles, head k is a low-rank map B_k A_k of the backbone's hidden state; a user's weights mix them:

    delta_p(h)  = sum_k w_pk B_k A_k h
    logits_p    = E (h + delta_p(h))            the paper's W_p h with W_p = I + sum_k w_pk B_k A_k
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class PreferenceHeads(nn.Module):
    """K low-rank heads of rank r on hidden size H; the identity at birth (B = 0).

    Args:
        names: the K principles, in the order of the weights.
        hidden_size: H.
        rank: r.
        seed: of the random A.
    """

    def __init__(self, names: Sequence[str], hidden_size: int, rank: int, seed: int = 0) -> None:
        super().__init__()
        self.names = tuple(names)
        self.rank = rank
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(len(self.names), rank, hidden_size, generator=generator) / hidden_size**0.5
        self.down = nn.Parameter(down)  # A (K, r, H)
        self.up = nn.Parameter(torch.zeros(len(self.names), hidden_size, rank))  # B (K, H, r)

    def forward(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The shift delta_p(h).

        Args:
            hidden: (N, H) hidden states.
            weights: (N, K) weights w_p, one row a state.

        Returns:
            (N, H), in the heads' number format.
        """
        return self.mixed(hidden, weights) @ self.up_rows

    def mixed(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """w_pk A_k h of every head: (N, K r), which `up_rows` maps to the shift."""
        count, rank, size = self.down.shape
        narrow = hidden.to(self.down.dtype) @ self.down.reshape(count * rank, size).T  # (N, K r)
        mixed = narrow.view(-1, count, rank) * weights.unsqueeze(-1).to(self.down.dtype)  # (N, K, r)
        return mixed.view(-1, count * rank)

    @property
    def up_rows(self) -> torch.Tensor:
        """All B_k side by side: (K r, H)."""
        return self.up.transpose(1, 2).reshape(-1, self.up.shape[1])
