"""`pad learn` on a tiny local policy and a tiny local reward model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def made(count: int, **also: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"Q{n}", "chosen": f"yes {n}!", "rejected": f"no {n}.", **also} for n in range(count)]


def steering(model_directory: Path, reward_directory: str) -> list[str]:
    return ["--policy", str(model_directory), "--reward-model", reward_directory, "--set", "decoding.max_new_tokens=8"]


def test_a_profile_is_learned_and_asked_for_by_its_name(reward_directory: str, model_directory: Path) -> None:
    rows = [*made(6), {"prompt": "Q", "answers": ["a", "b"], "choice": None}]
    result = pad("learn", "me", write("choices.jsonl", rows), "--reward-model", reward_directory)
    assert result.exit_code == 0, result.stderr
    assert "From 6 choices (and 1 of neither answer)" in result.stdout
    profile = yaml.safe_load(Path("profiles/me.yaml").read_text(encoding="utf-8"))
    assert profile["choices"] == 6
    assert profile["weights"]
    steered = pad("generate", "Hi", "--pref", "@me", "--json", "--quiet", *steering(model_directory, reward_directory))
    assert steered.exit_code == 0, steered.stderr
    preference = json.loads(steered.stdout)["preference"]
    assert all(name in preference for name in profile["weights"])


def test_what_is_learned_is_told_to_programs(reward_directory: str) -> None:
    result = pad("learn", "me", write("c.jsonl", made(4)), "--reward-model", reward_directory, "--json", "--quiet")
    row = json.loads(result.stdout)
    assert row["profile"] == "profiles/me.yaml"
    assert (row["choices"], row["ties"]) == (4, 0)
    low, high = row["accuracy_interval"]
    assert low <= row["accuracy"] <= high


def test_questions_are_asked_over_a_pipe_and_another_sitting_goes_on(
    reward_directory: str, model_directory: Path
) -> None:
    prompts = write("prompts.jsonl", [{"prompt": f"Question {n}?"} for n in range(3)])
    ask = ["learn", "me", "--ask", "--prompts", prompts, *steering(model_directory, reward_directory)]
    first = pad(*ask, stdin="1\nx\nn\nq\n")
    assert first.exit_code == 0, first.stderr
    assert "Type 1, 2, n or q." in first.stderr
    assert "too few for a profile yet" in first.stderr
    assert not Path("profiles/me.yaml").exists()
    log = Path("profiles/me.choices.jsonl")
    kept = log.read_bytes()
    second = pad(*ask, stdin="2\n1\n")
    assert second.exit_code == 0, second.stderr
    assert "Going on: 2 questions were answered before" in second.stderr
    assert log.read_bytes().startswith(kept)
    assert [json.loads(line)["choice"] for line in log.read_text(encoding="utf-8").splitlines()] == [0, None, 1, 0]
    assert yaml.safe_load(Path("profiles/me.yaml").read_text(encoding="utf-8"))["choices"] == 3


def test_a_file_of_many_users_is_learned_like_each_of_them_alone(reward_directory: str) -> None:
    other = [{**row, "chosen": row["rejected"], "rejected": row["chosen"], "user": "b"} for row in made(5)]
    crowd = write("users.jsonl", [*made(4, user="a"), *other])
    result = pad("learn", "--users", crowd, "--out", "table.jsonl", "--reward-model", reward_directory, "--quiet")
    assert result.exit_code == 0, result.stderr
    table = [json.loads(line) for line in Path("table.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["user"] for row in table] == ["a", "b"]
    alone = pad("learn", "a", write("a.jsonl", made(4)), "--reward-model", reward_directory, "--json", "--quiet")
    assert json.loads(alone.stdout)["weights"] == pytest.approx(table[0]["weights"], abs=1e-3)


def test_a_new_principle_is_a_new_reward_model(reward_directory: str, model_directory: Path) -> None:
    pairs = write("pairs.jsonl", [{**row, "chosen": f"{row['prompt']}??"} for row in made(6)])
    ask = ["learn", "--new-principle", "inquisitive", pairs, "--out", "version", "--reward-model", reward_directory]
    before = {path.name: path.read_bytes() for path in Path(reward_directory).iterdir()}
    result = pad(*ask, "--quiet")
    assert result.exit_code == 0, result.stderr
    assert "'inquisitive' from 6 pairs" in result.stdout
    assert before == {path.name: path.read_bytes() for path in Path(reward_directory).iterdir()}
    steered = pad("generate", "Hi", "--pref", "inquisitive", "--quiet", *steering(model_directory, "version"))
    assert steered.exit_code == 0, steered.stderr
    assert "exists already" in refused(*ask[:3], write("others.jsonl", made(7)), *ask[4:], "--quiet")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (made(1), "at least 3 choices of an answer, here are 1"),
        (
            [{"prompt": "Q", "answers": ["a", str(n)], "choice": None} for n in range(4)],
            "here are 0, and 4 of neither answer",
        ),
        ([{"prompt": "Q", "chosen": "same", "rejected": "same"}], "c.jsonl:1: both answers are the same"),
        ([{"prompt": "Q", "answers": ["a", "b"], "choice": 2}], "field 'choice'"),
    ],
)
def test_choices_that_say_nothing_are_refused(reward_directory: str, rows: list[dict[str, Any]], problem: str) -> None:
    assert problem in refused("learn", "me", write("c.jsonl", rows), "--reward-model", reward_directory)
    assert not Path("profiles").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "nothing to learn from"),
        (["me"], "no choices to learn 'me' from"),
        (["me", "c.jsonl", "--ask"], "not both"),
        (["u.jsonl", "--users"], "--out PATH"),
        (["u.jsonl", "c.jsonl", "--users", "--out", "x"], "Unexpected 'c.jsonl'"),
        (["u.jsonl", "--users", "--ask", "--out", "x"], "Choose one"),
        (["../me", "c.jsonl"], "names no profile"),
        (["me", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], problem: str) -> None:
    assert problem in refused("learn", *arguments)


def test_another_reward_models_profile_is_refused(reward_directory: str, model_directory: Path) -> None:
    Path("profiles").mkdir()
    Path("profiles/me.yaml").write_text("weights: {humorous: 1}\nreward_model: 0123456789abcdef\n", encoding="utf-8")
    problem = refused("generate", "Hi", "--pref", "@me", *steering(model_directory, reward_directory))
    assert "Profile 'me' belongs to another reward model (0123456789abcdef" in problem
    assert "pad learn me" in problem
