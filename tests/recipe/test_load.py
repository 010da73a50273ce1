"""Recipes are checked before anything runs, and all problems are told at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import RecipeError
from pad_cli.recipe import (
    EvalRecipe,
    ReproduceRecipe,
    SweepRecipe,
    TrainRecipe,
    find_recipe,
    load_recipe,
    read_recipe,
    shipped_recipes,
)
from pad_cli.registry import BENCHMARKS, METHODS, SCORERS

GENERATE: dict[str, Any] = {"kind": "generate", "policy": {"model": "p"}, "reward_model": "r"}
TRAIN: dict[str, Any] = {
    "kind": "train-rm",
    "output": "o",
    "backbone": {"model": "b"},
    "data": {"source": "embedded"},
    "stages": [{"stage": "heads", "steps": 5}, {"stage": "encoder", "steps": 5}],
}
EVAL: dict[str, Any] = {
    "kind": "eval",
    "output": "o",
    "policies": {"home": {"model": "p"}},
    "reward_model": "r",
    "benchmarks": [{"benchmark": "embedded"}],
    "scorers": ["hit"],
}

Write = Callable[[Any], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a recipe, as text or as a mapping, and return its path."""

    def to_file(content: Any) -> str:
        path = tmp_path / "mine.yaml"
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return to_file


def problems(content: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(content)
    return caught.value.message


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_every_shipped_recipe_is_good_and_names_what_is_registered(name: str) -> None:
    recipe = read_recipe(name)
    runs = [recipe] if isinstance(recipe, EvalRecipe) else []
    if isinstance(recipe, ReproduceRecipe):
        runs = [run for table in recipe.tables.values() for run in table.runs.values()]
    for run in runs:
        assert all(settings.method in METHODS.names() for settings in run.methods)
        assert all(settings.scorer in SCORERS.names() for settings in run.scorers)
        assert all(settings.benchmark in BENCHMARKS.names() for settings in run.benchmarks)
    if isinstance(recipe, SweepRecipe):
        assert recipe.benchmark.benchmark in BENCHMARKS.names()
        assert all(settings.method in METHODS.names() for settings in recipe.methods)
        assert all(settings.scorer in SCORERS.names() for settings in (*recipe.objectives.values(), *recipe.scorers))


@pytest.mark.parametrize("name", ["embedded", "embedded.yaml", "recipes/embedded.yaml", "recipes/embedded"])
def test_a_shipped_recipe_has_several_spellings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name) == shipped_recipes()["embedded"]


def test_a_file_of_the_users_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("embedded").write_text("kind: generate")
    assert find_recipe("embedded") == Path("embedded")


@pytest.mark.parametrize("name", ["embeded", "elsewhere/embedded", "embedded.txt", "", ".", "x" * 300, "a\0b"])
def test_an_unknown_recipe_is_a_recipe_error(name: str) -> None:
    with pytest.raises(RecipeError, match="No recipe file") as caught:
        find_recipe(name)
    assert "embedded" in caught.value.hint


def test_all_problems_are_reported_at_once_with_key_and_value() -> None:
    decoding = {"candidates": 0, "top_p": 1.5, "temperature": "warm", "candidate": 3}
    message = problems({**GENERATE, "policy": {}, "decoding": decoding, "reward": "r"})
    assert "6 problems" in message
    for part in (
        *("policy.model: is missing", "decoding.candidates: ", "(found 0)", "decoding.top_p: ", "(found 1.5)"),
        *("decoding.temperature: ", "(found 'warm')", "decoding.candidate: no such key", "reward: no such key"),
    ):
        assert part in message
    assert len(message.splitlines()) == 7, "one line a problem, after the line that counts them"


def test_one_problem_is_counted_in_the_singular() -> None:
    assert "recipe: 1 problem\n" in problems({**GENERATE, "reward_model": 3})


@pytest.mark.parametrize(
    ("content", "key", "meant"),
    [
        ({**GENERATE, "decodng": {}}, "decodng", "decoding"),
        ({**GENERATE, "decoding": {"candidate": 3}}, "decoding.candidate", "candidates"),
        ({**GENERATE, "policy": {"model": "p", "dtyp": "auto"}}, "policy.dtyp", "dtype"),
        ({**TRAIN, "stages": [{"stage": "heads", "steps": 1, "bata": 1}]}, "stages.0.bata", "beta"),
        ({**TRAIN, "heads": {"rnak": 1}}, "heads.rnak", "rank"),
        ({**EVAL, "benchmarks": [{"benchmark": "x", "option": {}}]}, "benchmarks.0.option", "options"),
        ({**EVAL, "policies": {"home": {"model": "p", "devise": "cpu"}}}, "policies.home.devise", "device"),
        (
            {**TRAIN, "stages": [TRAIN["stages"][0], {"stage": "encoder", "steps": 1, "hidden_siz": 8}]},
            "stages.1.hidden_siz",
            "hidden_size",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_closest(content: dict[str, Any], key: str, meant: str) -> None:
    assert re.search(rf"  {key}: no such key. Did you mean .*{meant}", problems(content))


@pytest.mark.parametrize("key", ["eval", "generate", "train-rm", "heads", "encoder"])
def test_an_unknown_key_may_be_called_like_a_kind_or_a_stage(key: str) -> None:
    assert f"  {key}: no such key" in problems({**GENERATE, key: 1})


def test_a_missing_kind_names_the_kinds() -> None:
    with pytest.raises(RecipeError, match="'kind' is missing") as caught:
        load_recipe({})
    assert all(kind in caught.value.hint for kind in ("train-rm", "generate", "eval"))


@pytest.mark.parametrize("kind", ["generat", None, 3, [], {}, True])
def test_an_unknown_kind_is_named_beside_the_known_ones(kind: Any) -> None:
    message = problems({**GENERATE, "kind": kind})
    assert str(kind) in message
    assert all(known in message for known in ("kind", "train-rm", "generate", "eval"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({**TRAIN, "stages": []}, "stages"),
        ({**TRAIN, "stages": [{"stage": "heads"}]}, "give either `epochs` or `steps`"),
        ({**TRAIN, "stages": [{"stage": "heads", "steps": 1, "epochs": 1}]}, "give either `epochs` or `steps`"),
        ({**TRAIN, "stages": [TRAIN["stages"][0]] * 2}, "each stage may occur once"),
        ({**TRAIN, "stages": TRAIN["stages"][1:]}, "needs a `heads`, `distil` or `joint` stage before it"),
        ({**TRAIN, "stages": TRAIN["stages"][::-1]}, "needs a `heads`, `distil` or `joint` stage before it"),
        ({**TRAIN, "stages": [{"stage": "tails", "steps": 1}]}, "tails"),
        ({**TRAIN, "data": {}}, "give either `source` or `train`"),
        ({**TRAIN, "data": {"source": "embedded", "train": "x"}}, "give either `source` or `train`"),
        ({**EVAL, "decoding": {"guidance_weight": 2}}, "set `guidance_weights`"),
        ({**EVAL, "policies": {}}, "policies"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(content: dict[str, Any], reason: str) -> None:
    assert reason in problems(content)


def test_a_recipe_that_does_not_shard_its_backbone_is_still_read() -> None:
    assert load_recipe({**TRAIN, "shard_backbone": False}) == load_recipe(TRAIN)
    with pytest.raises(RecipeError, match=r"`shard_backbone` is gone.* set backbone\.device_map: auto"):
        load_recipe({**TRAIN, "shard_backbone": True})


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    assert "decoding.guidance_weight" in problems({**GENERATE, "decoding": {"guidance_weight": float(number)}})
    assert "learning_rate" in problems(
        {**TRAIN, "stages": [{"stage": "heads", "steps": 1, "learning_rate": float(number)}]}
    )
    assert "guidance_weights.0" in problems({**EVAL, "guidance_weights": [float(number)]})


def test_a_recipe_cannot_be_changed_after_it_was_checked() -> None:
    recipe = load_recipe(GENERATE)
    with pytest.raises(ValueError, match="frozen"):
        recipe.reward_model = "other"


@pytest.mark.parametrize("text", ["3e-4", "0.0003", "3.0e-4"])
def test_a_learning_rate_may_be_written_as_people_write_it(write: Write, text: str) -> None:
    """YAML 1.1 reads `3e-4` as a text."""
    path = write(yaml.safe_dump(TRAIN).replace("steps: 5", f"steps: 5\n  learning_rate: {text}"))
    recipe = read_recipe(path)
    assert isinstance(recipe, TrainRecipe)
    assert [stage.learning_rate for stage in recipe.stages] == [3e-4, 3e-4]


@pytest.mark.parametrize("text", ["kind: generate\npolicy: [\n", "a: b: c", "\tkind: x", 'kind: "generate', "a: *b"])
def test_what_is_not_yaml_names_file_and_line(write: Write, text: str) -> None:
    path = write(text)
    with pytest.raises(RecipeError, match=r"not YAML") as caught:
        read_recipe(path)
    assert f"{path}:" in caught.value.message
    assert caught.value.message.removeprefix(f"{path}:")[0].isdigit()


@pytest.mark.parametrize("text", ["", "- a", "17", "just words", "null", "# only a comment"])
def test_what_is_no_mapping_says_how_to_start(write: Write, text: str) -> None:
    with pytest.raises(RecipeError, match="not a mapping") as caught:
        read_recipe(write(text))
    assert "kind:" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["day: 2001-99-99", "!!int foo", "x: 0b_", "[" * 5000, "!!python/object:os.system {}", "x: \x07", "&a [*a]"]
)
def test_yaml_that_cannot_be_read_is_a_recipe_error(write: Write, text: str) -> None:
    with pytest.raises(RecipeError, match=r"mine\.yaml"):
        read_recipe(write(text))


def test_a_recipe_that_is_no_text_is_a_recipe_error(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"kind: \xff\xfe")
    with pytest.raises(RecipeError, match="utf-8"):
        read_recipe(str(tmp_path / "x.yaml"))


_keys = st.sampled_from(sorted({*TRAIN, *GENERATE, *EVAL, "heads", "stage", "steps", "model", "source"})) | st.text(
    max_size=9
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.dates()
    | st.sampled_from(["heads", "generate"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys | st.integers() | st.none(), inner, max_size=4),
    max_leaves=12,
)


@given(_values)
def test_any_yaml_value_is_a_recipe_or_a_recipe_error(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    with pytest.raises(RecipeError):  # nothing this small is a good recipe
        read_recipe(str(path))


@given(st.sampled_from([TRAIN, GENERATE, EVAL]), st.dictionaries(_keys, _values, min_size=1, max_size=4))
def test_a_good_recipe_with_anything_put_in_is_a_recipe_or_a_recipe_error(
    good: dict[str, Any], changes: dict[str, Any]
) -> None:
    try:
        recipe = load_recipe({**good, **changes})
    except RecipeError as error:
        assert "problem" in error.message  # noqa: PT017  # not every example raises it
    else:
        assert set(changes) <= set(type(recipe).model_fields)


@pytest.mark.parametrize("key", ["(source)", "(file)", "(sources)"])
def test_keys_that_look_like_our_own_marks_are_unknown_keys(key: str) -> None:
    assert f"{key}: no such key" in problems({**TRAIN, key: None})
    assert f"data.{key}: no such key" in problems({**TRAIN, "data": {"source": "embedded", key: 1}})
    assert f"data.train.0.{key}: no such key" in problems({**TRAIN, "data": {"train": {"path": "x", key: 1}}})
    validation = {"source": "embedded", "validation": {key: {"path": "x", "wieght": 1}}}
    assert f"data.validation.{key}.wieght: no such key. Did you mean weight?" in problems({**TRAIN, "data": validation})
