"""What the stages of a recipe train and are measured on: pairs as tensors, and cached states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from pad_cli.equation import LogitHead
from pad_cli.errors import DataError, PreferenceError
from pad_cli.models.adapter import Adapter
from pad_cli.models.chat_template import closes_thought, opens_thought
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompt_reward_model import conditioned
from pad_cli.preference import Preference
from pad_cli.recipe import TrainRecipe
from pad_cli.records import Messages, PairData, PairSplit, PreferencePair
from pad_cli.system.processes import ALONE, Processes
from pad_cli.system.progress import note
from pad_cli.system.runs import hidden_states
from pad_cli.training.hidden_cache import build_hidden_cache
from pad_cli.training.pair_table import PairTable, SequenceBook, plain_prompt, tabulate
from pad_cli.training.state_reader import StateReader
from pad_cli.training.token_rewards import TokenRewards

_CUT_WARNING = 0.2  # share of answers that were cut


@dataclass(frozen=True)
class Material:
    """Tabulated pairs and their backbone.

    Attributes:
        recipe: what is trained.
        backbone: the frozen language model.
        book: every distinct answer.
        train: the training pairs.
        validation: the splits and their pairs.
        head: the backbone's unembedding, float32, on the CPU.
    """

    recipe: TrainRecipe
    backbone: LanguageModel
    book: SequenceBook
    train: PairTable
    validation: tuple[tuple[PairSplit, PairTable], ...]
    head: LogitHead

    def rewards(self, adapter: Adapter | None, everyone: Processes = ALONE) -> TokenRewards:
        """Token rewards over the states that the backbone gives, through an adapter when there is one.

        Args:
            adapter: what the backbone reads through.
            everyone: who computes these states together.

        Raises:
            StorageError: the cache cannot be written.
        """
        recipe = self.recipe
        exact = self.backbone.vocabulary_size <= recipe.exact_vocabulary
        reader = StateReader(
            self.backbone,
            adapter,
            getattr(torch, recipe.cache_dtype),
            None if exact else self.book.corpus,
            recipe.normaliser_tokens,
        )
        cache = build_hidden_cache(self.book.sequences, reader, reader.key, hidden_states(), everyone)
        return TokenRewards(cache, self.head, exact, adapter is not None)


def gather_material(recipe: TrainRecipe, data: PairData, backbone: LanguageModel) -> Material:
    """Tabulate the pairs of a recipe.

    Raises:
        DataError: the chat template refuses a prompt; or, under `conditioning: prompt`, words cannot say a preference.
    """
    prompt_of: Callable[[PreferencePair], Messages] = plain_prompt
    if recipe.conditioning == "prompt":
        prompt_of = _conditioned_prompt
    limits = recipe.data.max_prompt_tokens, recipe.data.max_answer_tokens
    book = SequenceBook(backbone.tokenizer, *limits, prompt_of, backbone.context_length)
    train = tabulate(data.train, book, recipe.seed if recipe.data.shuffle_labels else None)
    validation = tuple((split, tabulate(split.pairs, book)) for split in data.validation)
    lengths = book.lengths()
    note(
        f"{len(train)} training pairs, {sum(len(table) for _, table in validation)} validation pairs, "
        f"{lengths['answers']} distinct answers ({lengths['answers_cut']} cut at {lengths['answer_limit']} tokens, "
        f"{lengths['prompts_cut']} prompts at {lengths['prompt_limit']})"
    )
    if lengths["systems_moved"]:
        note(f"{lengths['systems_moved']} distinct prompts have their system text in a user turn.")
    if opens_thought(backbone.tokenizer):
        note(
            "Warning: the chat template opens a thought before every answer and cannot close it, so answers are "
            "trained as thoughts. Use a chat template that closes it (`enable_thinking`), or one without thoughts."
        )
    elif closes_thought(backbone.tokenizer):
        note("The chat template opens a thought before every answer; it is closed first (enable_thinking=False).")
    by_recipe = lengths["answers_cut"] - book.cut_to_context
    if by_recipe > _CUT_WARNING * lengths["answers"]:
        note(
            f"Warning: {by_recipe / lengths['answers']:.0%} of the answers are cut (the longest has "
            f"{lengths['answer_longest']} tokens); data.max_answer_tokens sets the limit."
        )
    if (lengths["prompt_limit"] < recipe.data.max_prompt_tokens and lengths["prompts_cut"]) or book.cut_to_context:
        note(
            f"Warning: '{backbone.name}' reads at most {backbone.context_length} tokens: prompts keep their last "
            f"{lengths['prompt_limit']} ({lengths['prompts_cut']} were longer), and {book.cut_to_context} answers are "
            "cut to the rest."
        )
    return Material(recipe, backbone, book, train, validation, backbone.head.float32("cpu"))


def _conditioned_prompt(pair: PreferencePair) -> Messages:
    """The prompt with the preference in words; a principle of weight -1 is said as "not ..."."""
    try:
        return conditioned(pair.prompt, Preference({}, _words({**pair.preference, **pair.texts})))
    except PreferenceError as error:
        raise DataError(f"conditioning: prompt: {error.message}", hint=error.hint) from error


def _words(weights: Mapping[str, float]) -> dict[str, float]:
    """Principles as words; other weights than 1 and -1 stay, and are refused where words cannot carry them."""
    return {
        f"not {name}" if weight == -1 else name: 1.0 if weight == -1 else weight for name, weight in weights.items()
    }
