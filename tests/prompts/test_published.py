"""The prompts of the paper's experiments, from files of the shapes in which they are published."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from pad_cli.errors import DataError, RecipeError
from pad_cli.preference import parse_preference
from pad_cli.prompts import load_benchmark
from pad_cli.prompts.prompt_sets import SOUPS, load_helpsteer2, load_psoups
from pad_cli.recipe import BenchmarkSettings

KOALA = [{"id": "0", "prompt": "How do I tune a piano?"}, {"id": "1", "prompt": "Name a river."}]


@pytest.fixture
def koala(tmp_path: Path) -> str:
    path = tmp_path / "koala.json"
    path.write_text(json.dumps(KOALA), encoding="utf-8")
    return str(path)


def test_psoups_asks_for_every_combination_that_does_not_contradict_itself(koala: str) -> None:
    items = load_benchmark(BenchmarkSettings(benchmark="psoups", options={"path": koala}))
    labels = {group: {item.label for item in items if item.group == group} for group in ("single", "pairs", "triple")}
    assert labels["single"] == set(SOUPS)
    assert len(labels["pairs"]) == 12
    assert labels["triple"] == {f"P1{e}+P2{i}+P3{s}" for e in "AB" for i in "AB" for s in "AB"}
    assert len(items) == 2 * (6 + 12 + 8)
    assert {item.prompt[0]["content"] for item in items} == {entry["prompt"] for entry in KOALA}


@pytest.mark.parametrize("label", list(SOUPS))
def test_each_of_its_preferences_is_read_as_one_free_text(label: str) -> None:
    found = parse_preference([SOUPS[label]], ["concise"], accepts_text=True)
    assert found.weights == {}
    assert list(found.texts.values()) == [1.0]


def test_psoups_takes_named_principles_under_its_labels(koala: str) -> None:
    given = {"P2A": "concise", "P2B": "not concise", "P3A": "humorous"}
    items = load_psoups(path=koala, preferences=given, combine=[2], limit=1)
    assert [(item.label, item.preference) for item in items] == [
        ("P2A+P3A", ("concise", "humorous")),
        ("P2B+P3A", ("not concise", "humorous")),
    ]


def test_psoups_takes_other_preferences(koala: str) -> None:
    items = load_psoups(path=koala, preferences=["helpful", "harmless"], combine=2, limit=1)
    assert [item.preference for item in items] == [("helpful", "harmless")]


def test_psoups_needs_its_file() -> None:
    with pytest.raises(RecipeError, match="'path' is missing"):
        load_benchmark(BenchmarkSettings(benchmark="psoups", options={"limit": 2}))


@pytest.mark.parametrize("content", ["", "[", '{"id": "x"}', "[1]", '[{"id": "0"}]', '[{"prompt": ""}]'])
def test_a_file_of_another_shape_is_a_data_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_psoups(path=str(path))
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_psoups(path=str(tmp_path / "none.json"))


@pytest.fixture
def helpsteer2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each prompt in two rows, one for each rated answer; the second is too long, the third has turns."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    prompts = ["Short?", "x" * 101, "Hello<extra_id_1>Assistant\nHi!\n<extra_id_1>User\nWhy?", "y" * 100, "Last."]
    rows = [{"prompt": prompt, "response": f"{n}"} for prompt in prompts for n in range(2)]
    datasets.DatasetDict({"validation": datasets.Dataset.from_list(rows)}).save_to_disk(tmp_path / "data")
    return str(tmp_path / "data")


def test_helpsteer2_keeps_short_prompts_and_every_second_row_of_them(helpsteer2: str) -> None:
    items = load_helpsteer2(dataset=helpsteer2, preferences=["concise"])
    assert [item.prompt[-1]["content"] for item in items] == ["Short?", "Why?", "y" * 100, "Last."]
    assert [len(item.prompt) for item in items] == [1, 3, 1, 1]
