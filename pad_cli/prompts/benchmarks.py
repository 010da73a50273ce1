"""Benchmarks of a recipe by their registered names, and the grid that most are: prompts x preferences.

Every prompt is asked under each preference alone, under several at once, and under unseen ones. The groups are those of
the paper's tables: `single`, `pairs`, `triple` (then `4 at once` and so on), and `unseen`: preferences that the reward
model was not trained on, as the user of the benchmark says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
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
UNSEEN = "unseen"
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
        RecipeError: one does not take its options, or two of one name have a group in common.
        UsageError, DataError: see `load_benchmark`.
    """
    benchmarks = [load_benchmark(settings) for settings in recipe]
    groups = [dict.fromkeys(item.group for item in items) for items in benchmarks]
    owners = Counter(group for some in groups for group in some)
    full_names = Counter((each.label, group) for each, some in zip(recipe, groups, strict=True) for group in some)
    for (name, group), count in full_names.items():
        if count > 1:
            raise RecipeError(
                f"benchmarks: {count} are called '{name}' and have a group '{group}'; they would be one in the report.",
                f"Give each a `name` of its own; the groups are then called `NAME{_OF}{group}`.",
            )
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
    unseen: _Specs = Field(
        default_factory=dict, description="Further preferences, each asked for alone, in a group of that name."
    )
    limit: int | None = Field(None, ge=0, description="Use the first so many distinct prompts.")


class Prompt(NamedTuple):
    """A prompt of a benchmark, and what scorers may want to know about it."""

    messages: Messages
    facts: Mapping[str, Any] = {}
    place: str = ""


def read_grid(
    benchmark: str, options: Mapping[str, Any], own: Sequence[str] | Mapping[str, str] | None = None
) -> GridSettings:
    """The grid among a benchmark's options; by default its own preferences, alone, in pairs and in triples."""
    if own is not None and "preferences" not in options:
        options = {"preferences": own, "combine": [1, 2, 3], **options}
    hint = "See docs/evaluation.md for its options."
    return read_options(GridSettings, options, f"benchmark: options of '{benchmark}'", hint)


def grid_items(
    name: str, prompts: Sequence[Prompt], settings: GridSettings, exclusive: Sequence[AbstractSet[str]] = ()
) -> list[BenchmarkItem]:
    """Every distinct prompt under every preference and combination, except labels that exclude each other.

    Ids begin with the name, and are the same from run to run.
    """
    chosen = distinct(prompts)[: settings.limit]
    items: list[BenchmarkItem] = []
    for group, labels, specs in _combinations(settings, exclusive):
        items += preference_items(name, chosen, labels, specs, group)
    return items


def preference_items(
    name: str, prompts: Sequence[Prompt], labels: Sequence[str], specs: tuple[str, ...], group: str = ""
) -> list[BenchmarkItem]:
    """Prompts under one preference or combination; the group is by default that of its size."""
    label = "+".join(labels)
    return [
        BenchmarkItem(
            id=f"{name}/{label}/{number}",
            group=group or _group_of(len(labels)),
            label=label,
            prompt=prompt.messages,
            preference=specs,
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


def _group_of(size: int) -> str:
    return _GROUPS.get(size, f"{size} at once")


def _combinations(
    settings: GridSettings, exclusive: Sequence[AbstractSet[str]]
) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Group, labels and specifications of everything that is asked for."""
    if both := sorted(settings.preferences.keys() & settings.unseen.keys()):
        reason = f"benchmark: '{both[0]}' is in `preferences` and in `unseen`."
        raise RecipeError(reason, "Leave it out of one of them.")
    for size in dict.fromkeys(settings.combine):
        together = combinations(settings.preferences, size)
        allowed = [labels for labels in together if all(len(each & set(labels)) <= 1 for each in exclusive)]
        if not allowed:
            names = ", ".join(settings.preferences)
            raise RecipeError(
                f"benchmark: no {size} of these preferences can be asked for at once: {names}.",
                "Give more `preferences`, or smaller numbers in `combine`.",
            )
        for labels in allowed:
            yield _group_of(size), labels, tuple(settings.preferences[label] for label in labels)
    for label, spec in settings.unseen.items():
        yield UNSEEN, (label,), (spec,)
