"""`pad prefs` on a tiny local policy and a tiny local reward model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pad_cli.models.checkpoint import save_reward_model
from pad_cli.recipe import ModelSettings
from tests.cli.test_commands import pad, refused
from tests.tiny import make_reward_model


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module")
def reward_directory(policy: Any, model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("reward-model")
    save_reward_model(make_reward_model(policy), directory, ModelSettings(model=str(model_directory)))
    return str(directory)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "profiles" / "me.yaml"
    path.parent.mkdir()
    path.write_text(
        "weights: {humorous: 0.8, formal: -1.2}\nchoices: 20\naccuracy: 0.85\nintervals: {formal: [-2, -0.4]}\n"
        "reward_model: 0123456789abcdef\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Question {n}?"}) + "\n" for n in range(6)), encoding="utf-8")
    return path


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = pad("prefs", *arguments, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def shown(*arguments: str) -> str:
    result = pad("prefs", *arguments, "--quiet")
    assert result.exit_code == 0, result.stderr
    return " ".join(result.stdout.split())


def test_principles_and_profiles_are_listed(reward_directory: str, profile: Path) -> None:
    found = rows("list", "--reward-model", reward_directory)
    assert [(row["kind"], row["name"]) for row in found] == [
        ("principle", "humorous"),
        ("principle", "formal"),
        ("principle", "concise"),
        ("profile", "me"),
    ]
    assert found[-1]["weights"] == {"humorous": 0.8, "formal": -1.2}
    text = shown("list", "--reward-model", reward_directory)
    assert "humorous, formal, concise Free text: no" in text
    assert all(part in text for part in ("@me", "0123456789abcdef", "20", "0.85", "formal -1.2, humorous +0.8"))


def test_where_there_are_no_profiles_the_list_says_so(reward_directory: str) -> None:
    assert "Profiles in ./profiles none" in shown("list", "--reward-model", reward_directory)


def test_a_profile_is_shown_by_its_name_and_by_its_file(profile: Path) -> None:
    (row,) = rows("show", "me")
    assert (row["weights"]["formal"], row["intervals"]) == (-1.2, {"formal": [-2.0, -0.4]})
    assert rows("show", "@me") == rows("show", str(profile)) == [row]
    assert "-2.00 to -0.40" in shown("show", "me")


def test_what_is_no_profile_is_refused(reward_directory: str, profile: Path) -> None:
    assert "no profile 'you'" in refused("prefs", "show", "@you")
    profile.write_text("weights: {formal: much}", encoding="utf-8")
    assert "me.yaml, field 'weights.formal'" in refused("prefs", "list", "--reward-model", reward_directory)


def test_a_preference_is_tried(reward_directory: str, model_directory: Path, prompts: Path) -> None:
    models = ["--policy", str(model_directory), "--reward-model", reward_directory, "--prompts", str(prompts)]
    models += ["--set", "decoding.max_new_tokens=8"]
    (row,) = rows("test", "humorous", "not formal=2", *models)
    assert row["effect"]["preference"] == "humorous, not formal=2"
    assert len(row["effect"]["prompts"]) == len(row["effect"]["plain"]) == len(row["effect"]["steered"]) == 6
    assert [each["preference"] for each in row["effect"]["rewards"]] == ["humorous", "not formal=2", "concise"]
    (row,) = rows("test", "humorous", "--count", "2", *models)
    assert len(row["effect"]["steered"]) == 2
    text = shown("test", "humorous", "--show", "1", *models)
    assert "Question 0?" in text
    assert "Question 1?" not in text


def test_a_safety_floor_is_part_of_what_is_tried(reward_directory: str, model_directory: Path, prompts: Path) -> None:
    models = ["--policy", str(model_directory), "--reward-model", reward_directory, "--prompts", str(prompts)]
    (row,) = rows("test", "not formal", *models, "--set", "always.formal=2", "--set", "decoding.max_new_tokens=8")
    assert row["effect"]["preference"] == "formal=2"


def test_nothing_to_try_is_refused() -> None:
    assert "no preference to try" in refused("prefs", "test")
