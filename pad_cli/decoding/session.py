"""KV-cached sessions: a model reads rows token by token, and gives the state after every row's last token.

Rows of different length are padded on the left. In a `CachedSession` all rows advance together. In a `RollbackSession`
each advances by its own number of tokens, and tokens can be rolled back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import padded


class CachedSession:
    """B rows that all advance by one token at a time; those from `adapted_from` read through the adapter.

    Attributes:
        hidden: (B, H) the state after the last token.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[list[int]],
        *,
        adapter: Adapter | None = None,
        adapted_from: int = 0,
    ) -> None:
        self.model = model
        self._adapter, self._adapted_from = adapter, adapted_from
        self._cache = model.new_cache()
        tokens, self._mask = left_padded(model, prompts)
        self.hidden = self._read(tokens)

    def push(self, tokens: torch.Tensor) -> None:
        """Read one more token (B,) in every row."""
        tokens = tokens[:, None].to(self.model.device)
        self._mask = torch.cat([self._mask, torch.ones_like(tokens)], dim=1)
        self.hidden = self._read(tokens)

    def keep(self, rows: torch.Tensor, adapted_from: int = 0) -> None:
        """Continue with the given rows only, of which those from `adapted_from` read through the adapter."""
        rows = rows.cpu()  # an index on the CPU fits caches that are spread over devices
        self._cache.reorder_cache(rows)
        self._mask, self.hidden = self._mask[rows], self.hidden[rows]
        self._adapted_from = adapted_from

    def _read(self, tokens: torch.Tensor) -> torch.Tensor:
        adapted = contextlib.nullcontext() if self._adapter is None else self._adapter.on_rows_from(self._adapted_from)
        with adapted:
            return self.model.hidden_states(tokens, self._mask, self._cache)[:, -1]


class RollbackSession:
    """B rows, each with its own length.

    A KV cache has one length for all rows. So a row that reads less than the others, or whose last tokens are rolled
    back, leaves places in the cache that no later token may look at: the mask hides them, and positions skip them.
    Places that are hidden in every row are cut off, so a single row never has any.
    """

    def __init__(self, model: LanguageModel, rows: Sequence[Sequence[int]]) -> None:
        self.model = model
        self._cache = DynamicCache()  # keeps all that was read in sliding-window layers too, so that it can be cut
        self._mask = torch.zeros(len(rows), 0, dtype=torch.long, device=model.device)
        if any(rows):
            self.read(rows)

    def read(self, blocks: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read the next tokens of every row, at least one in all: (B, T, H) states; a row's own are its last ones."""
        tokens, mask = left_padded(self.model, blocks)
        self._mask = torch.cat([self._mask, mask], dim=1)
        return self.model.hidden_states(tokens, self._mask, self._cache)

    def rollback(self, counts: Sequence[int]) -> None:
        """Forget the last tokens of every row, each its own number of them."""
        from_the_end = self._mask.flip(1).cumsum(1).flip(1)  # 1 at a row's last real token, 2 at the one before
        limits = torch.tensor(counts, device=self._mask.device)[:, None]
        self._mask = self._mask * (from_the_end > limits)
        used = self._mask.any(0).nonzero()
        length = int(used[-1]) + 1 if len(used) else 0
        excess = self._mask.shape[1] - length
        if not length:
            self._cache = DynamicCache()  # one cropped to nothing would keep its number of rows
        elif excess:
            self._cache.crop(-excess)
        self._mask = self._mask[:, :length]

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with the given rows only, in the given order; a row may occur more than once."""
        index = torch.tensor(rows)
        self._cache.batch_select_indices(index)
        self._mask = self._mask[index]

    def fork(self, rows: Sequence[int]) -> RollbackSession:
        """A second session that continues from the given rows; this one stays as it is."""
        other = RollbackSession(self.model, [[]] * len(rows))
        index = torch.tensor(rows)
        for layer in self._cache.layers:
            other._cache.update(layer.keys[index], layer.values[index], len(other._cache.layers))
        other._mask = self._mask[index]
        return other


def left_padded(model: LanguageModel, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of any length as (B, T) tokens and their (B, T) mask, padded on the left."""
    tokens, mask = padded(rows, model.tokenizer.pad_token_id, left=True)
    return tokens.to(model.device), mask.to(model.device)


def can_roll_back(model: LanguageModel, rows: int) -> bool:
    """Can N rows of a model advance by different numbers of tokens?

    A layer with a sliding window counts hidden places too, and so do some that know distances only: such a model takes
    one row. States that are not plain lists of keys and values (Mamba, layers that share them) cannot be rolled back.
    """
    if not model.forward_mode.can_roll_back or (rows > 1 and not model.forward_mode.gaps):
        return False
    layers = [type(layer) for layer in DynamicCache(config=model.model.config.get_text_config(decoder=True)).layers]
    return all(kind is DynamicLayer or (kind is DynamicSlidingWindowLayer and rows == 1) for kind in layers)
