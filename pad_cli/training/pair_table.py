"""Preference pairs as tensors: which cached answer is chosen, which rejected, under which weights."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pad_cli.models.language_model import cut_to_context, room
from pad_cli.models.prompts import encode_answer, encode_prompt, moves_system
from pad_cli.models.scoring import TokenSequence
from pad_cli.records import Messages, PreferencePair


def plain_prompt(pair: PreferencePair) -> Messages:
    """The prompt without the preference: what a backbone with preference heads reads."""
    return pair.prompt


class SequenceBook:
    """Numbers each distinct (prompt, answer) once; most answers occur in several pairs.

    Args:
        tokenizer: the backbone's.
        max_prompt_tokens: longer prompts lose their beginning.
        max_answer_tokens: longer answers lose their end.
        prompt_of: what the backbone reads before a pair's answers.
        context_length: tokens of both that the backbone can read; None for any number. Prompts are cut so that
            `max_answer_tokens`, or half of it, can follow, and answers to what is then left.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_prompt_tokens: int,
        max_answer_tokens: int,
        prompt_of: Callable[[PreferencePair], Messages] = plain_prompt,
        context_length: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._context = context_length
        self._limits = (cut_to_context(context_length, max_prompt_tokens, max_answer_tokens), max_answer_tokens)
        self._prompt_of = prompt_of
        self._numbers: dict[tuple[Any, str], int] = {}
        self._prompts: dict[Any, tuple[tuple[int, ...], int]] = {}
        self._full: list[tuple[int, int]] = []  # lengths of each prompt and answer before they were cut
        self._moved = 0
        self.cut_to_context = 0  # answers that would fit the recipe's limit, but not the backbone's
        self.sequences: list[TokenSequence] = []

    def number(self, pair: PreferencePair, answer: str) -> int:
        messages = self._prompt_of(pair)
        spoken = tuple((message["role"], message["content"]) for message in messages)
        if (spoken, answer) not in self._numbers:
            if spoken not in self._prompts:
                whole = encode_prompt(self._tokenizer, messages, place=pair.place)
                self._moved += moves_system(self._tokenizer, messages)
                self._prompts[spoken] = tuple(whole[-self._limits[0] :]), len(whole)
            prompt, prompt_length = self._prompts[spoken]
            tokens = encode_answer(self._tokenizer, answer)
            self._numbers[spoken, answer] = len(self.sequences)
            self._full.append((prompt_length, len(tokens)))
            left = room(self._context, len(prompt))
            limit = self._limits[1] if left is None else min(left, self._limits[1])
            self.cut_to_context += left is not None and min(len(tokens), self._limits[1]) > left
            self.sequences.append((prompt, tuple(tokens[:limit])))
        return self._numbers[spoken, answer]

    @property
    def corpus(self) -> torch.Tensor:
        """(U,) sorted: every token that an answer uses."""
        return torch.tensor(sorted({token for _, answer in self.sequences for token in answer}))

    def lengths(self) -> dict[str, float | int]:
        """Statistics of the distinct (prompt, answer) sequences, in tokens; how many were cut or changed."""
        prompts, answers = zip(*self._full, strict=True)
        return {
            "answers": len(answers),
            "answer_tokens": sum(len(answer) for _, answer in self.sequences),
            "answer_median": statistics.median(answers),
            "answer_longest": max(answers),
            "answers_cut": sum(length > len(read) for length, (_, read) in zip(answers, self.sequences, strict=True)),
            "answer_limit": self._limits[1],
            "prompt_median": statistics.median(prompts),
            "prompt_longest": max(prompts),
            "prompts_cut": sum(length > self._limits[0] for length in prompts),
            "prompt_limit": self._limits[0],
            "systems_moved": self._moved,
        }


@dataclass(frozen=True)
class PairTable:
    """N preference pairs.

    Attributes:
        chosen: (N,) numbers of answers.
        rejected: (N,).
        preferences: N maps of principle to weight.
        texts: N maps of free text to weight; empty maps where the preference has names only.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    preferences: tuple[Mapping[str, float], ...]
    texts: tuple[Mapping[str, float], ...]

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

    def rows(self, numbers: Sequence[int]) -> PairTable:
        """Some of the pairs."""
        return PairTable(
            self.chosen[list(numbers)],
            self.rejected[list(numbers)],
            tuple(self.preferences[n] for n in numbers),
            tuple(self.texts[n] for n in numbers),
        )

    def named(self) -> PairTable:
        """The pairs whose preference has names only."""
        return self.rows([number for number, texts in enumerate(self.texts) if not texts])


def tabulate(pairs: Iterable[PreferencePair], book: SequenceBook, shuffle_seed: int | None = None) -> PairTable:
    """Number the answers of some pairs.

    Args:
        pairs: the pairs.
        book: takes in their answers.
        shuffle_seed: swap chosen and rejected at random (the shuffled-labels control).
    """
    rng = random.Random(shuffle_seed)
    chosen, rejected, preferences, texts = [], [], [], []
    for pair in pairs:
        numbers = [book.number(pair, pair.chosen), book.number(pair, pair.rejected)]
        if shuffle_seed is not None and rng.random() < 0.5:
            numbers.reverse()
        chosen.append(numbers[0])
        rejected.append(numbers[1])
        preferences.append(pair.preference)
        texts.append(pair.texts)
    return PairTable(
        torch.tensor(chosen, dtype=torch.long),
        torch.tensor(rejected, dtype=torch.long),
        tuple(preferences),
        tuple(texts),
    )
