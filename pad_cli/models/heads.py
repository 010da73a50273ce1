"""Preference heads: the linear features of the reward model.

For K principles, head k is a low-rank map B_k A_k of the backbone's hidden state; a user's weights mix them:

    logits_p = E (h + shift),  shift = sum_k w_pk B_k A_k h         the paper's W_p h with W_p = I + sum_k w_pk B_k A_k
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pad_cli.equation import mix_heads, shift


class PreferenceHeads(nn.Module):
    """K low-rank heads of rank r on hidden size H; the identity at initialisation (B = 0).

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
        """The shift of each state.

        Args:
            hidden: (N, H) hidden states.
            weights: (N, K) weights w_p, one row a state.

        Returns:
            (N, H), in the heads' dtype.
        """
        return shift(hidden, self.down, self.up, weights)

    def mixed(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """w_pk A_k h of every head: (N, K, r)."""
        return mix_heads(hidden, self.down, weights)

    @property
    def up_rows(self) -> torch.Tensor:
        """All B_k side by side: (K r, H)."""
        return self.up.transpose(1, 2).reshape(-1, self.up.shape[1])
