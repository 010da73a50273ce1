"""How a transformers model is run, so that head(state) is the logit that its own `forward` gives.

Most models are run in one way: the decoder reads padded rows together, with position ids and a KV cache. Others keep a
state that padding would enter, count positions themselves, or put a layer between decoder and unembedding. A
`ForwardMode` says which of the exact ways a model takes; `forward_check.py` finds it out.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import DynamicCache

# Outputs of a forward pass that are also arguments of it, without being a memory of what was read.
_NO_MEMORY = ("logits", "loss", "hidden_states", "attentions", "last_hidden_state", "attention_mask")
_row_offset: ContextVar[int] = ContextVar("row_offset", default=0)


@dataclass(frozen=True)
class ForwardMode:
    """One exact way to run a model; the defaults are the fastest.

    Attributes:
        full_model: through the model's own `forward`, states being what enters the unembedding; else its decoder.
        positions: position ids are passed; else the model counts them itself.
        own_cache: the model makes its own cache; else it gets a `DynamicCache`.
        step_mask: a single new token is read with the mask of the whole past; else without a mask.
        batched: the rows of a batch are read in one forward pass, padded; else one after the other.
        cached: what was read is remembered; else it is read again for every new token.
        gaps: masked positions may stand between the tokens of a row, as speculative decoding leaves them.
    """

    full_model: bool = False
    positions: bool = True
    own_cache: bool = False
    step_mask: bool = True
    batched: bool = True
    cached: bool = True
    gaps: bool = True

    @property
    def can_roll_back(self) -> bool:
        """Is its memory a plain KV cache, from whose end tokens can be cut?"""
        return self.positions and self.step_mask and self.batched and self.cached and not self.own_cache

    @property
    def slower(self) -> str:
        """What it costs beside the fastest, in words; empty where nothing."""
        costs = [] if self.batched else ["row by row"]
        return " and ".join(costs if self.cached else [*costs, "from the beginning for every token"])


FASTEST = ForwardMode()


@dataclass
class Memory:
    """What a model remembers of the B rows that it read.

    Attributes:
        cache: the arguments that carry it from one forward pass to the next; None if the tokens are read again.
        started: whether something was read.
        tokens: (B, T) to be read again.
        rows: a memory for each row, where rows are read one after the other; None for one of all rows.
    """

    cache: dict[str, Any] | None
    started: bool = False
    tokens: torch.Tensor | None = None
    rows: list[Memory] | None = None

    def reorder_cache(self, rows: torch.Tensor) -> None:
        """Continue with the given rows only: their numbers (N,)."""
        self.cache = _select(self.cache, rows)
        self.tokens = _select(self.tokens, rows)
        if self.rows is not None:
            self.rows = [self.rows[row] for row in rows.tolist()]


class Body:
    """Tokens in, states out: a transformers causal language model without its unembedding."""

    def __init__(self, model: Any, mode: ForwardMode) -> None:
        self._model, self._mode = model, mode

    def memory(self) -> Memory:
        """An empty memory, for the first tokens of any number of rows."""
        return self._empty() if self._mode.batched else Memory(None, rows=[])

    def __call__(
        self, tokens: torch.Tensor, mask: torch.Tensor, memory: Memory | DynamicCache | None = None
    ) -> torch.Tensor:
        """Read new tokens (B, T), the last T of each row: (B, T, H) states; those of masked positions mean nothing.

        The mask (B, past + T) is 1 for real tokens; padding may stand on either side. A memory takes in the new tokens.
        """
        if isinstance(memory, DynamicCache):
            memory = Memory({self._cache_name: memory}, started=memory.get_seq_length() > 0)
        if self._mode.batched:
            return self._read(tokens, mask, mask, memory)
        memories: Sequence[Memory | None] = [None] * len(tokens)
        if memory is not None:
            memory.rows = memories = memory.rows or [self._empty() for _ in tokens]
        states: dict[int, torch.Tensor] = {}
        new = mask[:, -tokens.shape[1] :].bool()
        for row in range(len(tokens)):
            own = tokens[row, new[row]][None]
            if own.shape[1]:
                past = torch.ones(1, int(mask[row].sum()), dtype=mask.dtype, device=mask.device)
                offset = _row_offset.set(row)
                try:
                    states[row] = self._read(own, past, None, memories[row])[0]
                finally:
                    _row_offset.reset(offset)
        example = next(iter(states.values()))
        padded = example.new_zeros(*tokens.shape, example.shape[-1])
        for row, own_states in states.items():
            padded[row, new[row].to(padded.device)] = own_states
        return padded

    def _empty(self) -> Memory:
        if self._mode.own_cache or not self._mode.cached:
            return Memory({} if self._mode.cached else None)
        return Memory({self._cache_name: DynamicCache(config=self._model.config.get_text_config(decoder=True))})

    def _read(
        self, tokens: torch.Tensor, mask: torch.Tensor, passed_mask: torch.Tensor | None, memory: Memory | None
    ) -> torch.Tensor:
        """States of the new tokens (B, T), the mask of past and new ones being (B, past + T)."""
        count = tokens.shape[1]
        if memory is not None and memory.cache is None:
            tokens = tokens if memory.tokens is None else torch.cat([memory.tokens, tokens], dim=1)
            memory.tokens, memory = tokens, None
        inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": memory is not None}
        if memory is not None:
            inputs.update(memory.cache or {})
            if memory.started and tokens.shape[1] == 1 and not self._mode.step_mask:
                passed_mask = None
        if passed_mask is not None:
            inputs["attention_mask"] = passed_mask
        if self._mode.positions:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output, states = self._forward({name: value for name, value in inputs.items() if name in self._arguments})
        if memory is not None:
            memory.started = True
            if self._mode.own_cache:
                carried = [name for name in self._arguments if name in output and name not in _NO_MEMORY]
                memory.cache = {name: output[name] for name in carried if output[name] is not None}
        return states[:, -count:]

    def _forward(self, inputs: dict[str, Any]) -> tuple[Any, torch.Tensor]:
        if not self._mode.full_model:
            output = self._module(**inputs)
            return output, output.last_hidden_state
        entered: list[torch.Tensor] = []

        def record(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            entered.append(args[0])
            return (args[0][:, -1:], *args[1:])  # the product over the whole vocabulary is large

        hook = self._model.get_output_embeddings().register_forward_pre_hook(record)
        try:
            output = self._module(**inputs)
        finally:
            hook.remove()
        (states,) = entered
        return output, states

    @cached_property
    def _module(self) -> Any:
        return self._model if self._mode.full_model else self._model.get_decoder()

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(self._module.forward).parameters)

    @cached_property
    def _cache_name(self) -> str:
        """What the model calls its cache: transformers renamed it in 5.24."""
        return next((name for name in ("cache", "past_key_values") if name in self._arguments), "cache_params")


def first_row() -> int:
    """Where the rows of the present forward pass begin in the batch: the number of a row that is read alone, or 0."""
    return _row_offset.get()


def _select(value: Any, rows: torch.Tensor) -> Any:
    """The given rows of a cache, of a tensor (B, ...), or of dicts and lists of them."""
    if isinstance(value, torch.Tensor):
        return value.index_select(0, rows.to(value.device))
    if isinstance(value, dict):
        return {name: _select(part, rows) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_select(part, rows) for part in value)
    if value is not None:
        value.reorder_cache(rows)
    return value
