"""Benchmarks of a recipe by their registered names, and the grid that most are: prompts x preferences.

Every prompt is asked under each preference alone and under several at once. The groups are those of the paper's tables:
`single`, `pairs`, `triple`, then `4 at once` and so on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from pad_cli.errors import DataError, RecipeError
from pad_cli.preference import expand_profiles
from pad_cli.profiles import profile_weights
from pad_cli.recipe import BenchmarkSettings, Settings, make_with, read_options
from pad_cli.records import BenchmarkItem, Messages
from pad_cli.registry import BENCHMARKS

_OF = ": "  # between a benchmark's name and its group
_GROUPS = {1: "single", 2: "pairs", 3: "triple"}


def load_benchmark(settings: BenchmarkSettings) -> list[BenchmarkItem]:
    """The items of a registered benchmark, at least one, with the weights of profiles in place of their names.

    So whatever is answered, scored or judged is stored under what was asked for then, not under what a profile says
    now. Whether the profiles belong to the reward model is checked where there is one (`profiles.profile_weights`).

    Raises:
        RecipeError: it does not take these options.
        UsageError: there is no such benchmark.
        DataError: its files are wrong, a profile is, or it has no items.
        PreferenceError: there is no such profile.
    """
    items: list[BenchmarkItem] = make_with(
        BENCHMARKS.get(settings.benchmark),
        settings.options,
        f"benchmark: options of '{settings.benchmark}'",
        "See docs/evaluation.md for its options.",
    )
    if not items:
        raise DataError(f"the benchmark '{settings.benchmark}' holds no items", hint="Check its options.")
    return [_with_profiles(item) for item in items]


def _with_profiles(item: BenchmarkItem) -> BenchmarkItem:
    names: dict[str, Mapping[str, float]] = {}
    preference = tuple(expand_profiles(item.preference, lambda name: names.setdefault(name, profile_weights(name))))
    return replace(item, preference=preference, profiles=tuple(names)) if names else item


def load_benchmarks(recipe: Sequence[BenchmarkSettings]) -> list[list[BenchmarkItem]]:
    """The items of all benchmarks of a recipe; a group that several of them have becomes `NAME: GROUP`.

    Raises:
        RecipeError: one does not take its options, or two have the same name.
        UsageError, DataError: see `load_benchmark`.
    """
    benchmarks = [load_benchmark(settings) for settings in recipe]
    for name, count in Counter(each.label for each in recipe).items():
        if count > 1:
            hint = f"Give each a `name` of its own; groups that several have are then called `NAME{_OF}GROUP`."
            raise RecipeError(f"benchmarks: {count} are called '{name}'.", hint)
    owners = Counter(group for items in benchmarks for group in {item.group for item in items})
    return [
        [replace(item, group=f"{each.label}{_OF}{item.group}") if owners[item.group] > 1 else item for item in items]
        for each, items in zip(recipe, benchmarks, strict=True)
    ]


def own_group(item: BenchmarkItem) -> str:
    """An item's group as its benchmark calls it."""
    return item.group.rpartition(_OF)[2]


def _as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _as_mapping(value: Any) -> Any:
    """Label to specification; a specification alone is its own label."""
    return value if isinstance(value, Mapping) else {spec: spec for spec in _as_list(value)}


_Specs = Annotated[dict[str, str], BeforeValidator(_as_mapping)]
_Sizes = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_as_list), Field(min_length=1)]


class GridSettings(Settings):
    """Under which preferences prompts are asked: options of every benchmark that is made of prompts."""

    preferences: _Specs = Field(
        description="One or several specifications as typed after `--pref`, or label to specification."
    )
    combine: _Sizes = Field(
        default_factory=lambda: [1],
        description="How many of them are asked for at once: 1, or [1, 2, 3] for singles, pairs and triples.",
    )
    limit: int | None = Field(None, ge=0, description="Use the first so many distinct prompts.")


class Prompt(NamedTuple):
    """A prompt of a benchmark, and what scorers may want to know about it."""

    messages: Messages
    facts: Mapping[str, Any] = {}
    place: str = ""


def read_grid(benchmark: str, options: Mapping[str, Any]) -> GridSettings:
    """The grid among a benchmark's options."""
    hint = "See docs/evaluation.md for its options."
    return read_options(GridSettings, options, f"benchmark: options of '{benchmark}'", hint)


def grid_items(name: str, prompts: Sequence[Prompt], settings: GridSettings) -> list[BenchmarkItem]:
    """Every distinct prompt under every preference and combination; ids are the same from run to run."""
    chosen = distinct(prompts)[: settings.limit]
    items: list[BenchmarkItem] = []
    for size in dict.fromkeys(settings.combine):
        if size > len(settings.preferences):
            names = ", ".join(settings.preferences)
            raise RecipeError(
                f"benchmark: no {size} of these preferences can be asked for at once: {names}.",
                "Give more `preferences`, or smaller numbers in `combine`.",
            )
        for labels in combinations(settings.preferences, size):
            items += preference_items(name, chosen, labels, [settings.preferences[label] for label in labels])
    return items


def preference_items(
    name: str, prompts: Sequence[Prompt], labels: Sequence[str], specs: Sequence[str]
) -> list[BenchmarkItem]:
    """Prompts under one preference or combination, whose group is that of its size."""
    label, size = "+".join(labels), len(labels)
    return [
        BenchmarkItem(
            id=f"{name}/{label}/{number}",
            group=_GROUPS.get(size, f"{size} at once"),
            label=label,
            prompt=prompt.messages,
            preference=tuple(specs),
            facts={**prompt.facts, "asked": list(labels)},
            place=prompt.place,
        )
        for number, prompt in enumerate(prompts)
    ]


def distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Each prompt once, where it first occurs."""
    first: dict[tuple[tuple[str, str], ...], Prompt] = {}
    for prompt in prompts:
        first.setdefault(tuple((message["role"], message["content"]) for message in prompt.messages), prompt)
    return list(first.values())
