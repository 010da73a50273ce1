"""Prompts x preferences: every prompt under each preference alone, under several at once, and under unseen ones.

The groups are those of the paper's tables: `single`, `pairs`, `triple` (then `4 at once` and so on), and `unseen`:
preferences that the reward model was not trained on, as the user of the benchmark says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from pad_cli.errors import RecipeError
from pad_cli.recipe import Settings, read_options
from pad_cli.records import BenchmarkItem, Messages

UNSEEN = "unseen"
_GROUPS = {1: "single", 2: "pairs", 3: "triple"}


def _as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _as_mapping(value: Any) -> Any:
    """Label to specification; a specification alone is its own label."""
    return value if isinstance(value, Mapping) else {spec: spec for spec in _as_list(value)}


_Given = Sequence[str] | Mapping[str, str]
_Specs = Annotated[dict[str, str], BeforeValidator(_as_mapping)]
_Sizes = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_as_list), Field(min_length=1)]


class Asked(Settings):
    """Under which preferences prompts are asked: options of every benchmark that is made of prompts."""

    preferences: _Specs = Field(
        description="One or several specifications as typed after `--pref`, or label to specification."
    )
    combine: _Sizes = Field(
        default_factory=lambda: [1],
        description="How many of them are asked for at once: 1, or [1, 2, 3] for singles, pairs and triples.",
    )
    unseen: _Specs = Field(
        default_factory=dict, description="Further preferences, each asked for alone, in a group of that name."
    )
    limit: int | None = Field(None, ge=0, description="Use the first so many distinct prompts.")


class Prompt(NamedTuple):
    """A prompt of a benchmark, and what scorers may want to know about it."""

    messages: Messages
    facts: Mapping[str, Any] = {}
    place: str = ""


def read_asked(benchmark: str, given: Mapping[str, Any], own: _Given | None = None) -> Asked:
    """The options of a benchmark that say under which preferences its prompts are asked.

    Args:
        benchmark: its name, for messages.
        given: the recipe's options.
        own: the preferences of the benchmark itself, asked alone, in pairs and in triples where none are given.

    Raises:
        RecipeError: they are wrong.
    """
    if own is not None and "preferences" not in given:
        given = {"preferences": own, "combine": [1, 2, 3], **given}
    return read_options(Asked, given, f"benchmark: options of '{benchmark}'", "See docs/evaluation.md for its options.")


def ask(
    name: str, prompts: Sequence[Prompt], asked: Asked, exclusive: Sequence[AbstractSet[str]] = ()
) -> list[BenchmarkItem]:
    """Every distinct prompt under every preference and combination; ids are the same from run to run.

    Args:
        name: the first part of the ids.
        prompts: a prompt that occurs twice is asked once.
        asked: the preferences.
        exclusive: sets of labels that exclude each other, and so are never combined.

    Raises:
        RecipeError: two preferences have one label, or fewer preferences are given than are combined.
    """
    chosen = distinct(prompts)[: asked.limit]
    return [
        BenchmarkItem(
            id=f"{name}/{'+'.join(labels)}/{number}",
            group=group,
            label="+".join(labels),
            prompt=prompt.messages,
            preference=specs,
            facts={**prompt.facts, "asked": list(labels)},
            place=prompt.place,
        )
        for group, labels, specs in _preferences(asked, exclusive)
        for number, prompt in enumerate(chosen)
    ]


def group_of(size: int) -> str:
    """The group of items that ask for so many preferences at once."""
    return _GROUPS.get(size, f"{size} at once")


def distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Each prompt once, where it first occurs."""
    found: dict[tuple[tuple[str, str], ...], Prompt] = {}
    for prompt in prompts:
        found.setdefault(_key(prompt.messages), prompt)
    return list(found.values())


def _preferences(
    asked: Asked, exclusive: Sequence[AbstractSet[str]]
) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Group, labels and specifications of everything that is asked for."""
    if twice := sorted(asked.preferences.keys() & asked.unseen.keys()):
        raise RecipeError(
            f"benchmark: '{twice[0]}' is in `preferences` and in `unseen`.", "Leave it out of one of them."
        )
    for size in dict.fromkeys(asked.combine):
        found = [
            labels
            for labels in combinations(asked.preferences, size)
            if all(len(alternatives & set(labels)) <= 1 for alternatives in exclusive)
        ]
        if not found:
            raise RecipeError(
                f"benchmark: no {size} of these preferences can be asked for at once: {', '.join(asked.preferences)}.",
                "Give more `preferences`, or smaller numbers in `combine`.",
            )
        for labels in found:
            yield group_of(size), labels, tuple(asked.preferences[label] for label in labels)
    for label, spec in asked.unseen.items():
        yield UNSEEN, (label,), (spec,)


def _key(messages: Messages) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)
