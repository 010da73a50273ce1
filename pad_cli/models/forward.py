"""How a transformers model is run, so that head(state) is the logit that its own `forward` gives.

Most models are run in one way: the decoder reads padded rows together, with position ids and a KV cache. Others keep a
state that padding would enter, count positions themselves, or put a layer between decoder and unembedding. A
`ForwardMode` says which of the exact ways a model takes; `forward_check.py` finds it out.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import DynamicCache

# Outputs of a forward pass that are also arguments of it, without being a memory of what was read.
_NO_MEMORY = ("logits", "loss", "hidden_states", "attentions", "last_hidden_state", "attention_mask")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # of CUDA, the CPU's allocator, cuBLAS
_row_offset: ContextVar[int] = ContextVar("row_offset", default=0)


def is_out_of_memory(error: BaseException) -> bool:
    """Does an error say that memory is too small, a device's or the machine's?"""
    messages = any(message in str(error) for message in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and messages)


@dataclass(frozen=True)
class ForwardMode:
    """One exact way to run a model; the defaults are the fastest.

    Attributes:
        full_model: through the model's own `forward`, states being what enters the unembedding; else its decoder.
        positions: position ids are passed; else the model counts them itself.
        own_cache: the model makes its own cache; else it gets a `DynamicCache`.
        step_mask: a single new token is read with the mask of the whole past; else without a mask.
        alone: each row is read alone, and again from its first token for every new one; else in padded batches with a
            cache.
        gaps: masked positions may stand between the tokens of a row, as speculative decoding leaves them.
    """

    full_model: bool = False
    positions: bool = True
    own_cache: bool = False
    step_mask: bool = True
    alone: bool = False
    gaps: bool = True

    @property
    def can_roll_back(self) -> bool:
        """Is its memory a plain KV cache, from whose end tokens can be cut?"""
        return self.positions and self.step_mask and not self.alone and not self.own_cache


FASTEST = ForwardMode()


@dataclass
class Memory:
    """What a model remembers of the B rows that it read.

    Attributes:
        cache: the arguments that carry it from one forward pass to the next.
        started: whether something was read.
        rows: the tokens of each row, where rows are read alone.
    """

    cache: dict[str, Any] = field(default_factory=dict)
    started: bool = False
    rows: list[torch.Tensor] = field(default_factory=list)

    def reorder_cache(self, rows: torch.Tensor) -> None:
        """Continue with the given rows only: their numbers (N,)."""
        self.cache = _select(self.cache, rows)
        if self.rows:
            self.rows = [self.rows[row] for row in rows.tolist()]


class Body:
    """Tokens in, states out: a transformers causal language model without its unembedding."""

    def __init__(self, model: Any, mode: ForwardMode) -> None:
        self._model, self._mode = model, mode

    def memory(self) -> Memory:
        """An empty memory, for the first tokens of any number of rows."""
        if self._mode.own_cache or self._mode.alone:
            return Memory()
        return Memory({self._cache_name: DynamicCache(config=self._model.config.get_text_config(decoder=True))})

    def __call__(
        self, tokens: torch.Tensor, mask: torch.Tensor, memory: Memory | DynamicCache | None = None
    ) -> torch.Tensor:
        """Read new tokens (B, T), the last T of each row: (B, T, H) states; those of masked positions mean nothing.

        The mask (B, past + T) is 1 for real tokens; padding may stand on either side. A memory takes in the new tokens.
        """
        if isinstance(memory, DynamicCache):
            memory = Memory({self._cache_name: memory}, started=memory.get_seq_length() > 0)
        if self._mode.alone:
            return self._read_alone(tokens, mask, memory)
        inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": memory is not None, "attention_mask": mask}
        if memory is not None:
            inputs.update(memory.cache)
            if memory.started and tokens.shape[1] == 1 and not self._mode.step_mask:
                del inputs["attention_mask"]
        if self._mode.positions:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output, states = self._forward(inputs)
        if memory is not None:
            memory.started = True
            if self._mode.own_cache:
                carried = [name for name in self._arguments if name in output and name not in _NO_MEMORY]
                memory.cache = {name: output[name] for name in carried if output[name] is not None}
        return states

    def _read_alone(self, tokens: torch.Tensor, mask: torch.Tensor, memory: Memory | None) -> torch.Tensor:
        """As `__call__`, each row in its own forward pass without padding, mask and cache."""
        new = mask[:, -tokens.shape[1] :].bool()
        rows = [row[real] for row, real in zip(tokens, new, strict=True)]
        if memory is not None:
            rows = [torch.cat(parts) for parts in zip(memory.rows, rows, strict=True)] if memory.rows else rows
            memory.rows = rows
        states: dict[int, torch.Tensor] = {}
        for number, row in enumerate(rows):
            if new[number].any():
                positions = torch.arange(len(row), device=row.device)[None]
                inputs = {"input_ids": row[None], "use_cache": False}
                inputs.update({"position_ids": positions} if self._mode.positions else {})
                offset = _row_offset.set(number)
                try:
                    states[number] = self._forward(inputs)[1][0]
                finally:
                    _row_offset.reset(offset)
        example = next(iter(states.values()))
        padded = example.new_zeros(*tokens.shape, example.shape[-1])
        for number, own in states.items():
            real = new[number].to(padded.device)
            padded[number, real] = own[-int(real.sum()) :]
        return padded

    def _forward(self, inputs: dict[str, Any]) -> tuple[Any, torch.Tensor]:
        """What the model returns for those of the inputs that it knows, and its states."""
        inputs = {name: value for name, value in inputs.items() if name in self._arguments}
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
