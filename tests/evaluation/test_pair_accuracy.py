"""Preference pairs in an evaluation: what is measured, and that it never stands without a figure of fluency."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pad_cli.errors import RecipeError
from pad_cli.evaluation import pair_accuracy
from pad_cli.evaluation.evaluate import evaluate
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import EvalRecipe, ModelSettings
from pad_cli.training.evaluate_checkpoint import evaluate_checkpoint
from tests.tiny import make_reward_model

MakeRecipe = Callable[..., EvalRecipe]
PAIRS = [
    {"prompt": f"How do I {what}?", "preference": wanted, "chosen": chosen, "rejected": rejected}
    for what, wanted, chosen, rejected in [
        ("start", "humorous", "Begin with the king.", "Buy a camera, then wait for the light."),
        ("stop", "not formal", "No.", "Why not?"),
        ("rest", "humorous", "Wait for the light.", "No."),
        ("rest", "formal", "Why not?", "Begin with the king, then wait."),
        ("go on", "humorous=2", "Tell me of the sea.", "Buy it."),
    ]
]


@pytest.fixture
def make_recipe(policy: LanguageModel, model_directory: Path, tmp_path: Path) -> MakeRecipe:
    for name, rows in (("pairs", PAIRS), ("prompts", [{"prompt": f"Tell me of {n}"} for n in range(3)])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = ModelSettings(model=str(model_directory), device="cpu")
    (tmp_path / "reward-model").mkdir()
    save_reward_model(make_reward_model(policy), tmp_path / "reward-model", settings)

    def make(**changed: Any) -> EvalRecipe:
        content: dict[str, Any] = {
            "kind": "eval",
            "output": str(tmp_path / "run"),
            "policies": {"home": settings.model_dump()},
            "reward_model": str(tmp_path / "reward-model"),
            "guidance_weights": [1.0, 4.0],
            "benchmarks": [
                {
                    "benchmark": "jsonl",
                    "options": {"path": str(tmp_path / "prompts.jsonl"), "preferences": ["humorous", "formal"]},
                }
            ],
            "scorers": ["words", "log_perplexity"],
            "pairs": str(tmp_path / "pairs.jsonl"),
            "decoding": {"max_new_tokens": 6},
        }
        return EvalRecipe.model_validate({**content, **changed})

    return make


def test_at_weight_one_on_the_backbone_it_is_what_pad_inspect_measures(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    found = {row["guidance_weight"]: row for row in evaluate(recipe)["pairs"]}
    assert recipe.pairs is not None
    assert recipe.pairs.train is not None
    again = evaluate_checkpoint(recipe.reward_model, str(recipe.pairs.train[0].path))
    assert list(found) == [0.0, 1.0, 4.0]
    assert {row["pair_accuracy"] for row in found.values()} == {again.pair_accuracy}
    assert found[1.0]["policy_accuracy"] == again.policy_accuracy
    assert {(row["n"], row["prompts"]) for row in found.values()} == {(5, 4)}


def test_at_weight_zero_the_reward_model_has_no_say(make_recipe: MakeRecipe, policy: LanguageModel) -> None:
    recipe = make_recipe()
    plain = evaluate(recipe)["pairs"][0]["policy_accuracy"]
    directory = Path(recipe.reward_model).with_name("other-reward-model")
    directory.mkdir()
    settings = recipe.policies["home"]
    save_reward_model(make_reward_model(policy, seed=7), directory, settings)
    other = evaluate(recipe.model_copy(update={"reward_model": str(directory), "output": str(directory / "run")}))
    assert other["pairs"][0]["policy_accuracy"] == plain


def test_a_fluency_figure_of_the_guided_answers_stands_beside_it(make_recipe: MakeRecipe) -> None:
    report = evaluate(make_recipe())
    means = {
        (row["method"], row["guidance_weight"]): row["mean"]
        for row in report["rows"]
        if row["preference"] == "*" and row["scorer"] == "log_perplexity"
    }
    shown = [row["fluency"] for row in report["pairs"]]
    assert [fluency["log_perplexity"] for fluency in shown] == pytest.approx(
        [means[place] for place in (("base", 0.0), ("pad", 1.0), ("pad", 4.0))]
    )


def test_without_a_figure_of_fluency_pairs_are_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="pairs: pair accuracy does not measure fluency"):
        evaluate(make_recipe(scorers=["words"]))


def test_pairs_are_read_once_and_give_the_same_report(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe()
    first = evaluate(recipe)
    log = Path(recipe.output) / pair_accuracy.PAIRS
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    assert evaluate(recipe) == first
    assert log.read_bytes().splitlines(keepends=True) == lines
    monkeypatch.setattr(pair_accuracy, "read_pair", lambda *_: pytest.fail("read again"))
    evaluate(recipe)


def test_a_recipe_without_pairs_measures_none(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(pairs=None, scorers=["words"])
    assert evaluate(recipe)["pairs"] == []
    assert not (Path(recipe.output) / pair_accuracy.PAIRS).exists()
