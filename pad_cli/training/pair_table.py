"""Preference pairs as tensors: which cached answer is chosen, which rejected, under which weights."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.records import PreferencePair
from pad_cli.training.hidden_cache import Sequence_


class SequenceBook:
    """Numbers each distinct (prompt, answer) once; most answers occur in several pairs."""

    def __init__(self, tokenizer: Any, max_prompt_tokens: int, max_answer_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._limits = (max_prompt_tokens, max_answer_tokens)
        self._numbers: dict[tuple[Any, str], int] = {}
        self.sequences: list[Sequence_] = []
        self.cut_answers = 0

    def number(self, pair: PreferencePair, answer: str) -> int:
        key = (tuple((m["role"], m["content"]) for m in pair.prompt), answer)
        if key not in self._numbers:
            prompt = encode_prompt(self._tokenizer, pair.prompt, self._limits[0])
            tokens = encode_answer(self._tokenizer, answer)
            self.cut_answers += len(tokens) > self._limits[1]
            self._numbers[key] = len(self.sequences)
            self.sequences.append((tuple(prompt), tuple(tokens[: self._limits[1]])))
        return self._numbers[key]


@dataclass(frozen=True)
class PairTable:
    """N preference pairs.

    Attributes:
        chosen: (N,) numbers of answers.
        rejected: (N,).
        preferences: N maps of principle to weight.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    preferences: tuple[Mapping[str, float], ...]

    def __len__(self) -> int:
        return len(self.preferences)

    def weights(self, principles: Sequence[str]) -> torch.Tensor:
        """(N, K) weights of named principles."""
        table = torch.zeros(len(self), len(principles))
        place = {name: index for index, name in enumerate(principles)}
        for row, preference in zip(table, self.preferences, strict=True):
            for name, weight in preference.items():
                row[place[name]] = weight
        return table


def tabulate(pairs: Iterable[PreferencePair], book: SequenceBook, shuffle_seed: int | None = None) -> PairTable:
    """Number the answers of some pairs.

    Args:
        pairs: the pairs.
        book: takes in their answers.
        shuffle_seed: swap chosen and rejected at random (the shuffled-labels control).
    """
    rng = random.Random(shuffle_seed)
    chosen, rejected, preferences = [], [], []
    for pair in pairs:
        numbers = [book.number(pair, pair.chosen), book.number(pair, pair.rejected)]
        if shuffle_seed is not None and rng.random() < 0.5:
            numbers.reverse()
        chosen.append(numbers[0])
        rejected.append(numbers[1])
        preferences.append(pair.preference)
    return PairTable(torch.tensor(chosen), torch.tensor(rejected), tuple(preferences))
