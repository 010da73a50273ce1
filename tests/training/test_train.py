"""From a recipe to a checkpoint: what is learned, what is written, and what an interruption changes (nothing)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pad_cli.errors import DataError, RecipeError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.checkpoint_files import CONFIG, ENCODER, HEADS
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import TrainRecipe
from pad_cli.records import as_messages
from pad_cli.training import stages, train
from pad_cli.training.train import METRICS, train_reward_model
from tests.training.conftest import STAGE, TEXTS, MakeRecipe, make_rows, write_rows

HEADS_STAGE = {"stage": "heads", **STAGE}
BOTH_STAGES = [HEADS_STAGE, {"stage": "encoder", "hidden_size": 16, **STAGE}]
SHORT = [{**HEADS_STAGE, "steps": 4}]


def metrics_of(recipe: TrainRecipe) -> dict[str, dict[str, float]]:
    content: dict[str, dict[str, float]] = json.loads((Path(recipe.output) / METRICS).read_text())
    return content


def files_of(recipe: TrainRecipe) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(recipe.output).iterdir() if path.is_file()}


def test_two_preferences_that_disagree_are_learned_and_hold_on_new_answers(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    train_reward_model(recipe)
    held_out = metrics_of(recipe)["held_out"]
    assert held_out["pairs"] == 60
    assert held_out["pair_accuracy"] >= 0.95
    assert held_out["margin"] > 0


def test_shuffled_labels_teach_nothing(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(data={"shuffle_labels": True})
    train_reward_model(recipe)
    assert 0.15 <= metrics_of(recipe)["held_out"]["pair_accuracy"] <= 0.85


def test_metrics_have_accuracy_margin_and_policy_accuracy_for_each_split(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    second = write_rows(tmp_path / "second.jsonl", make_rows(10, seed=5))
    held_out = str(tmp_path / "held_out.jsonl")
    recipe = make_recipe(data={"validation": {"held_out": held_out, "second": second}}, stages=SHORT)
    train_reward_model(recipe)
    metrics = metrics_of(recipe)
    assert list(metrics) == ["held_out", "second"]
    assert metrics["second"]["pairs"] == 10
    for split in metrics.values():
        assert {"pairs", "pair_accuracy", "margin", "policy_accuracy", "baselines", "preferences"} <= set(split)
        assert all(0 <= split[name] <= 1 for name in ("pair_accuracy", "policy_accuracy"))
    assert load_reward_model(recipe.output).details["metrics"] == metrics


@pytest.mark.parametrize("changed", [{}, {"exact_vocabulary": 0, "normaliser_tokens": 4}], ids=["exact", "truncated"])
def test_the_metrics_are_those_of_the_saved_model(make_recipe: MakeRecipe, changed: dict[str, Any]) -> None:
    """Accuracy and margin again, an answer at a time, from the checkpoint's own token rewards."""
    recipe = make_recipe(**changed)
    train_reward_model(recipe)
    model, margins = load_reward_model(recipe.output), []
    for row in make_rows(60, seed=2):
        preference = model.preference([row["preference"]])
        sums = [
            model.token_rewards(as_messages(row["prompt"]), row[side], preference).sum().item()
            for side in ("chosen", "rejected")
        ]
        margins.append(sums[0] - sums[1])
    metrics = metrics_of(recipe)["held_out"]
    accuracy = sum(margin > 0 for margin in margins) / 60
    if changed:  # a truncated normaliser keeps signs, not values
        assert abs(metrics["pair_accuracy"] - accuracy) <= 0.05
    else:
        assert metrics["pair_accuracy"] == pytest.approx(accuracy, abs=1e-4)
        assert metrics["margin"] == pytest.approx(sum(margins) / 60, abs=1e-3)


@pytest.mark.usefixtures("own_cache")
def test_the_same_seed_gives_identical_files_and_another_seed_other_heads(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [make_recipe(output=str(tmp_path / name), stages=SHORT) for name in ("a", "b")]
    recipes.append(make_recipe(output=str(tmp_path / "c"), stages=SHORT, seed=1))
    files = []
    for number, recipe in enumerate(recipes):
        monkeypatch.setenv("PAD_HOME", str(tmp_path / f"home-{number}"))
        train_reward_model(recipe)
        files.append(files_of(recipe))
    assert all(files[0][name] == files[1][name] for name in (HEADS, CONFIG, METRICS, "README.md"))
    assert files[0][HEADS] != files[2][HEADS]


@pytest.mark.usefixtures("own_cache")
def test_resume_equals_uninterrupted(make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_recipe(output=str(tmp_path / "whole"), data={"texts": TEXTS}, stages=BOTH_STAGES)
    broken = make_recipe(output=str(tmp_path / "broken"), data={"texts": TEXTS}, stages=BOTH_STAGES)
    train_reward_model(whole)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stages, "new_encoder", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_reward_model(broken)
    assert not (tmp_path / "broken" / CONFIG).exists()
    with monkeypatch.context() as patched:
        patched.setattr(stages, "normalise_heads", lambda *_: pytest.fail("the finished stage is trained again"))
        train_reward_model(broken)
    ours, theirs = files_of(broken), files_of(whole)
    assert ours.keys() == theirs.keys() >= {HEADS, ENCODER, CONFIG, METRICS}
    assert all(ours[name] == theirs[name] for name in (HEADS, ENCODER, CONFIG, METRICS))
    assert not (tmp_path / "broken" / ".work").exists()


def test_a_kept_stage_that_is_damaged_is_trained_again(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_recipe(output=str(tmp_path / "whole"), stages=SHORT)
    broken = make_recipe(output=str(tmp_path / "broken"), stages=SHORT)
    train_reward_model(whole)
    with monkeypatch.context() as patched:
        patched.setattr(train, "evaluate_run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_reward_model(broken)
    (kept,) = (tmp_path / "broken" / ".work").rglob("head.safetensors")
    kept.write_bytes(kept.read_bytes()[:-8])
    train_reward_model(broken)
    assert files_of(broken)[HEADS] == files_of(whole)[HEADS]


def test_a_finished_run_is_not_done_again(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(stages=SHORT)
    assert Path(train_reward_model(recipe)) == Path(recipe.output)
    before = files_of(recipe)
    monkeypatch.setattr(stages, "normalise_heads", lambda *_: pytest.fail("trained again"))
    assert Path(train_reward_model(recipe)) == Path(recipe.output)
    assert files_of(recipe) == before


def test_a_changed_recipe_is_trained_anew_in_the_same_directory(make_recipe: MakeRecipe) -> None:
    train_reward_model(make_recipe(stages=SHORT))
    recipe = make_recipe(stages=SHORT, heads={"rank": 3})
    train_reward_model(recipe)
    assert load_file(Path(recipe.output) / HEADS)["down"].shape[1] == 3
    assert load_reward_model(recipe.output).heads.rank == 3


def test_changed_training_data_under_the_same_name_is_trained_anew(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(stages=SHORT)
    train_reward_model(recipe)
    before = files_of(recipe)[HEADS]
    write_rows(tmp_path / "train.jsonl", make_rows(96, seed=7))
    train_reward_model(recipe)
    assert files_of(recipe)[HEADS] != before


def test_a_finished_run_that_lost_its_heads_is_trained_again(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(stages=SHORT)
    train_reward_model(recipe)
    (Path(recipe.output) / HEADS).unlink()
    train_reward_model(recipe)
    assert load_reward_model(recipe.output).principles == ("exes", "whys")


@pytest.mark.parametrize("foreign", ["notes.txt", "figures/one.txt", "work/mine.txt"])
def test_the_output_directory_keeps_foreign_files(make_recipe: MakeRecipe, foreign: str) -> None:
    recipe = make_recipe(stages=SHORT)
    path = Path(recipe.output) / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    train_reward_model(recipe)
    assert path.read_text() == "mine"
    assert load_reward_model(recipe.output).principles == ("exes", "whys")


def test_the_policy_on_disk_is_the_backbone_of_the_result(make_recipe: MakeRecipe, policy: LanguageModel) -> None:
    recipe = make_recipe(stages=SHORT)
    train_reward_model(recipe)
    assert load_reward_model(recipe.output, backbone=policy).backbone is policy


@pytest.mark.parametrize("texts", [{}, {"exes": ["crosses"]}, {"exes": ["crosses"], "whys": []}])
def test_an_encoder_without_wordings_for_every_principle_is_refused(
    make_recipe: MakeRecipe, texts: dict[str, list[str]]
) -> None:
    recipe = make_recipe(data={"texts": texts}, stages=[*SHORT, {"stage": "encoder", "steps": 2}])
    with pytest.raises(RecipeError, match="whys") as caught:
        train_reward_model(recipe)
    assert caught.value.hint


@pytest.mark.parametrize("where", ["validation", "train"])
def test_a_preference_without_a_head_is_refused(make_recipe: MakeRecipe, tmp_path: Path, where: str) -> None:
    rows = [{**make_rows(1, seed=3)[0], "preference": {"exes": 1, "novel": 0.5}}]
    path = write_rows(tmp_path / "novel.jsonl", rows + make_rows(4, seed=3))
    data = {"validation": {"odd": path}} if where == "validation" else {"train": path, "validation": {}}
    heads = {"rank": 2, "principles": ["exes", "whys"]} if where == "train" else {"rank": 2}
    with pytest.raises(DataError, match="novel") as caught:
        train_reward_model(make_recipe(data=data, heads=heads, stages=SHORT))
    assert caught.value.hint


def test_answers_are_cut_and_prompts_lose_their_beginning_as_the_recipe_says(
    make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers of five letters and an end token are all longer than three tokens."""
    recipe = make_recipe(data={"max_answer_tokens": 3, "max_prompt_tokens": 4}, stages=SHORT)
    train_reward_model(recipe)
    talk = capsys.readouterr().err
    distinct, cut = (int(talk.split(word)[0].split()[-1].lstrip("(")) for word in (" distinct answers", " cut at 3"))
    assert distinct == cut > 100
