"""The model card: facts of the checkpoint, commands that work, and nothing that nobody measured."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pad_cli.cli.main import app
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.publishing import card_at, model_card
from pad_cli.recipe import ModelSettings
from tests.cli.test_commands import pad
from tests.tiny import make_reward_model

CONFIG: dict[str, Any] = {
    "format_version": 2,
    "backbone": "owner/model",
    "backbone_revision": None,
    "backbone_fingerprint": "0123",
    "hidden_size": 32,
    "vocabulary_size": 1000,
    "conditioning": "heads",
    "principles": ["laid back", "formal"],
    "rank": 8,
    "adapter": False,
    "encoder_width": None,
    "calibration": 1.0,
    "stages": [{"stage": "heads", "steps": 5, "epochs": None}],
    "environment": {"torch": "2.13"},
}
METRICS = {
    "dev": {
        "pairs": 40,
        "pair_accuracy": 0.75,
        "margin": 1.5,
        "pair_accuracy_interval": [0.6, 0.9],
        "baselines": {"length": {"pair_accuracy": 0.7, "reward_model": "does not beat", "p": 0.4}},
        "preferences": {"formal": {"pairs": 20, "pair_accuracy": 0.8, "policy_accuracy": 0.7}},
    }
}
DATA = {
    "splits": [{"name": "train", "pairs": 1234, "prompts": 5, "answers": 9, "mean_answer": 80.0, "preferences": {}}],
    "sources": [
        {
            "name": "a|b.jsonl",
            "split": "train",
            "rows": 7,
            "pairs_kept": 6,
            "dropped": [{"reason": "twice", "count": 1}],
        }
    ],
}


def front_matter(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    return dict(yaml.safe_load(front))


def commands(card: str) -> list[list[str]]:
    block = re.search(r"```sh\n(.*?)```", card, re.DOTALL)
    assert block is not None
    return [shlex.split(line) for line in block[1].replace("\\\n", " ").splitlines() if line.startswith("pad ")]


def test_the_front_matter_names_the_backbone_and_invents_no_licence() -> None:
    front = front_matter(model_card(CONFIG, METRICS))
    assert (front["library_name"], front["base_model"]) == ("pad-cli", "owner/model")
    assert "license" not in front


def test_a_directory_is_no_id_on_the_hub(tmp_path: Path) -> None:
    assert "base_model" not in front_matter(model_card({**CONFIG, "backbone": str(tmp_path)}, METRICS))


def test_a_model_that_this_program_builds_is_no_id_on_the_hub() -> None:
    card = model_card({**CONFIG, "backbone": "embedded/medium"}, METRICS)
    assert "base_model" not in front_matter(card)
    assert "under that name" in card


def test_the_card_tells_every_measurement_and_what_it_does_not_beat() -> None:
    card = model_card(CONFIG, METRICS, DATA)
    assert "| `dev` | 40 | 0.75 | 1.5 |" in card
    assert "| `dev` | `length` | 0.7 | does not beat |" in card
    assert "| `dev` | `formal` | 20 | 0.8 | 0.7 |" in card
    limits = card.split("## Limits")[1]
    assert "does not beat the baseline `length`" in limits
    assert "40 pairs" in limits


def test_the_card_tells_the_data_and_what_was_left_out() -> None:
    card = model_card(CONFIG, METRICS, DATA)
    assert "| `train` | 1,234 | 5 | 9 | 80 |" in card
    assert "| `a\\|b.jsonl` | `train` | 7 | 6 | twice 1 |" in card
    assert "no report on its training data" not in card
    assert "no report on its training data" in model_card(CONFIG, METRICS)


def test_a_model_that_nobody_measured_says_so() -> None:
    card = model_card(CONFIG, {})
    assert "without validation data" in card
    assert "Nothing was held out" in card


@pytest.mark.parametrize("location", [".", "owner/rm"])
def test_the_cards_command_parses_and_names_the_reward_model(location: str) -> None:
    (words,) = commands(card_at(model_card(CONFIG, METRICS), location))
    group = typer.main.get_command(app)
    name, command, rest = group.resolve_command(group.make_context("pad", list(words[1:])), list(words[1:]))
    options = command.make_context(name, rest).params
    assert (options["policy"], options["reward_model"]) == ("owner/model", location)
    assert list(options["pref"]) == ["laid back"]


def test_a_card_moved_to_the_hub_names_its_id_in_every_command() -> None:
    card = model_card(CONFIG, METRICS, DATA)
    moved = card_at(card, "o/n")
    assert (
        card.replace("--reward-model .", "--reward-model o/n")
        .replace("inspect .", "inspect o/n")
        .replace("'.'", "'o/n'")
        == moved
    )
    assert moved.count("o/n") == 3


def test_the_cards_command_and_its_python_give_the_same_answer(
    policy: LanguageModel, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    save_reward_model(make_reward_model(policy), tmp_path, ModelSettings(model=str(model_directory)))
    found = inspect_reward_model(str(tmp_path))
    card = model_card(found.config, found.metrics, found.data)
    monkeypatch.chdir(tmp_path)
    (words,) = commands(card)
    result = pad(*words[1:], "--quiet")
    assert result.exit_code == 0, result.stderr
    python = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert python is not None
    exec(python[1], {})
    assert capsys.readouterr().out.strip() == result.stdout.strip() != ""
