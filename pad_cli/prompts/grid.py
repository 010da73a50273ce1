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
    return [
        item
        for group, labels, specs in _combinations(settings, exclusive)
        for item in preference_items(name, chosen, labels, specs, group)
    ]


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
        allowed = [
            labels
            for labels in combinations(settings.preferences, size)
            if all(len(alternatives & set(labels)) <= 1 for alternatives in exclusive)
        ]
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
