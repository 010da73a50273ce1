"""How the body of a transformers model is read, so that head(state) is the logit that its own `forward` gives.

Most bodies are read in one way: the decoder reads padded rows together, with position ids and a KV cache. Others keep
a state that padding would enter, count positions themselves, or put a layer between decoder and unembedding. A
`Reading` says which of the exact ways a model takes; `reading_check.py` finds it out.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from transformers import DynamicCache

_row_offset: ContextVar[int] = ContextVar("row_offset", default=0)
# What a forward pass both gives and takes, without being a memory of what it read.
_NO_MEMORY = ("logits", "loss", "hidden_states", "attentions", "last_hidden_state", "attention_mask")


@dataclass(frozen=True)
class Reading:
    """One exact way to read a model; the defaults are the fastest.

    Attributes:
        whole: through the model's own `forward`, states being what enters the unembedding; else through its decoder.
        positions: position ids are given; else the model counts them itself.
        own_cache: the model makes its own cache; else it gets a `DynamicCache`.
        step_mask: a single new token is read with the mask of the whole past; else without a mask.
        together: the rows of a batch are read in one forward pass, padded; else one after the other.
        cached: what was read is remembered; else it is read again for every new token.
        holes: masked places may stand between the tokens of a row, as speculative decoding leaves them.
    """

    whole: bool = False
    positions: bool = True
    own_cache: bool = False
    step_mask: bool = True
    together: bool = True
    cached: bool = True
    holes: bool = True

    @property
    def rewinds(self) -> bool:
        """Is what it remembers a plain KV cache, from whose end tokens can be cut?"""
        return self.positions and self.step_mask and self.together and self.cached and not self.own_cache

    @property
    def slower(self) -> str:
        """What it costs beside the fastest, in words; empty where nothing."""
        costs = [] if self.together else ["row by row"]
        return " and ".join(costs if self.cached else [*costs, "from the beginning for every token"])


FASTEST = Reading()


class Memory(Protocol):
    """What a model remembers of the B rows that it read."""

    def reorder_cache(self, rows: torch.Tensor) -> None:
        """Continue with the given rows only: their numbers (N,)."""


@dataclass
class Kept:
    """The arguments that carry a model's memory from one forward pass to the next."""

    arguments: dict[str, Any]
    started: bool = False

    def reorder_cache(self, rows: torch.Tensor) -> None:
        self.arguments = {name: _selected(value, rows) for name, value in self.arguments.items()}


@dataclass
class Reread:
    """The tokens (B, T) themselves; None before the first."""

    tokens: torch.Tensor | None = None

    def reorder_cache(self, rows: torch.Tensor) -> None:
        if self.tokens is not None:
            self.tokens = self.tokens[rows.to(self.tokens.device)]


@dataclass
class Apart:
    """A memory for each row."""

    rows: list[Kept | Reread] = field(default_factory=list)

    def reorder_cache(self, rows: torch.Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]


class Body:
    """Tokens in, states out.

    Args:
        model: a transformers causal language model.
        reading: how to read it.
    """

    def __init__(self, model: Any, reading: Reading) -> None:
        self._model = model
        self._reading = reading

    def memory(self) -> Kept | Reread | Apart:
        """An empty memory, for the first tokens of any number of rows."""
        return self._row_memory() if self._reading.together else Apart()

    def __call__(self, tokens: torch.Tensor, mask: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """Read new tokens.

        Args:
            tokens: (B, T) token ids, the last T of each row.
            mask: (B, past + T), 1 for real tokens; padding may stand on either side.
            memory: of the past when given, and then takes in the new tokens; from `memory`, or a `DynamicCache`.

        Returns:
            (B, T, H) states; those of masked places mean nothing.
        """
        if isinstance(memory, DynamicCache):
            memory = Kept({self._cache_name: memory}, started=memory.get_seq_length() > 0)
        if self._reading.together:
            return self._read(tokens, mask, mask, memory)
        return self._read_apart(tokens, mask, memory)

    def _row_memory(self) -> Kept | Reread:
        if not self._reading.cached:
            return Reread()
        if self._reading.own_cache:
            return Kept({})
        return Kept({self._cache_name: DynamicCache(config=self._model.config.get_text_config(decoder=True))})

    def _read_apart(self, tokens: torch.Tensor, mask: torch.Tensor, memory: Memory | None) -> torch.Tensor:
        assert memory is None or isinstance(memory, Apart)
        if memory is not None and not memory.rows:
            memory.rows = [self._row_memory() for _ in tokens]
        states: dict[int, torch.Tensor] = {}
        new = mask[:, -tokens.shape[1] :].bool()
        for row in range(len(tokens)):
            own = tokens[row, new[row]][None]
            if own.shape[1]:
                so_far = torch.ones(1, int(mask[row].sum()), dtype=mask.dtype, device=mask.device)
                with _row(row):
                    states[row] = self._read(own, so_far, None, None if memory is None else memory.rows[row])[0]
        example = next(iter(states.values()))
        placed = example.new_zeros(*tokens.shape, example.shape[-1])
        for row, found in states.items():
            placed[row, new[row].to(placed.device)] = found
        return placed

    def _read(
        self, tokens: torch.Tensor, mask: torch.Tensor, given_mask: torch.Tensor | None, memory: Memory | None
    ) -> torch.Tensor:
        """States of the new tokens (B, T), the mask of past and new ones being (B, past + T)."""
        count = tokens.shape[1]
        if isinstance(memory, Reread):
            tokens = memory.tokens = tokens if memory.tokens is None else torch.cat([memory.tokens, tokens], dim=1)
            memory = None
        assert memory is None or isinstance(memory, Kept)
        inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": memory is not None}
        if memory is not None:
            inputs.update(memory.arguments)
            if memory.started and tokens.shape[1] == 1 and not self._reading.step_mask:
                given_mask = None
        if given_mask is not None:
            inputs["attention_mask"] = given_mask
        if self._reading.positions:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output, states = self._forward({name: value for name, value in inputs.items() if name in self._arguments})
        if memory is not None:
            memory.started = True
            if self._reading.own_cache:
                memory.arguments = {name: output[name] for name in self._arguments if _carries(output, name)}
        return states[:, -count:]

    def _forward(self, inputs: dict[str, Any]) -> tuple[Any, torch.Tensor]:
        if not self._reading.whole:
            output = self._module(**inputs)
            return output, output.last_hidden_state
        with _entering(self._model.get_output_embeddings()) as entered:
            output = self._module(**inputs)
        (states,) = entered
        return output, states

    @cached_property
    def _module(self) -> Any:
        return self._model if self._reading.whole else self._model.get_decoder()

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(self._module.forward).parameters)

    @cached_property
    def _cache_name(self) -> str:
        """What the model calls its cache: transformers renamed it in 5.24."""
        return next((name for name in ("cache", "past_key_values") if name in self._arguments), "cache_params")


def first_row() -> int:
    """The number of the row that is read alone, or 0: where the rows of the present forward pass begin in the batch."""
    return _row_offset.get()


@contextmanager
def _row(number: int) -> Iterator[None]:
    token = _row_offset.set(number)
    try:
        yield
    finally:
        _row_offset.reset(token)


@contextmanager
def _entering(unembedding: torch.nn.Module) -> Iterator[Sequence[torch.Tensor]]:
    """Inside, what enters the unembedding is listed, and only its last place goes on: the product over V is large."""
    entered: list[torch.Tensor] = []

    def see(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        entered.append(inputs[0])
        return (inputs[0][:, -1:], *inputs[1:])

    hook = unembedding.register_forward_pre_hook(see)
    try:
        yield entered
    finally:
        hook.remove()


def _carries(output: Any, name: str) -> bool:
    return name not in _NO_MEMORY and name in output and output[name] is not None


def _selected(value: Any, rows: torch.Tensor) -> Any:
    """The given rows of a cache, of a tensor (B, ...), or of lists of them."""
    if isinstance(value, torch.Tensor):
        return value.index_select(0, rows.to(value.device))
    if isinstance(value, list | tuple):
        return type(value)(_selected(part, rows) for part in value)
    value.reorder_cache(rows)
    return value
