"""Benchmarks from files, a user's and our own: every distinct prompt under every preference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import DataError, RecipeError
from pad_cli.prompts import load_benchmark, load_jsonl
from pad_cli.prompts.prompt_sets import load_shipped
from pad_cli.recipe import BenchmarkSettings
from pad_cli.registry import BENCHMARKS


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def three_prompts(tmp_path: Path) -> str:
    conversation = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "One?"}]
    return write(tmp_path / "p.jsonl", {"prompt": "One?"}, {"prompt": conversation}, {"prompt": "Two?", "more": 1})


def test_every_prompt_is_asked_under_every_preference(three_prompts: str) -> None:
    items = load_jsonl(path=three_prompts, preferences=["humorous", "not formal"])
    assert len(items) == 6
    assert {item.preference for item in items} == {("humorous",), ("not formal",)}
    for spec in ("humorous", "not formal"):
        asked = [item.prompt for item in items if item.label == spec]
        assert [prompt[-1]["content"] for prompt in asked] == ["One?", "One?", "Two?"]
        assert [len(prompt) for prompt in asked] == [1, 2, 1]


def test_ids_are_unique_and_stable(three_prompts: str) -> None:
    first, again = (load_jsonl(path=three_prompts, preferences=["a", "b"]) for _ in range(2))
    assert [item.id for item in first] == [item.id for item in again]
    assert len({item.id for item in first}) == len(first)


def test_a_mapping_of_preferences_gives_each_its_label(three_prompts: str) -> None:
    items = load_jsonl(path=three_prompts, preferences={"short": "concise=2, not formal"}, limit=1)
    assert [(item.label, item.preference, item.facts["asked"]) for item in items] == [
        ("short", ("concise=2, not formal",), ["short"])
    ]


def test_a_prompt_that_occurs_twice_is_asked_once(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "A?"}, {"prompt": "B?"}, {"prompt": "A?"})
    items = load_jsonl(path=path, preferences=["x"])
    assert [item.prompt[0]["content"] for item in items] == ["A?", "B?"]


def test_a_limit_takes_the_first_distinct_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *({"prompt": text} for text in "AABC"))
    assert [item.prompt[0]["content"] for item in load_jsonl(path=path, preferences=["x"], limit=2)] == ["A", "B"]


def test_the_registry_knows_it_as_jsonl_and_by_its_former_name() -> None:
    assert BENCHMARKS.get("jsonl") is BENCHMARKS.get("psoups") is load_jsonl


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preferences": "x", "limit": -1}, "limit: "),
        ({"preferences": "x", "limit": "ten"}, "found 'ten'"),
        ({"preferences": "x", "limits": 1}, "Did you mean limit"),
        ({"preferences": {"x": 1}}, "preferences"),
        ({"preferences": "x", "combine": 0}, "combine"),
        ({"preferences": "x", "combine": []}, "combine"),
        ({}, "preferences: is missing"),
    ],
)
def test_a_wrong_option_is_named(three_prompts: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        load_benchmark(BenchmarkSettings(benchmark="jsonl", options={"path": three_prompts, **options}))
    assert caught.value.hint


@pytest.mark.parametrize("name", ["helpful-harmless-humorous", "expert-informative-creative"])
def test_our_prompts_are_asked_for_their_three_principles_alone_in_pairs_and_together(name: str) -> None:
    first, second, third = name.split("-")
    items = load_benchmark(BenchmarkSettings(benchmark="prompts", options={"name": name}))
    asked = {(item.group, item.preference) for item in items}
    assert asked == {
        ("single", (first,)),
        ("single", (second,)),
        ("single", (third,)),
        ("pairs", (first, second)),
        ("pairs", (first, third)),
        ("pairs", (second, third)),
        ("triple", (first, second, third)),
    }
    prompts = [item.prompt[0]["content"] for item in items]
    assert len(prompts) == 7 * 60
    assert len(set(prompts)) == 60
    assert all(10 < len(prompt) < 160 and prompt[-1] in ".?" for prompt in prompts)


def test_the_two_sets_of_our_prompts_have_no_prompt_in_common() -> None:
    sets = [
        {item.prompt[0]["content"] for item in load_shipped(name=name)}
        for name in ("helpful-harmless-humorous", "expert-informative-creative")
    ]
    assert sets[0].isdisjoint(sets[1])


def test_our_prompts_can_be_asked_under_other_preferences() -> None:
    items = load_shipped(preferences=["formal"], limit=2)
    assert [(item.group, item.label) for item in items] == [("single", "formal")] * 2


def test_unknown_prompts_name_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="helpful-humorous") as caught:
        load_shipped(name="helpful-humorous")
    assert "helpful-harmless-humorous" in caught.value.hint


@pytest.mark.parametrize("prompt", [None, "", " ", 3, [], [{}], [{"role": "user"}], {"role": "user", "content": "x"}])
def test_a_bad_prompt_names_file_line_and_field(tmp_path: Path, prompt: Any) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "good"}, {"prompt": prompt})
    with pytest.raises(DataError) as caught:
        load_jsonl(path=path, preferences=["x"])
    assert (caught.value.path, caught.value.line, caught.value.field) == (path, 2, "prompt")


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_jsonl(path=str(tmp_path / "missing"), preferences=["x"])


def test_a_file_without_prompts_is_a_data_error(tmp_path: Path) -> None:
    """Else an evaluation would end well and report nothing."""
    with pytest.raises(DataError, match="no rows"):
        load_jsonl(path=write(tmp_path / "empty.jsonl"), preferences=["x"])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content"]), inner),
    max_leaves=8,
)


@given(st.lists(st.fixed_dictionaries({"prompt": _json}) | _json, min_size=1, max_size=3))
def test_any_json_is_read_or_is_a_data_error(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.jsonl", *rows)
    try:
        items = load_jsonl(path=path, preferences=["x", "y"])
    except DataError as error:
        assert error.path.startswith(path)  # noqa: PT017  # not every example raises it
        assert error.line <= len(rows)  # noqa: PT017  # not every example raises it
    else:
        assert 2 <= len(items) <= 2 * len(rows)
        assert all(item.prompt for item in items)
