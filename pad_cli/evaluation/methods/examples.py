"""Few-shot examples: answered prompts before the question, each asking for its own preference in words."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pad_cli.errors import RecipeError
from pad_cli.pairs import load_pairs
from pad_cli.preference import Preference, expand_profiles, parse_preference, prompted
from pad_cli.profiles import profile_weights
from pad_cli.recipe import DataSettings
from pad_cli.records import BenchmarkItem, Messages, as_messages
from pad_cli.registry import PAIR_SOURCES
from pad_cli.system.runs import fingerprint

_FIELDS = {"prompt", "preference", "answer"}

Signs = frozenset[tuple[str, bool]]
"""A preference without its strengths: each name or text, and whether its weight is positive."""


@dataclass(frozen=True)
class Example:
    """An answer as it should be."""

    prompt: Messages
    preference: Preference
    answer: str

    def messages(self) -> Messages:
        """The conversation without its system message, which cannot be in the middle of another."""
        prompt = tuple(message for message in self.prompt if message["role"] != "system")
        return (*prompted(prompt, self.preference), {"role": "assistant", "content": self.answer})


@dataclass(frozen=True)
class Examples:
    """The examples of a method.

    Attributes:
        examples: all there are.
        shots: how many to draw for each question; None shows all.
        seed: of the draw.
    """

    examples: tuple[Example, ...]
    shots: int | None = None
    seed: int = 0

    @functools.cached_property
    def key(self) -> str:
        """Of everything that decides which examples are shown."""
        all_of_them = fingerprint([example.messages() for example in self.examples])
        return all_of_them if self.shots is None else fingerprint([all_of_them, self.shots, self.seed])

    def of(self, item: BenchmarkItem, preference: Preference) -> Sequence[Example]:
        """The examples to show before an item with that preference.

        They are drawn from those of the same preference, then from the nearest: those whose preference differs in the
        fewest principles. The item's own prompt is never shown.
        """
        if self.shots is None:
            return self.examples
        rng, drawn = random.Random(f"{self.seed}/{item.id}"), list[Example]()
        signs = _signs(preference)
        for distance in sorted({len(signs ^ others) for others in self._by_signs}):
            others = [
                example
                for other, examples in self._by_signs.items()
                if len(signs ^ other) == distance
                for example in examples
                if example.prompt != item.prompt
            ]
            drawn += rng.sample(others, min(self.shots - len(drawn), len(others)))
            if len(drawn) == self.shots:
                break
        return drawn

    @functools.cached_property
    def _by_signs(self) -> dict[Signs, list[Example]]:
        groups: dict[Signs, list[Example]] = {}
        for example in self.examples:
            groups.setdefault(_signs(example.preference), []).append(example)
        return groups


def _signs(preference: Preference) -> Signs:
    return frozenset((text, weight > 0) for text, weight in [*preference.weights.items(), *preference.texts.items()])


def with_examples(conversation: Messages, examples: Sequence[Example]) -> Messages:
    """A conversation with examples before it, but after its system message."""
    start = next((number for number, message in enumerate(conversation) if message["role"] != "system"), 0)
    messages = [message for example in examples for message in example.messages()]
    return (*conversation[:start], *messages, *conversation[start:])


def read_examples(rows: Sequence[Mapping[str, Any]], principles: Sequence[str]) -> Examples:
    """Examples of a recipe: `{prompt, preference, answer}` each, preferences as typed after `--pref`.

    Raises:
        RecipeError: one of them has another form.
        PreferenceError: one of the preferences cannot be understood.
    """
    examples = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or set(row) != _FIELDS or not all(row.values()):
            raise RecipeError(
                f"methods: options.examples.{number} is not an example.",
                "Give each a prompt, a preference and an answer.",
            )
        specs = [row["preference"]] if isinstance(row["preference"], str) else row["preference"]
        expanded = expand_profiles(specs, profile_weights, principles)
        preference = parse_preference(expanded, principles, accepts_text=True)
        examples.append(Example(as_messages(row["prompt"]), preference, str(row["answer"])))
    return Examples(tuple(examples))


def draw_examples(location: str, principles: Sequence[str], shots: int, seed: int) -> Examples:
    """Examples from preference pairs: the chosen answers of the training pairs, each once.

    Args:
        location: a registered source of pairs, or a JSONL file.
        principles: names that the file's preferences may use.
        shots: how many to draw for a question.
        seed: of the draw, and of the source.

    Raises:
        DataError, UsageError: see `load_pairs`.
    """
    registered = location in PAIR_SOURCES.names() and not Path(location).exists()
    settings = DataSettings(source=location) if registered else DataSettings(train=location, contrast=False)
    examples = {
        (fingerprint([pair.prompt, pair.preference, pair.texts]), pair.chosen): Example(
            pair.prompt, Preference(dict(pair.preference), dict(pair.texts)), pair.chosen
        )
        for pair in load_pairs(settings, seed, principles).train
    }
    return Examples(tuple(examples.values()), shots, seed)
