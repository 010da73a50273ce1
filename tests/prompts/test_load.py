"""Several benchmarks in one recipe: their groups are told apart where they have the same names, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pad_cli.errors import RecipeError
from pad_cli.prompts import load_benchmark, load_benchmarks, own_group
from pad_cli.recipe import BenchmarkSettings
from pad_cli.records import BenchmarkItem
from pad_cli.registry import BENCHMARKS


@pytest.fixture
def other(tmp_path: Path) -> str:
    path = tmp_path / "other.jsonl"
    path.write_text('{"prompt": "Why?"}\n', encoding="utf-8")
    return str(path)


def jsonl(path: str, *, name: str = "", **options: Any) -> BenchmarkSettings:
    return BenchmarkSettings(benchmark="jsonl", name=name, options={"path": path, "preferences": ["x", "y"], **options})


SHIPPED = BenchmarkSettings(benchmark="prompts", options={"limit": 2})


def groups(items: list[BenchmarkItem]) -> set[str]:
    return {item.group for item in items}


def test_one_benchmark_keeps_its_groups_whatever_it_is_called(other: str) -> None:
    for name in ("", "mine"):
        settings = jsonl(other, name=name)
        assert load_benchmarks([settings]) == [load_benchmark(settings)]


def test_a_group_that_two_benchmarks_have_gets_their_names_and_the_others_stay(other: str) -> None:
    benchmarks = [SHIPPED, jsonl(other, name="mine", combine=[1, 2])]
    shipped, mine = load_benchmarks(benchmarks)
    assert groups(shipped) == {"prompts: single", "prompts: pairs", "triple"}
    assert groups(mine) == {"mine: single", "mine: pairs"}
    for found, settings in ((shipped, benchmarks[0]), (mine, benchmarks[1])):
        plain = load_benchmark(settings)
        assert [own_group(item) for item in found] == [item.group for item in plain]
        assert [item.id for item in found] == [item.id for item in plain]


def test_benchmarks_without_a_group_in_common_keep_theirs(other: str) -> None:
    alone, together = load_benchmarks([jsonl(other), jsonl(other, name="mine", combine=2)])
    assert (groups(alone), groups(together)) == ({"single"}, {"pairs"})


def test_two_of_one_name_have_to_be_named(other: str) -> None:
    with pytest.raises(RecipeError, match="2 are called 'jsonl'") as caught:
        load_benchmarks([jsonl(other), jsonl(other, combine=2)])
    assert "`name`" in caught.value.hint
    named, plain = load_benchmarks([jsonl(other, name="first"), jsonl(other)])
    assert (groups(named), groups(plain)) == ({"first: single"}, {"jsonl: single"})
    with pytest.raises(RecipeError, match="called 'first'"):
        load_benchmarks([jsonl(other, name="first"), jsonl(other, name="first"), SHIPPED])


def faulty() -> list[BenchmarkItem]:
    raise TypeError("a bug of the benchmark's own")


def test_a_bug_inside_a_benchmark_is_not_taken_for_a_wrong_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS.table, "faulty", f"{__name__}:faulty")
    with pytest.raises(TypeError, match="a bug of the benchmark's own"):
        load_benchmark(BenchmarkSettings(benchmark="faulty"))
    with pytest.raises(RecipeError, match=r"options of 'faulty'.*colour"):
        load_benchmark(BenchmarkSettings(benchmark="faulty", options={"colour": 1}))
