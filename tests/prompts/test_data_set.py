"""Benchmarks from data sets by their columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from pad_cli.errors import DataError, RecipeError
from pad_cli.prompts import load_benchmark
from pad_cli.recipe import BenchmarkSettings
from pad_cli.records import BenchmarkItem

ROWS = [
    {"question": "One?", "topic": "a", "wish": "humorous", "wishes": ["humorous", "concise"]},
    {"question": "Two?", "topic": "b", "wish": "formal", "wishes": ["formal"]},
    {"question": "One?", "topic": "c", "wish": "formal", "wishes": ["humorous", "concise"]},
]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "questions")
    return str(tmp_path / "questions")


def load(directory: str, **options: Any) -> list[BenchmarkItem]:
    return load_benchmark(BenchmarkSettings(benchmark="dataset", options={"dataset": directory, **options}))


def test_the_prompts_of_a_column_are_asked_under_every_preference(directory: str) -> None:
    items = load(directory, prompt="question", preferences=["a", "b"], combine=[1, 2], facts=["topic"])
    assert [(item.label, item.prompt[0]["content"], item.facts["topic"]) for item in items] == [
        (label, *asked) for label in ("a", "b", "a+b") for asked in (("One?", "a"), ("Two?", "b"))
    ]
    assert items[0].id == "questions/a/0"


def test_each_prompt_can_be_asked_under_the_preference_of_its_row(directory: str) -> None:
    items = load(directory, prompt="question", preference="wish")
    assert [(item.preference, item.prompt[0]["content"]) for item in items] == [
        (("humorous",), "One?"),
        (("formal",), "Two?"),
        (("formal",), "One?"),
    ]
    assert {item.group for item in items} == {"single"}
    assert len({item.id for item in items}) == 3


def test_a_row_may_ask_for_several_at_once(directory: str) -> None:
    items = load(directory, prompt="question", preference="wishes", limit=1)
    assert [(item.group, item.label, item.facts["asked"]) for item in items] == [
        ("pairs", "humorous+concise", ["humorous", "concise"]),
        ("single", "formal", ["formal"]),
    ]


def test_a_part_of_a_split_can_be_named(directory: str) -> None:
    assert len(load(directory, prompt="question", preferences=["a"], split="train[1:2]")) == 1


@pytest.mark.parametrize("options", [{"prompt": "answer"}, {"facts": ["colour"]}, {"preference": "colour"}])
def test_a_missing_column_is_named_with_its_row(directory: str, options: dict[str, Any]) -> None:
    wanted = {"preferences": ["a"]} if "preference" not in options else {}
    with pytest.raises(DataError) as caught:
        load(directory, **{"prompt": "question", **wanted, **options})
    assert f"{directory}[0], field '" in caught.value.message


def test_one_preference_for_all_and_one_for_each_row_exclude_each_other(directory: str) -> None:
    with pytest.raises(RecipeError, match="exclude each other"):
        load(directory, prompt="question", preference="wish", preferences=["a"])


def test_wrong_options_are_named(directory: str) -> None:
    with pytest.raises(RecipeError, match="prompts: no such key"):
        load(directory, preferences=["a"], prompts="question")
    with pytest.raises(RecipeError, match="split"):
        load(directory, preferences=["a"], split=3)


def test_a_data_set_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be loaded"):
        load(str(tmp_path / "none"), preferences=["a"])
