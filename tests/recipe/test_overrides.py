"""`--set key.path=value`: over the file, checked like it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import RecipeError
from pad_cli.recipe import EvalRecipe, GenerateRecipe, ScorerSettings, TrainRecipe, read_recipe
from tests.recipe.test_load import EVAL, GENERATE, TRAIN

Write = Callable[[Any], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(content: Any) -> str:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return str(tmp_path / "mine.yaml")

    return to_file


def test_overrides_win_over_the_file_and_the_last_over_the_first(write: Write) -> None:
    path = write({**GENERATE, "decoding": {"candidates": 5, "seed": 3}})
    recipe = read_recipe(path, ["decoding.candidates=7", "policy.model=other", "decoding.candidates=8"])
    assert isinstance(recipe, GenerateRecipe)
    assert (recipe.decoding.candidates, recipe.decoding.seed, recipe.policy.model) == (8, 3, "other")


def test_overrides_reach_list_items_and_whole_lists(write: Write) -> None:
    recipe = read_recipe(write(TRAIN), ["stages.1.learning_rate=3e-4", "heads.principles=[a, b]", "data.limit=7"])
    assert isinstance(recipe, TrainRecipe)
    assert [stage.learning_rate for stage in recipe.stages] == [5e-3, 3e-4]
    assert recipe.heads.principles == ["a", "b"]
    assert recipe.data.limit == 7
    changed = read_recipe(write(EVAL), ["scorers.0=all"])
    assert isinstance(changed, EvalRecipe)
    assert changed.scorers == [ScorerSettings(scorer="all")]
    named = read_recipe(write(EVAL), ["methods=[base, {method: pad, name: ours}]", "methods.1.name=mine"])
    assert isinstance(named, EvalRecipe)
    assert [(method.method, method.label) for method in named.methods] == [("base", "base"), ("pad", "mine")]


def test_overrides_reach_into_what_is_named_for_short(write: Write) -> None:
    changed = read_recipe(
        write({**EVAL, "scorers": ["hit", "all"]}), ["scorers.1.name=every", "scorers.0.scorer=words"]
    )
    assert isinstance(changed, EvalRecipe)
    assert changed.scorers == [ScorerSettings(scorer="words"), ScorerSettings(scorer="all", name="every")]


def test_an_override_may_contain_an_equals_sign(write: Write) -> None:
    recipe = read_recipe(write(GENERATE), ["reward_model=a=b"])
    assert isinstance(recipe, GenerateRecipe)
    assert recipe.reward_model == "a=b"


@pytest.mark.parametrize(
    "override",
    [
        *("seed", "=1", " =1", "", "stages.7.beta=1", "stages.-1.beta=1", "stages.x.beta=1", "stages.2={}"),
        *("output.deeper=1", "kind.x.y=1", "stages.0.beta.x=1", "output=[", "seed=2001-99-99", "stages.².beta=1"),
        *("stages.0.bata=1", "nothing.at.all=1", "seed=-1", "data=null", "heads.rank={}", ".=1", "..=1"),
    ],
)
def test_a_bad_override_is_a_recipe_error(write: Write, override: str) -> None:
    with pytest.raises(RecipeError):
        read_recipe(write({**TRAIN, "seed": 1}), [override])


def test_an_override_below_an_empty_key_is_a_recipe_error_or_fills_it(write: Write) -> None:
    path = write({**GENERATE, "decoding": None})
    try:
        recipe = read_recipe(path, ["decoding.seed=4"])
    except RecipeError as error:
        assert "decoding.seed=4" in str(error)  # noqa: PT017  # not every example raises it
    else:
        assert isinstance(recipe, GenerateRecipe)
        assert recipe.decoding.seed == 4


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
_paths = st.lists(st.sampled_from(["policy", "decoding", "model", "seed", "kind", "0", ""]), max_size=4).map(".".join)


@given(st.text(max_size=20) | _paths, _values)
def test_any_override_is_taken_or_a_recipe_error(key: str, value: Any) -> None:
    try:
        read_recipe("embedded-generate", [f"{key}={yaml.safe_dump(value)}"])
    except RecipeError as error:
        assert str(error)  # noqa: PT017  # not every example raises it
