"""The preference encoder `w_p = g(text)`: free text to weights (training stage `encoder`).

The backbone reads the text as an instruction ("Write in this style: ..."); its hidden state where the answer would
begin says what it expects to write, and a small network turns that state into weights of the principles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.preference import instruction
from pad_cli.records import as_messages


class PreferenceEncoder(nn.Module):
    """A two-layer network from a text's state (H) to weights (K).

    Args:
        hidden_size: H of the backbone.
        width: of the hidden layer.
        principles: K.
        dropout: on the input and the hidden layer, in training only.
    """

    def __init__(self, hidden_size: int, width: int, principles: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.register_buffer("spread", torch.ones(hidden_size))
        self.network = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(hidden_size, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, principles),
        )

    mean: torch.Tensor
    spread: torch.Tensor

    def standardise(self, states: torch.Tensor) -> None:
        """Take mean and spread of the training texts' states (N, H)."""
        self.mean.copy_(states.mean(0))
        self.spread.copy_(states.std(0, correction=0).clamp(min=1e-4))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(N, H) states of texts to (N, K) weights."""
        weights: torch.Tensor = self.network((states.to(self.mean.dtype) - self.mean) / self.spread)
        return weights


@torch.inference_mode()
def text_states(backbone: LanguageModel, texts: Sequence[str], batch_size: int = 64) -> torch.Tensor:
    """The backbone's state after reading each text as an instruction: (N, H) in float32 on the CPU."""
    prompts = [encode_prompt(backbone.tokenizer, as_messages(instruction(text))) for text in texts]
    states = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        length = max(map(len, batch))
        pad = backbone.tokenizer.pad_token_id
        tokens = torch.tensor([[pad] * (length - len(p)) + p for p in batch], device=backbone.device)
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in batch], device=backbone.device)
        states.append(backbone.hidden_states(tokens, mask)[:, -1].float().cpu())
    return torch.cat(states)
