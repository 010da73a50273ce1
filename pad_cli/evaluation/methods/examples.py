"""Few-shot examples: answered prompts that stand before the question, each asking for its own preference in words."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pad_cli.errors import RecipeError
from pad_cli.pairs import load_pairs
from pad_cli.preference import Preference, expand_profiles, parse_preference, prompted
from pad_cli.profiles import profile_weights
from pad_cli.recipe import DataSettings
from pad_cli.records import BenchmarkItem, Messages, as_messages
from pad_cli.registry import PAIR_SOURCES
from pad_cli.system.runs import fingerprint

_FIELDS = {"prompt", "preference", "answer"}

Asked = frozenset[tuple[str, bool]]
"""A preference without its strengths: what is said of it, and whether it is wanted."""


@dataclass(frozen=True)
class Example:
    """An answer as it should be."""

    prompt: Messages
    preference: Preference
    answer: str

    def messages(self) -> Messages:
        """The conversation; a system message of its own is left out, since one cannot stand in the middle."""
        asked = tuple(message for message in self.prompt if message["role"] != "system")
        return (*prompted(asked, self.preference), {"role": "assistant", "content": self.answer})


class Examples(Protocol):
    """Where a question's examples come from."""

    @property
    def key(self) -> str:
        """Of everything that decides them."""

    def of(self, item: BenchmarkItem, preference: Preference) -> Sequence[Example]:
        """The examples to stand before an item, which asks for that preference."""


@dataclass(frozen=True)
class GivenExamples:
    """The same examples for every question."""

    examples: tuple[Example, ...]

    @property
    def key(self) -> str:
        return _key(self.examples)

    def of(self, item: BenchmarkItem, preference: Preference) -> Sequence[Example]:
        return self.examples


@dataclass(frozen=True)
class DrawnExamples:
    """Examples of the question's own preference, drawn for each question; else of the preferences nearest to it.

    Nearest are those with the fewest principles that one asks for and the other does not. The item's own prompt is
    never shown.

    Attributes:
        examples: all there are.
        shots: how many to draw.
        seed: of the draw.
    """

    examples: tuple[Example, ...]
    shots: int
    seed: int
    _tiers: dict[Asked, list[list[Example]]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @functools.cached_property
    def key(self) -> str:
        return fingerprint([_key(self.examples), self.shots, self.seed])

    def of(self, item: BenchmarkItem, preference: Preference) -> Sequence[Example]:
        rng, drawn = random.Random(f"{self.seed}/{item.id}"), list[Example]()
        for tier in self._nearest(asked_of(preference)):
            others = [example for example in tier if example.prompt != item.prompt]
            drawn += rng.sample(others, min(self.shots - len(drawn), len(others)))
            if len(drawn) == self.shots:
                break
        return drawn

    def _nearest(self, asked: Asked) -> list[list[Example]]:
        """The examples by their preference's distance from this one, nearest first."""
        if asked not in self._tiers:
            tiers: dict[int, list[Example]] = {}
            for others, examples in self._by_preference.items():
                tiers.setdefault(len(asked ^ others), []).extend(examples)
            self._tiers[asked] = [tiers[distance] for distance in sorted(tiers)]
        return self._tiers[asked]

    @functools.cached_property
    def _by_preference(self) -> dict[Asked, list[Example]]:
        found: dict[Asked, list[Example]] = {}
        for example in self.examples:
            found.setdefault(asked_of(example.preference), []).append(example)
        return found


def asked_of(preference: Preference) -> Asked:
    """What a preference asks for, however strongly."""
    return frozenset((text, weight > 0) for text, weight in [*preference.weights.items(), *preference.texts.items()])


def with_examples(conversation: Messages, examples: Sequence[Example]) -> Messages:
    """A conversation with examples before it, but after its system message."""
    start = next((place for place, message in enumerate(conversation) if message["role"] != "system"), 0)
    shown = [message for example in examples for message in example.messages()]
    return (*conversation[:start], *shown, *conversation[start:])


def read_examples(given: Sequence[Mapping[str, Any]], principles: Sequence[str]) -> GivenExamples:
    """Examples written in a recipe: `{prompt, preference, answer}` each, preferences as typed after `--pref`.

    Raises:
        RecipeError: one of them has another form.
        PreferenceError: one of the preferences cannot be understood.
    """
    examples = []
    for number, row in enumerate(given):
        if not isinstance(row, Mapping) or set(row) != _FIELDS or not all(row.values()):
            raise RecipeError(
                f"methods: options.examples.{number} is no example.", "Give each a prompt, a preference and an answer."
            )
        specs = [row["preference"]] if isinstance(row["preference"], str) else row["preference"]
        expanded = expand_profiles(specs, profile_weights, principles)
        preference = parse_preference(expanded, principles, accepts_text=True)
        examples.append(Example(as_messages(row["prompt"]), preference, str(row["answer"])))
    return GivenExamples(tuple(examples))


def draw_examples(location: str, principles: Sequence[str], shots: int, seed: int) -> DrawnExamples:
    """Examples from preference pairs: the chosen answers of the training pairs.

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
    pairs = load_pairs(settings, seed, principles).train
    distinct = {
        (fingerprint([pair.prompt, pair.preference, pair.texts]), pair.chosen): Example(
            pair.prompt, Preference(dict(pair.preference), dict(pair.texts)), pair.chosen
        )
        for pair in pairs
    }
    return DrawnExamples(tuple(distinct.values()), shots, seed)


def _key(examples: Sequence[Example]) -> str:
    return fingerprint([example.messages() for example in examples])
