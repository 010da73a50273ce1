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
from pad_cli.models.scoring import TokenSequence, corpus_of
from pad_cli.recipe import TrainRecipe
from pad_cli.records import Messages, PairData, PairSplit, PreferencePair
from pad_cli.system.processes import ALONE, Processes
from pad_cli.system.progress import note
from pad_cli.system.runs import hidden_states
from pad_cli.training.hidden_cache import HiddenStateExtractor, build_hidden_cache
from pad_cli.training.token_rewards import TokenRewards

_MANY = 0.2  # share of answers that were cut


class SequenceBook:
    """Numbers each distinct (prompt, answer) once; most answers occur in several pairs."""

    def __init__(self) -> None:
        self._first: dict[tuple[Any, str], tuple[int, PreferencePair]] = {}  # the number, and the pair that got it

    def number(self, pair: PreferencePair, answer: str) -> int:
        prompt = tuple((message["role"], message["content"]) for message in pair.prompt)
        return self._first.setdefault((prompt, answer), (len(self._first), pair))[0]

    @property
    def conversations(self) -> list[Messages]:
        """The prompt of each answer, in the order of their numbers."""
        return [pair.prompt for _, pair in self._first.values()]

    def tokenised(
        self, tokenizer: Any, max_prompt_tokens: int, max_answer_tokens: int, context_length: int | None = None
    ) -> tuple[list[TokenSequence], dict[str, float | int]]:
        """The sequences in the order of their numbers; and their lengths in tokens, how many were cut or changed.

        Prompts longer than `max_prompt_tokens` lose their beginning, answers their end. Of a backbone that reads no
        more than `context_length` tokens, prompts are cut so that `max_answer_tokens`, or half of it, can follow, and
        answers to what is then left.

        Raises:
            DataError: a prompt is empty, or the chat template refuses it.
        """
        prompt_limit = cut_to_context(context_length, max_prompt_tokens, max_answer_tokens)
        prompts: dict[Any, tuple[tuple[int, ...], int]] = {}  # cut, and the length before
        sequences: list[TokenSequence] = []
        whole: list[tuple[int, int]] = []  # lengths of each prompt and answer before they were cut
        systems_moved = beyond_context = 0
        for (key, text), (_, pair) in self._first.items():
            if key not in prompts:
                tokens = encode_prompt(tokenizer, pair.prompt, place=pair.place)
                prompts[key] = tuple(tokens[-prompt_limit:]), len(tokens)
                systems_moved += moves_system(tokenizer, pair.prompt)
            prompt, prompt_length = prompts[key]
            answer = encode_answer(tokenizer, text)
            left = room(context_length, len(prompt))
            limit = max_answer_tokens if left is None else min(left, max_answer_tokens)
            beyond_context += limit < min(len(answer), max_answer_tokens)
            sequences.append((prompt, tuple(answer[:limit])))
            whole.append((prompt_length, len(answer)))
        prompt_lengths, lengths = zip(*whole, strict=True)
        return sequences, {
            "answers": len(sequences),
            "answer_tokens": sum(len(answer) for _, answer in sequences),
            "answer_median": statistics.median(lengths),
            "answer_longest": max(lengths),
            "answers_cut": sum(length > len(read) for length, (_, read) in zip(lengths, sequences, strict=True)),
            "answer_limit": max_answer_tokens,
            "cut_to_context": beyond_context,  # answers that fit the recipe's limit, but not the backbone's
            "prompt_median": statistics.median(prompt_lengths),
            "prompt_longest": max(prompt_lengths),
            "prompts_cut": sum(length > prompt_limit for length in prompt_lengths),
            "prompt_limit": prompt_limit,
            "systems_moved": systems_moved,
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
    conversations: list[Messages]  # these prompts, uncut
    train: PairTable
    named: PairTable  # the training pairs that name only principles: these train heads
    validation: tuple[tuple[PairSplit, PairTable], ...]
    seed: int
    extractor: HiddenStateExtractor  # of the plain backbone
    lengths: Mapping[str, float | int]  # as from `SequenceBook.tokenised`
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
    book, seed = SequenceBook(), recipe.seed
    train = tabulate(data.train, book, seed if recipe.data.shuffle_labels else None)
    named = train.named()
    validation = tuple((split, tabulate(split.pairs, book)) for split in data.validation)
    limits = (recipe.data.max_prompt_tokens, recipe.data.max_answer_tokens, backbone.context_length)
    sequences, lengths = book.tokenised(backbone.tokenizer, *limits)
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
            "Warning: the chat template opens a reasoning block before every answer and cannot close it, so answers "
            "are trained as reasoning. Use a template that closes it (`enable_thinking`), or one without reasoning."
        )
    elif closes_thought(backbone.tokenizer):
        note("The chat template opens a reasoning block; it is closed before the answer (enable_thinking=False).")
    exact = backbone.vocabulary_size <= recipe.exact_vocabulary
    corpus = None if exact else corpus_of(sequences)
    dtype = getattr(torch, recipe.cache_dtype)
    extractor = HiddenStateExtractor(backbone, None, dtype, corpus, recipe.normaliser_tokens)
    head = backbone.head.float32("cpu")
    return TrainingData(
        backbone, head, sequences, book.conversations, train, named, validation, seed, extractor, lengths,
        hidden_states(),
    )  # fmt: skip
