"""A model reading along in rows that advance by different numbers of tokens, and that can be taken back.

A KV cache has one length for all rows. So a row that reads less than the others, or whose last tokens are taken back,
keeps places in the cache that no later token may look at: the mask hides them, and positions skip them. Places that are
hidden in every row are cut off, so a single row never has any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from pad_cli.decoding.stream import left_padded
from pad_cli.models.language_model import LanguageModel


class RaggedStream:
    """B rows, each with its own length.

    Args:
        model: the model that reads.
        rows: B lists of token ids to begin with; any may be empty.
    """

    def __init__(self, model: LanguageModel, rows: Sequence[Sequence[int]]) -> None:
        self.model = model
        self._cache = DynamicCache()  # keeps all that was read in sliding-window layers too, so that it can be cut
        self._mask = torch.zeros(len(rows), 0, dtype=torch.long, device=model.device)
        if any(rows):
            self.read(rows)

    def read(self, blocks: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read the next tokens of every row, at least one in all.

        Returns:
            (B, T, H) states, T the longest block's length; a row's own are its last ones.
        """
        tokens, mask = left_padded(self.model, blocks)
        self._mask = torch.cat([self._mask, mask], dim=1)
        return self.model.hidden_states(tokens, self._mask, self._cache)

    def take_back(self, counts: Sequence[int]) -> None:
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
        index = torch.tensor(rows)  # an index on the CPU fits caches that are spread over devices
        self._cache.batch_select_indices(index)
        self._mask = self._mask[index]

    def fork(self, rows: Sequence[int]) -> RaggedStream:
        """A second stream that continues from the given rows; this one stays as it is."""
        other = RaggedStream(self.model, [[]] * len(rows))
        index = torch.tensor(rows)  # an index on the CPU fits caches that are spread over devices
        for layer in self._cache.layers:
            other._cache.update(layer.keys[index], layer.values[index], len(other._cache.layers))
        other._mask = self._mask[index]
        return other


def can_be_ragged(model: LanguageModel, rows: int) -> bool:
    """Can so many rows of a model advance by different numbers of tokens?

    A layer with a sliding window counts hidden places too, and so do some that know distances only: such a model takes
    one row. States that are more or less than a list of keys and values (Mamba and its like, layers that share them)
    cannot be taken back here at all.
    """
    if not model.forward_mode.can_roll_back or (rows > 1 and not model.forward_mode.gaps):
        return False
    layers = [type(layer) for layer in DynamicCache(config=model.model.config.get_text_config(decoder=True)).layers]
    return all(kind is DynamicLayer or (kind is DynamicSlidingWindowLayer and rows == 1) for kind in layers)
