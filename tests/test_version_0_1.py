"""Files that version 0.1 wrote (`tests/fixtures/version_0_1`): reward models, runs and profiles are still good."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pad_cli.models.checkpoint import load_reward_model
from pad_cli.records import as_messages
from tests.cli.test_commands import pad

FIXTURE = Path(__file__).parent / "fixtures" / "version_0_1"
REWARDS = {
    "reward-model": [-0.137342, 1.026605, 1.405666, -1.229915, -1.074965],
    "adapted": [-0.002303, 0.011669, 0.024796, -0.009324, -0.003003],
}
"""Of the tokens of "axxy" and its end, as version 0.1 gave them, nats."""


@pytest.fixture(autouse=True)
def _in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files name each other relative to the directory in which they were made."""
    shutil.copytree(FIXTURE, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_model_loads_and_gives_the_same_rewards(name: str) -> None:
    model = load_reward_model(name)
    rewards = model.token_rewards(as_messages("Write a"), "axxy", model.preference(["exes"]))  # type: ignore[union-attr]
    assert rewards.tolist() == pytest.approx(REWARDS[name], abs=1e-4)


def test_a_file_of_answers_is_continued_and_not_answered_again() -> None:
    before = Path("answers.jsonl").read_bytes()
    models = ("--policy", "model", "--reward-model", "reward-model", "--pref", "exes", "--max-new-tokens", "8")
    assert pad("generate", "--file", "prompts.jsonl", "--out", "answers.jsonl", *models).exit_code == 0
    assert Path("answers.jsonl").read_bytes() == before


def test_an_evaluation_is_continued_and_not_answered_again() -> None:
    before = Path("evaluation/answers.jsonl").read_bytes()
    assert pad("eval", "eval.yaml").exit_code == 0
    assert Path("evaluation/answers.jsonl").read_bytes() == before


def test_a_profile_steers_with_its_reward_model() -> None:
    models = ("--policy", "model", "--reward-model", "reward-model", "--max-new-tokens", "4", "--json")
    assert '"preference": "exes=2' in pad("generate", "Write a", "--pref", "@me", *models).stdout
