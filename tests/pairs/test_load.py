"""Splits, mixtures, limits and the report of what `load_pairs` gives."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import DataError, RecipeError, UsageError
from pad_cli.pairs import describe, load_pairs
from pad_cli.recipe import DataSettings, load_recipe
from pad_cli.records import PairData
from pad_cli.reports.document import plain_lines
from tests.pairs.conftest import Write, load, make_pair, texts_of


def rows(count: int, prompt: str = "q", name: str = "humorous") -> list[dict[str, Any]]:
    return [make_pair(f"{prompt} {number}", name, f"good {number}", "bad") for number in range(count)]


def test_files_become_training_and_named_validation_pairs(write: Write) -> None:
    train, dev = write(*rows(2), name="train.jsonl"), write(*rows(1, "r"), name="dev.jsonl")
    data = load(train, validation={"dev": str(dev)}, texts={"humorous": ["jokey"]})
    assert len(data.train) == 2
    assert [(split.name, [pair.chosen for pair in split.pairs]) for split in data.validation] == [("dev", ["good 0"])]
    assert data.texts == {"humorous": ("jokey",)}


def test_a_limit_draws_pairs_by_seed(write: Write) -> None:
    path = write(*rows(30))
    first, again, other = (load(path, seed, limit=10).train for seed in (1, 1, 2))
    assert first == again != other
    assert len({pair.chosen for pair in first}) == 10


def test_a_limit_above_the_number_of_pairs_takes_all_in_order(write: Write) -> None:
    assert [pair.chosen for pair in load(write(*rows(3)), limit=10).train] == ["good 0", "good 1", "good 2"]


def test_an_unknown_source_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        load_pairs(DataSettings(source="embeded"), seed=0)
    assert "Did you mean embedded?" in caught.value.hint


def test_an_unknown_option_of_a_source_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match=r"data\.options.*promts"):
        load_pairs(DataSettings(source="embedded", options={"promts": 3}), seed=0)


# mixtures


def counts(data: PairData) -> Counter[str]:
    return Counter(next(iter(pair.preference)) for pair in data.train)


def mixture(write: Write, *weights: float, seed: int = 0, size: int = 10) -> PairData:
    sources = [
        {"path": str(write(*rows(size, f"{n}", f"from {n}"), name=f"{n}.jsonl")), "weight": weight}
        for n, weight in enumerate(weights)
    ]
    return load(sources, seed)


def test_a_weight_repeats_or_thins_its_source(write: Write) -> None:
    data = mixture(write, 0.5, 2, 1, 2.3)
    assert counts(data) == {"from 0": 5, "from 1": 20, "from 2": 10, "from 3": 23}
    of_second = Counter(pair.chosen for pair in data.train if pair.preference == {"from 1": 1.0})
    assert set(of_second.values()) == {2}
    assert len({pair.chosen for pair in data.train if pair.preference == {"from 0": 1.0}}) == 5
    assert [source.weight for source in data.report.sources] == [0.5, 2, 1, 2.3]
    assert data.report.splits[0].pairs == len(data.train) == 58


def test_a_small_weight_keeps_a_pair(write: Write) -> None:
    assert counts(mixture(write, 0.001, 1)) == {"from 0": 1, "from 1": 10}


def test_a_mixture_is_decided_by_the_seed(write: Write) -> None:
    first, again, other = (mixture(write, 0.5, 1.5, seed=seed, size=20).train for seed in (1, 1, 2))
    assert first == again != other


@given(weight=st.floats(0.01, 5), size=st.integers(1, 30), seed=st.integers(0, 3))
def test_any_weight_is_deterministic_fair_and_nearly_exact(
    tmp_path_factory: pytest.TempPathFactory, weight: float, size: int, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "weighted.jsonl"
    path.write_text("\n".join(map(json.dumps, rows(size))))
    first, again = (load({"path": str(path), "weight": weight}, seed).train for _ in range(2))
    assert first == again
    assert len(first) == max(round(weight * size), 1) or abs(len(first) - weight * size) <= 0.5
    often = Counter(pair.chosen for pair in first)
    assert max(often.values()) - min(often[f"good {number}"] for number in range(size)) <= 1


# held-out prompts


def test_whole_prompts_are_held_out_by_seed(write: Write) -> None:
    paired = [make_pair(prompt, name, name, "x") for prompt in map(str, range(10)) for name in ("a", "b")]
    paired.append(make_pair(" 3 ", "a", "c", "x"))
    path = write(*paired)
    data = load(path, validation_share=0.3, contrast=False)
    (split,) = data.validation
    held = {pair.prompt[0]["content"].strip() for pair in split.pairs}
    assert split.name == "held_out"
    assert len(held) == 3
    assert not held & {pair.prompt[0]["content"].strip() for pair in data.train}
    assert len(data.train) + len(split.pairs) == len(paired)
    assert load(path, validation_share=0.3, contrast=False).train == data.train
    assert any(load(path, seed, validation_share=0.3, contrast=False).train != data.train for seed in range(1, 5))


def test_a_small_share_holds_out_a_prompt_and_a_single_prompt_cannot_be_split(write: Write) -> None:
    assert len(load(write(*rows(5)), validation_share=0.01).validation[0].pairs) == 1
    with pytest.raises(DataError, match="one prompt only"):
        load(write(make_pair("How?", "a", "A", "B"), make_pair("how?", "b", "B", "A")), validation_share=0.5)


def test_the_held_out_split_needs_its_name_for_itself(write: Write) -> None:
    dev = {"held_out": str(write(*rows(1, "r"), name="dev.jsonl"))}
    with pytest.raises(RecipeError, match="held_out"):
        load(write(*rows(5)), validation=dev, validation_share=0.1)
    assert load(write(*rows(5)), validation=dev).validation[0].name == "held_out"


def test_a_weight_does_not_touch_what_is_held_out(write: Write) -> None:
    data = load({"path": str(write(*rows(10))), "weight": 3}, validation_share=0.2)
    assert (len(data.train), len(data.validation[0].pairs)) == (24, 2)


# registered sources


def embedded(**data: Any) -> PairData:
    return load_pairs(DataSettings.model_validate({"source": "embedded", "options": {"prompts": 20}, **data}), seed=0)


def test_a_registered_source_is_taken_as_it_is_and_described() -> None:
    from pad_cli.world.writing import load_pairs as write_embedded

    made, data = write_embedded(seed=0, prompts=20), embedded()
    assert (data.train, data.validation, data.texts) == (made.train, made.validation, made.texts)
    assert [split.name for split in data.report.splits] == ["train", *(split.name for split in made.validation)]
    source = data.report.sources[0]
    assert (source.name, source.rows, source.pairs_kept) == ("embedded", 40, 40)


def test_a_registered_source_takes_further_validation_and_held_out_prompts(write: Write) -> None:
    dev = write(*rows(2), name="dev.jsonl")
    data = embedded(validation={"mine": str(dev)}, validation_share=0.1)
    assert [split.name for split in data.validation][-2:] == ["mine", "held_out"]
    assert len(data.train) + len(data.validation[-1].pairs) == 40


# the report


def test_the_report_counts_prompts_answers_lengths_and_preferences(write: Write) -> None:
    train = [
        make_pair("12345", "a", "long answer", "short"),
        make_pair("12345", "a", "short", "medium"),
        make_pair("123", "b", "same!", "equal"),
    ]
    (split,) = load(write(*train)).report.splits
    assert (split.name, split.pairs, split.prompts, split.answers) == ("train", 3, 2, 5)
    assert (split.mean_prompt, split.mean_answer) == (4.0, (11 + 5 + 6 + 5 + 5) / 5)
    a, b = split.preferences["a"], split.preferences["b"]
    assert (a.pairs, a.chosen_longer) == (2, 0.5)
    assert (b.pairs, b.chosen_longer) == (1, 0.5)
    assert list(split.preferences) == ["a", "b"]


def test_the_report_of_many_preferences_names_the_most_frequent(write: Write) -> None:
    many = [make_pair(f"q {n}", f"wish {n % 70}", "good", "bad") for n in range(70 + 10)]
    (split,) = load(write(*many), principles=[]).report.splits
    assert (len(split.preferences), split.more_preferences) == (64, 6)
    assert [entry.pairs for entry in split.preferences.values()] == [2] * 10 + [1] * 54


def test_the_report_is_json_and_its_tables_name_everything(write: Write) -> None:
    bad = make_pair("q 0", "humorous", "x", "x")
    dev = write(*rows(1, "r", "formal"), name="dev.jsonl")
    report = load(write(*rows(1500), bad), validation={"dev": str(dev)}).report
    content = json.loads(json.dumps(asdict(report)))
    assert content["sources"][0]["dropped"][0]["reason"] == "chosen equals rejected"
    tables = describe(report)
    assert all(len(row) == len(table.header) for table in tables for row in table.rows)
    text = "\n".join(plain_lines(tables))
    for part in ("pairs.jsonl", "dev", "humorous", "formal", "1,501", "1 pair", "chosen equals rejected", "jsonl:1501"):
        assert part in text


def test_tables_without_rows_are_left_out(write: Write) -> None:
    assert "Not used" not in [table.title for table in describe(load(write(*rows(1))).report)]


# the recipe's fields


RECIPE: dict[str, Any] = {
    "kind": "train-rm",
    "output": "o",
    "backbone": {"model": "b"},
    "stages": [{"stage": "heads", "steps": 1}],
}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"train": {"pth": "x"}}, "data.train.0.pth: no such key. Did you mean path"),
        ({"train": [{"path": "x", "wieght": 2}]}, "data.train.0.wieght: no such key. Did you mean weight"),
        ({"train": [{"path": "x"}, {"path": "y", "weight": 0}]}, "data.train.1.weight: "),
        ({"train": []}, "data.train: "),
        ({"train": 3}, "data.train.0: input should be a valid dictionary or instance of PairsSettings (found 3)"),
        ({"train": {"path": "x", "dataset": "y"}}, "data.train.0: give either `path` or `dataset`"),
        ({"train": {"path": "x", "split": "test"}}, "data.train.0: `split` belongs to a `dataset`"),
        ({"train": "x", "validation": {"dev": {"dataset": "y", "splt": "z"}}}, "data.validation.dev.splt: no such key"),
        (
            {"train": "x", "validation": {"dev": ["y"]}},
            "data.validation.dev: input should be a valid dictionary or instance of PairsSettings",
        ),
    ],
)
def test_a_problem_in_the_sources_is_one_line_with_the_key_as_typed(data: dict[str, Any], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe({**RECIPE, "data": data})
    assert "1 problem" in caught.value.message
    assert caught.value.message.splitlines()[1].startswith(f"  {line}")


@pytest.mark.parametrize("train", ["a.jsonl", {"path": "a.jsonl"}, [{"path": "a.jsonl"}, {"dataset": "b"}]])
def test_every_form_of_sources_is_written_and_read_back(train: Any) -> None:
    recipe = load_recipe({**RECIPE, "data": {"train": train, "validation": {"dev": "c", "more": {"path": "d"}}}})
    assert load_recipe(recipe.model_dump(exclude_unset=True)) == recipe


# formats and sources from outside

PLUGIN = """
from pad_cli.pairs import RawPair, Reading
from pad_cli.records import PairData, PreferencePair, as_messages

class Shouted:
    def __init__(self, *, name):
        self.name = name

    def read(self, rows):
        for row in rows:
            text = row.values["text"]
            prompt = as_messages("Say it.")
            yield Reading((row,), (RawPair(prompt, self.name, text.upper(), text),))

def ring(*, seed):
    pair = [PreferencePair(as_messages("How?"), {a: 1.0}, a.upper(), b.upper()) for a, b in ("ab", "bc", "ca")]
    return PairData(tuple(pair + pair[:1]), ())
"""


@pytest.fixture
def _plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "shouted-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouted\nVersion: 1.0\n")
    entries = {"pad.pair_formats": "shouted = shouted_plugin:Shouted", "pad.pair_sources": "ring = shouted_plugin:ring"}
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n{entry}\n" for group, entry in entries.items()))
    (tmp_path / "shouted_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_plugin")
def test_a_package_from_outside_adds_a_format(write: Write) -> None:
    source = {"path": str(write({"text": "ha"})), "format": "shouted", "options": {"name": "loud"}}
    assert texts_of(load(source)) == [("Say it.", "loud", "HA", "ha")]
    with pytest.raises(RecipeError, match=r"data\.train: options of the format 'shouted': .*nam"):
        load({**source, "options": {"nam": "loud"}})


@pytest.mark.usefixtures("_plugin")
def test_a_source_from_outside_is_neither_cleaned_nor_given_contrast_pairs() -> None:
    data = load_pairs(DataSettings(source="ring"), seed=0)
    assert texts_of(data) == [("How?", a, a.upper(), b.upper()) for a, b in ("ab", "bc", "ca", "ab")]
