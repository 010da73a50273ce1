"""The data of a training run as tensors: numbered answers, pairs of them, and the weights of their preferences."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pad_cli.equation import LogitHead
from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel, cut_to_context, room
from pad_cli.models.prompts import closes_thought, encode_answer, encode_prompt, moves_system, opens_thought
from pad_cli.models.scoring import TokenSequence
from pad_cli.recipe import TrainRecipe
from pad_cli.records import PairData, PairSplit, PreferencePair
from pad_cli.system.processes import ALONE, Processes
from pad_cli.system.progress import note
from pad_cli.system.runs import hidden_states
from pad_cli.training.hidden_cache import HiddenStateExtractor, build_hidden_cache
from pad_cli.training.token_rewards import TokenRewards

_MANY = 0.2  # share of answers that were cut


class SequenceBook:
    """Numbers each distinct (prompt, answer) once; most answers occur in several pairs.

    Prompts longer than `max_prompt_tokens` lose their beginning, answers their end. Of a backbone that reads no more
    than `context_length` tokens, prompts are cut so that `max_answer_tokens`, or half of it, can follow, and answers to
    what is then left.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_prompt_tokens: int,
        max_answer_tokens: int,
        context_length: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._context = context_length
        self._limits = (cut_to_context(context_length, max_prompt_tokens, max_answer_tokens), max_answer_tokens)
        self._numbers: dict[tuple[Any, str], int] = {}
        self._prompts: dict[Any, tuple[tuple[int, ...], int]] = {}
        self._full: list[tuple[int, int]] = []  # lengths of each prompt and answer before they were cut
        self._moved = 0
        self._cut_to_context = 0  # answers that would fit the recipe's limit, but not the backbone's
        self.sequences: list[TokenSequence] = []

    def number(self, pair: PreferencePair, answer: str) -> int:
        messages = pair.prompt
        key = tuple((message["role"], message["content"]) for message in messages)
        if (key, answer) not in self._numbers:
            if key not in self._prompts:
                whole = encode_prompt(self._tokenizer, messages, place=pair.place)
                self._moved += moves_system(self._tokenizer, messages)
                self._prompts[key] = tuple(whole[-self._limits[0] :]), len(whole)
            prompt, prompt_length = self._prompts[key]
            tokens = encode_answer(self._tokenizer, answer)
            self._numbers[key, answer] = len(self.sequences)
            self._full.append((prompt_length, len(tokens)))
            left = room(self._context, len(prompt))
            limit = self._limits[1] if left is None else min(left, self._limits[1])
            self._cut_to_context += left is not None and min(len(tokens), self._limits[1]) > left
            self.sequences.append((prompt, tuple(tokens[:limit])))
        return self._numbers[key, answer]

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
            "cut_to_context": self._cut_to_context,
            "prompt_median": statistics.median(prompts),
            "prompt_longest": max(prompts),
            "prompts_cut": sum(length > self._limits[0] for length in prompts),
            "prompt_limit": self._limits[0],
            "systems_moved": self._moved,
        }


@dataclass(frozen=True)
class PairTable:
    """N preference pairs."""

    chosen: torch.Tensor  # (N,) numbers of answers
    rejected: torch.Tensor  # (N,)
    preferences: tuple[Mapping[str, float], ...]  # N maps of principle to weight
    texts: tuple[Mapping[str, float], ...]  # N maps of free text to weight; empty where the preference has names only

    def __len__(self) -> int:
        return len(self.preferences)

    def answers(self, batch: torch.Tensor) -> torch.Tensor:
        """(2 B,) indices of the answers of (B,) pairs: the chosen ones, then the rejected ones."""
        return torch.cat([self.chosen[batch], self.rejected[batch]])

    def weights(self, principles: Sequence[str]) -> torch.Tensor:
        """(N, K) weights of K principles; other names, and free text, have none."""
        rows = [[preference.get(name, 0.0) for name in principles] for preference in self.preferences]
        return torch.tensor(rows, dtype=torch.float32).view(len(self), len(principles))

    def rows(self, numbers: Sequence[int]) -> PairTable:
        """Some of the pairs."""
        preferences, texts = (tuple(each[n] for n in numbers) for each in (self.preferences, self.texts))
        return PairTable(self.chosen[list(numbers)], self.rejected[list(numbers)], preferences, texts)

    def named(self) -> PairTable:
        """The pairs whose preference has names only."""
        return self.rows([number for number, texts in enumerate(self.texts) if not texts])


def tabulate(pairs: Sequence[PreferencePair], book: SequenceBook, shuffle_seed: int | None = None) -> PairTable:
    """Number the answers of some pairs in a book; `shuffle_seed` swaps labels at random, as a control."""
    rng = random.Random(shuffle_seed)
    answers = []
    for pair in pairs:
        numbers = [book.number(pair, pair.chosen), book.number(pair, pair.rejected)]
        if shuffle_seed is not None and rng.random() < 0.5:
            numbers.reverse()
        answers.append(numbers)
    chosen, rejected = torch.tensor(answers, dtype=torch.long).view(-1, 2).unbind(1)
    return PairTable(
        chosen.clone(), rejected.clone(), tuple(pair.preference for pair in pairs), tuple(pair.texts for pair in pairs)
    )


@dataclass(frozen=True)
class TrainingData:
    """What the stages train and are measured on, and how states are cached (see `HiddenStateExtractor`)."""

    backbone: LanguageModel
    head: LogitHead  # the unembedding in float32, on the CPU
    sequences: list[TokenSequence]  # the distinct answers, cut, each with its prompt
    train: PairTable
    named: PairTable  # the training pairs that name only principles: these train heads
    validation: tuple[tuple[PairSplit, PairTable], ...]
    seed: int
    extractor: HiddenStateExtractor  # of the plain backbone
    lengths: Mapping[str, float | int]  # as from `SequenceBook.lengths`
    states: Path  # directory of cached states

    def rewards(self, adapter: Adapter | None, everyone: Processes = ALONE) -> TokenRewards:
        """Token rewards over the cached states of the backbone, through an adapter if there is one."""
        extractor = replace(self.extractor, adapter=adapter)
        cache = build_hidden_cache(self.sequences, extractor, self.states, everyone)
        return TokenRewards(cache, self.head, extractor.corpus is None, adapter is not None)


def gather_training_data(recipe: TrainRecipe, data: PairData, backbone: LanguageModel) -> TrainingData:
    """Tokenise and tabulate the pairs of a recipe; says what was cut or changed.

    Raises:
        DataError: the chat template refuses a prompt.
    """
    limits, seed = (recipe.data.max_prompt_tokens, recipe.data.max_answer_tokens), recipe.seed
    book = SequenceBook(backbone.tokenizer, *limits, backbone.context_length)
    train = tabulate(data.train, book, seed if recipe.data.shuffle_labels else None)
    validation = tuple((split, tabulate(split.pairs, book)) for split in data.validation)
    lengths = book.lengths()
    validated = sum(len(table) for _, table in validation)
    note(
        f"{len(train)} training pairs, {validated} validation pairs, "
        f"{lengths['answers']} distinct answers ({lengths['answers_cut']} cut at {lengths['answer_limit']} tokens, "
        f"{lengths['prompts_cut']} prompts at {lengths['prompt_limit']})"
    )
    if lengths["systems_moved"]:
        note(f"{lengths['systems_moved']} distinct prompts have their system text in a user turn.")
    if lengths["cut_to_context"] or lengths["answers_cut"] > _MANY * lengths["answers"]:
        note(
            f"Warning: {lengths['answers_cut'] / lengths['answers']:.0%} of the answers are cut (the longest has "
            f"{lengths['answer_longest']} tokens), {lengths['cut_to_context']} of them because the backbone reads no "
            "more; data.max_answer_tokens sets the limit."
        )
    if opens_thought(backbone.tokenizer):
        note(
            "Warning: the chat template opens a thought before every answer and cannot close it, so answers are "
            "trained as thoughts. Use a chat template that closes it (`enable_thinking`), or one without thoughts."
        )
    elif closes_thought(backbone.tokenizer):
        note("The chat template opens a thought before every answer; it is closed first (enable_thinking=False).")
    exact = backbone.vocabulary_size <= recipe.exact_vocabulary
    corpus = None if exact else book.corpus
    dtype = getattr(torch, recipe.cache_dtype)
    extractor = HiddenStateExtractor(backbone, None, dtype, corpus, recipe.normaliser_tokens)
    head = backbone.head.float32("cpu")
    return TrainingData(
        backbone, head, book.sequences, train, train.named(), validation, seed, extractor, lengths, hidden_states()
    )
