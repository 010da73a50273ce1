"""A model reading along: its KV cache, its mask, and the state after the last token of every row.

Rows of different length are left-padded and advance together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch

from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel


class Stream:
    """B rows that all advance by one token at a time.

    Args:
        model: the model that reads.
        tokens: (B, T) prompts.
        mask: (B, T), 1 for real tokens; padding stands on the left.
        adapter: LoRA weights for some of the rows.
        adapted_from: the first row that reads through the adapter.

    Attributes:
        tokens: (B, T) all that was read.
        hidden: (B, H) the state after the last token.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        *,
        adapter: Adapter | None = None,
        adapted_from: int = 0,
    ) -> None:
        self.model = model
        self.tokens = tokens
        self._mask = mask
        self._adapter, self._adapted_from = adapter, adapted_from
        self._cache = model.new_cache()
        self.hidden = self._read(tokens)

    @classmethod
    def of_prompts(
        cls,
        model: LanguageModel,
        prompts: Sequence[list[int]],
        *,
        adapter: Adapter | None = None,
        adapted_from: int = 0,
    ) -> Stream:
        """Pad B prompts of any length on the left, and read them."""
        tokens, mask = left_padded(model, prompts)
        return cls(model, tokens, mask, adapter=adapter, adapted_from=adapted_from)

    def push(self, tokens: torch.Tensor) -> None:
        """Read one more token (B,) in every row."""
        tokens = tokens[:, None].to(self.model.device)
        self.tokens = torch.cat([self.tokens, tokens], dim=1)
        self._mask = torch.cat([self._mask, torch.ones_like(tokens)], dim=1)
        self.hidden = self._read(tokens)

    def keep(self, rows: torch.Tensor, adapted_from: int = 0) -> None:
        """Continue with the given rows only, of which those from `adapted_from` read through the adapter."""
        rows = rows.cpu()  # an index on the CPU fits caches that are spread over devices
        self._cache.reorder_cache(rows)
        self.tokens, self._mask, self.hidden = self.tokens[rows], self._mask[rows], self.hidden[rows]
        self._adapted_from = adapted_from

    def _read(self, tokens: torch.Tensor) -> torch.Tensor:
        adapted = contextlib.nullcontext() if self._adapter is None else self._adapter.on_rows_from(self._adapted_from)
        with adapted:
            return self.model.hidden_states(tokens, self._mask, self._cache)[:, -1]


def left_padded(model: LanguageModel, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of any length as (B, T) tokens and their (B, T) mask, padded on the left."""
    length, pad = max(map(len, rows)), model.tokenizer.pad_token_id
    tokens = torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows], device=model.device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=model.device)
    return tokens, mask
