"""`context_length`: how many tokens a language model can read, under whatever name its architecture has for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "max_target_positions",
    "n_ctx",
)
_TABLES = ("position_embeddings", "embed_positions", "wpe", "position_embedding")
_ALREADY_LONG = ("default", "llama3", "longrope")  # whose configuration tells the extended length


def context_length(model: Any) -> int | None:
    """Tokens of prompt and answer together that a transformers model can read.

    The configuration tells it, or the table of learned positions where that is smaller. Rotary positions that are
    scaled (YaRN, linear, dynamic) reach further than the length the model was first trained for.

    Returns:
        None where nothing limits it, as for recurrent models.
    """
    config = model.config.get_text_config(decoder=True)
    limits = [number for name in _NAMES if isinstance(number := getattr(config, name, None), int) and number > 0]
    longest = min(limits, default=None)
    if longest is not None:
        longest = max([longest, *(int(each) for each in _scaled(config, longest))])
    tables = list(_tables(model))
    return min([*tables, *([] if longest is None else [longest])], default=None)


def room(longest: int | None, prompt: int) -> int | None:
    """New tokens that may follow a prompt of so many tokens; None where nothing limits them."""
    return None if longest is None else longest - prompt


def cut_to_context(longest: int | None, max_prompt: int, max_answer: int) -> int:
    """How many tokens of a prompt to read at most, so that `max_answer` more, or half of all, can follow."""
    return max_prompt if longest is None else max(1, min(max_prompt, longest - min(max_answer, longest // 2)))


def _scaled(config: Any, longest: int) -> Iterator[float]:
    """Lengths that scaled rotary positions reach; some models have several kinds, for different layers."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(rope, Mapping):
        return
    for each in [rope, *(value for value in rope.values() if isinstance(value, Mapping))]:
        kind, factor = each.get("rope_type", "default"), each.get("factor")
        if kind not in _ALREADY_LONG and isinstance(factor, int | float) and factor > 1:
            yield factor * (each.get("original_max_position_embeddings") or longest)


def _tables(model: Any) -> Iterator[int]:
    """Rows of the tables of learned positions that a token can have."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _TABLES and isinstance(module, nn.Embedding):
            offset = getattr(module, "offset", None)  # OPT and its kin leave the first rows out
            if offset is None:
                offset = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts from behind it
            yield module.num_embeddings - offset
