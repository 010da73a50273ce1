"""Prompts x preferences: which are asked for together, in which group, and under which id."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import RecipeError
from pad_cli.prompts.benchmarks import Prompt, distinct, grid_items, read_grid
from pad_cli.records import BenchmarkItem, as_messages

PROMPTS = [Prompt(as_messages(text), {"topic": text}) for text in ("One?", "Two?", "One?", "Three?")]


def items_of(**asked: Any) -> list[BenchmarkItem]:
    return grid_items("set", PROMPTS, read_grid("test", asked))


def groups_of(items: list[BenchmarkItem]) -> list[tuple[str, str, tuple[str, ...]]]:
    return list(dict.fromkeys((item.group, item.label, item.preference) for item in items))


def test_without_combining_each_preference_is_asked_for_alone() -> None:
    assert groups_of(items_of(preferences=["a", "b"])) == [("single", "a", ("a",)), ("single", "b", ("b",))]


def test_singles_pairs_and_triples_are_all_subsets_of_that_size() -> None:
    assert groups_of(items_of(preferences=["a", "b", "c"], combine=[1, 2, 3])) == [
        ("single", "a", ("a",)),
        ("single", "b", ("b",)),
        ("single", "c", ("c",)),
        ("pairs", "a+b", ("a", "b")),
        ("pairs", "a+c", ("a", "c")),
        ("pairs", "b+c", ("b", "c")),
        ("triple", "a+b+c", ("a", "b", "c")),
    ]


def test_more_than_three_at_once_have_a_group_of_their_own() -> None:
    assert groups_of(items_of(preferences=list("abcd"), combine=4)) == [("4 at once", "a+b+c+d", ("a", "b", "c", "d"))]


def test_labels_stand_for_specifications_alone_and_combined() -> None:
    items = items_of(preferences={"short": "concise=2", "stiff": "formal, not casual"}, combine=[2])
    assert groups_of(items) == [("pairs", "short+stiff", ("concise=2", "formal, not casual"))]
    assert items[0].facts["asked"] == ["short", "stiff"]


def test_each_prompt_is_asked_once_with_its_facts() -> None:
    items = items_of(preferences=["a"])
    assert [item.prompt[0]["content"] for item in items] == ["One?", "Two?", "Three?"]
    assert [item.facts for item in items] == [{"topic": t, "asked": ["a"]} for t in ("One?", "Two?", "Three?")]


def test_a_limit_counts_distinct_prompts() -> None:
    assert [item.prompt[0]["content"] for item in items_of(preferences=["a"], limit=2)] == ["One?", "Two?"]


@given(st.lists(st.sampled_from("abcdef"), min_size=3, max_size=6, unique=True), st.sets(st.integers(1, 3), min_size=1))
def test_ids_are_unique_and_the_same_from_run_to_run(preferences: list[str], sizes: set[int]) -> None:
    first, again = (items_of(preferences=preferences, combine=sorted(sizes)) for _ in range(2))
    assert [item.id for item in first] == [item.id for item in again]
    assert len({item.id for item in first}) == len(first)


def test_an_id_does_not_depend_on_what_else_is_asked() -> None:
    alone = {item.id: item for item in items_of(preferences=["b"], limit=1)}
    among = {item.id: item for item in items_of(preferences=["a", "b", "c"], combine=[1, 2])}
    assert {key: among[key] for key in alone} == alone


@pytest.mark.parametrize("asked", [{"preferences": ["a"], "combine": 2}, {"preferences": []}])
def test_too_few_preferences_to_combine_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="can be asked for at once"):
        items_of(**asked)


def test_a_conversation_and_its_last_message_are_two_prompts() -> None:
    turns = Prompt(({"role": "system", "content": "Hi"}, {"role": "user", "content": "One?"}))
    assert distinct([turns, PROMPTS[0], turns]) == [turns, PROMPTS[0]]
