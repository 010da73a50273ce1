"""`run_sweep` on a small model: its points are an evaluation's, its fronts are theirs, and it can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import RecipeError
from pad_cli.evaluation.sweep import SWEEP, hypervolume, run_sweep
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import ModelSettings, SweepRecipe, load_recipe
from tests.cli.test_commands import pad
from tests.tiny import make_reward_model

MakeRecipe = Callable[..., SweepRecipe]


@pytest.fixture
def make_recipe(policy: LanguageModel, model_directory: Path, tmp_path: Path) -> MakeRecipe:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Tell me of {n}"}) + "\n" for n in range(5)), encoding="utf-8")
    settings = ModelSettings(model=str(model_directory), device="cpu")
    (tmp_path / "reward-model").mkdir()
    save_reward_model(make_reward_model(policy), tmp_path / "reward-model", settings)

    def make(**changed: Any) -> SweepRecipe:
        content: dict[str, Any] = {
            "kind": "sweep",
            "output": str(tmp_path / "run"),
            "policy": settings.model_dump(),
            "reward_model": str(tmp_path / "reward-model"),
            "benchmark": {"benchmark": "jsonl", "options": {"path": str(prompts), "preferences": "humorous"}},
            "prompts": 4,
            "objectives": {"humorous": "words", "formal": "repeated_4grams"},
            "weight_steps": 2,
            "guidance_weights": [1.0, 3.0],
            "candidates": [2, 5],
            "scorers": ["distinct_2"],
            "decoding": {"max_new_tokens": 6, "batch_size": 3, "temperature": 0.8},
        }
        recipe = load_recipe({**content, **changed})
        assert isinstance(recipe, SweepRecipe)
        return recipe

    return make


def test_every_method_has_a_point_for_every_weighting_guidance_weight_and_candidates(make_recipe: MakeRecipe) -> None:
    points = run_sweep(make_recipe())["points"]
    seen = [(p["method"], p["guidance_weight"], p["candidates"], tuple(p["weights"].values())) for p in points]
    grid = [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    steered = {("pad", g, c, w) for g in (1.0, 3.0) for c in (2, 5) for w in grid}
    assert len(seen) == len(set(seen))
    assert set(seen) == steered | {("base", 0.0, c, w) for c in (2, 5) for w in grid}
    assert all(p["n"] == 4 and set(p["means"]) == {"humorous", "formal", "distinct_2"} for p in points)


def test_a_point_is_asked_for_its_weights(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(candidates=[5])
    run_sweep(recipe)
    log = Path(recipe.output) / "candidates-5" / "answers.jsonl"
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    asked = {tuple(row["preference"]) for row in rows if row["method"] == "pad"}
    assert asked == {("humorous=1",), ("humorous=0.5", "formal=0.5"), ("formal=1",)}


def test_a_front_has_the_hypervolume_of_its_points_where_fewer_is_better_turned_round(make_recipe: MakeRecipe) -> None:
    result = run_sweep(make_recipe(reference=[0, 1]))
    assert [objective["higher_is_better"] for objective in result["objectives"]] == [True, False]
    assert result["reference"] == [0, 1]
    for front in result["fronts"]:
        family = ("method", "guidance_weight", "candidates")
        mine = [p for p in result["points"] if all(p[key] == front[key] for key in family)]
        means = np.array([[p["means"]["humorous"], -p["means"]["formal"]] for p in mine])
        assert front["hypervolume"] == pytest.approx(hypervolume(means, np.array([0.0, -1.0])), abs=1e-3)
        assert front["on_front"] == sum(p["on_front"] for p in mine) >= 1


def test_base_has_one_point_on_its_front(make_recipe: MakeRecipe) -> None:
    fronts = run_sweep(make_recipe(methods=["base"]))["fronts"]
    assert [(front["points"], front["on_front"]) for front in fronts] == [(3, 1), (3, 1)]


def test_an_interrupted_sweep_ends_in_the_same_file(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe()
    run_sweep(recipe)
    output = Path(recipe.output)
    whole, log = (output / SWEEP).read_bytes(), output / "candidates-5" / "answers.jsonl"
    log.write_bytes(log.read_bytes()[:900])
    (output / SWEEP).unlink()
    run_sweep(recipe)
    assert (output / SWEEP).read_bytes() == whole
    monkeypatch.setattr(PadEngine, "generate", lambda *_, **__: pytest.fail("answered again"))
    run_sweep(recipe)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"objectives": {"humorous": "words"}}, "objectives"),
        ({"reference": [0]}, "1 numbers for 2 objectives"),
        ({"decoding": {"candidates": 3}}, "set `candidates`"),
        ({"decoding": {"guidance_weight": 3}}, "set `guidance_weights`"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(
    make_recipe: MakeRecipe, changed: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        make_recipe(**changed)


def test_the_command_prints_the_fronts_or_one_point_a_line(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    content = recipe.model_dump(mode="json", exclude_unset=True)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    result = pad("sweep", str(tmp_path / "sweep.yaml"), "-q")
    points = run_sweep(recipe)["points"]
    assert "hypervolume" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(f"Sweep: {recipe.output}")
    rows = pad("sweep", str(tmp_path / "sweep.yaml"), "--json", "-q").stdout.splitlines()
    assert [json.loads(row) for row in rows] == points
