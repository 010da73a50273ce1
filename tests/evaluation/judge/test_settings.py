"""The `judge` of a recipe: checked like the rest of it, and never a place for a key."""

from __future__ import annotations

from typing import Any

import pytest

from pad_cli.errors import RecipeError
from pad_cli.recipe import EvalRecipe, load_recipe

EVAL = {
    "kind": "eval",
    "output": "run",
    "policies": {"home": {"model": "m"}},
    "reward_model": "r",
    "benchmarks": [{"benchmark": "embedded"}],
    "scorers": ["words"],
}


def problems(judge: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe({**EVAL, "judge": judge})
    return str(caught.value)


def test_a_judge_needs_a_model_and_nothing_else() -> None:
    recipe = load_recipe({**EVAL, "judge": {"model": "m"}})
    assert isinstance(recipe, EvalRecipe)
    assert recipe.judge is not None
    assert "judge.model: is missing" in problems({})


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ({"modle": "m"}, "judge.modle: no such key. Did you mean model?"),
        ({"model": "m", "api_key": "sk-1"}, "judge.api_key: holds what looks like a secret"),
        ({"model": "m", "base_url": "localhost:8000"}, "judge.base_url: not an http address"),
        ({"model": "m", "max_cost": 1}, "`max_cost` needs `input_price` and `output_price`"),
        ({"model": "m", "input_price": 1}, "give both"),
        ({"model": "m", "modes": ["pairwise", "rubric"]}, "leave it out, or say [pairwise]"),
        ({"model": "m", "modes": None}, "leave it out, or say [pairwise]"),
        ({"model": "m", "concurrency": 0}, "judge.concurrency"),
    ],
)
def test_what_is_wrong_with_it_is_said(judge: dict[str, Any], problem: str) -> None:
    assert problem in problems(judge)


def test_keys_of_earlier_recipes_are_read_and_have_no_effect() -> None:
    former = {"model": "m", "modes": ["pairwise"], "dimensions": {"helpful": "is it?"}, "backoff": 2.0}
    assert load_recipe({**EVAL, "judge": former}) == load_recipe({**EVAL, "judge": {"model": "m"}})


def test_a_key_in_the_address_is_refused_and_not_repeated() -> None:
    said = problems({"model": "m", "base_url": "https://me:sk-1@example.org/v1"})
    assert "judge.base_url: holds what looks like a secret" in said
    assert "sk-1" not in said
