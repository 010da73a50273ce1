"""`pad inspect` and `pad push` on tiny reward models, and what `pad train-rm --dry-run` prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import pad_cli
from pad_cli.cli.train_rm import show_estimate
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.checkpoint_files import CONFIG, HEADS
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import ModelSettings
from pad_cli.training.estimate import estimate
from tests.cli.test_commands import pad, refused
from tests.tiny import make_reward_model


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def saved(policy: LanguageModel, model_directory: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "rm"
    directory.mkdir()
    details = {"metrics": {"dev": {"pairs": 40, "pair_accuracy": 0.75}}}
    model = replace(make_reward_model(policy), details=details)
    save_reward_model(model, directory, ModelSettings(model=str(model_directory)))
    return directory


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        {"prompt": "How?", "preference": "humorous", "chosen": "Well, so.", "rejected": "No."},
        {"prompt": "Why?", "preference": "formal", "chosen": "Therefore.", "rejected": "Cause"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def inspect(*arguments: str) -> dict[str, Any]:
    result = pad("inspect", *arguments, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    return dict(json.loads(line))


def test_json_is_one_object_with_stable_keys(saved: Path, model_directory: Path, pairs: Path) -> None:
    row = inspect(str(saved))
    keys = ["location", "form", "config", "metrics", "data", "seconds", "adapter", "parameters", "bytes"]
    assert list(row) == [*keys, "fit", "measured_again"]
    assert (row["fit"], row["measured_again"]) == (None, None)
    assert row["metrics"] == {"dev": {"pairs": 40, "pair_accuracy": 0.75}}
    row = inspect(str(saved), "--policy", str(model_directory), "--pairs", str(pairs))
    assert row["fit"]["path"] == "fused"
    assert row["measured_again"]["pairs"] == 2


def test_the_page_tells_what_it_is_what_it_measured_and_what_fits(saved: Path, model_directory: Path) -> None:
    result = pad("inspect", str(saved), "--policy", str(model_directory), "--quiet")
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    for fact in (
        "humorous, formal, concise",
        "validation split",
        "dev 40 0.75",
        "path fused",
        "one forward pass",
    ):
        assert fact in text


def test_what_is_no_reward_model_is_refused(tmp_path: Path, saved: Path, model_directory: Path) -> None:
    assert "no reward model" in refused("inspect", str(model_directory), code=1)
    assert "No reward model at 'missing'" in refused("inspect", "missing", code=1)
    assert "No model directory" in refused("inspect", str(saved), "--policy", "missing", code=1)
    (saved / HEADS).write_bytes(b"")
    assert HEADS in refused("inspect", str(saved), code=1)


def test_pairs_that_are_wrong_are_refused_with_file_and_line(saved: Path, pairs: Path) -> None:
    pairs.write_text("{}\n")
    assert "pairs.jsonl:1" in refused("inspect", str(saved), "--pairs", str(pairs), "--quiet")


def test_pushing_wrongly_is_refused(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "no id on the hub" in refused("push", str(saved), "name")
    assert "is not a pad reward model" in refused("push", "missing", "owner/name", code=1)
    assert "HF_HUB_OFFLINE" in refused("push", str(saved), "owner/name", code=1)
    (saved / CONFIG).write_text("{}")
    assert "format version" in refused("push", str(saved), "owner/name", code=1)


def test_an_estimate_is_printed_with_every_stage(
    model_directory: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "kind": "train-rm",
        "output": "run",
        "backbone": {"model": str(model_directory)},
        "data": {"train": str(pairs)},
        "stages": [{"stage": "adapter", "steps": 2}, {"stage": "heads", "steps": 2}],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    settings = pad_cli.read_recipe("mine.yaml")
    assert isinstance(settings, pad_cli.TrainRecipe)
    show_estimate(estimate(settings))
    text = capsys.readouterr().out
    for word in ("adapter", "caching states", "heads", "in all", "2 training pairs", "on the disk"):
        assert word in text
    assert not Path("run").exists()
