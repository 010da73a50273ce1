"""Benchmarks of a recipe, by their registered names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pad_cli.errors import DataError, RecipeError
from pad_cli.preference import expand_profiles
from pad_cli.profiles import profile_weights
from pad_cli.recipe import BenchmarkSettings, make_with
from pad_cli.records import BenchmarkItem
from pad_cli.registry import BENCHMARKS

_OF = ": "  # between a benchmark's name and its group


def load_benchmark(settings: BenchmarkSettings) -> list[BenchmarkItem]:
    """The items of a registered benchmark, at least one, with the weights of profiles in place of their names.

    So whatever is answered, scored or judged is stored under what was asked for then, not under what a profile says
    now. Whether the profiles belong to the reward model is checked where there is one (`profiles.check_profiles`).

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
    names: list[str] = []

    def weights(name: str) -> Mapping[str, float]:
        names.append(name)
        return profile_weights(name)

    preference = tuple(expand_profiles(item.preference, weights))
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
