"""The trainable parts that shift a hidden state: low-rank preference heads, or one dense head.

logits_p = E (h + shift)
heads    shift = sum_k w_pk B_k A_k h     the paper's W_p h with W_p = I + sum_k w_pk B_k A_k
dense    shift = W h + b - h              the form that PAD's authors released
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pad_cli.equation import mix_heads, shift


class PreferenceHeads(nn.Module):
    """K low-rank heads, one for each name, of rank r on hidden size H; the identity at initialisation (B = 0)."""

    def __init__(self, names: Sequence[str], hidden_size: int, rank: int, seed: int = 0) -> None:
        super().__init__()
        self.names = tuple(names)
        self.rank = rank
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(len(self.names), rank, hidden_size, generator=generator) / hidden_size**0.5
        self.down = nn.Parameter(down)  # A (K, r, H)
        self.up = nn.Parameter(torch.zeros(len(self.names), hidden_size, rank))  # B (K, H, r)

    def forward(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(N, H) hidden states and (N, K) weights w_p, one row a state, to the (N, H) shift, in the heads' dtype."""
        return shift(hidden, self.down, self.up, weights)

    def mixed(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """w_pk A_k h of every head: (N, K, r)."""
        return mix_heads(hidden, self.down, weights)

    @property
    def up_rows(self) -> torch.Tensor:
        """All B_k side by side: (K r, H)."""
        return self.up.transpose(1, 2).reshape(-1, self.up.shape[1])


class DenseHead(nn.Module):
    """One map of the state for every preference, on hidden size H; the identity at initialisation."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, hidden_size)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(hidden_size))
            self.linear.bias.zero_()

    def forward(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(N, H) states to their (N, H) shift, in the head's dtype; the weights are ignored."""
        return dense_shift(self.linear, hidden)


def dense_shift(linear: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    """W h + b - h of (N, H) states: (N, H), in the dtype of W."""
    wide = hidden.to(linear.weight.dtype)
    shift: torch.Tensor = linear(wide) - wide
    return shift
