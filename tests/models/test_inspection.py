"""What `pad inspect` reads: the checkpoint's own account, from headers alone, and every damage noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pad_cli.errors import CheckpointError
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.checkpoint_files import CONFIG, HEADS, VALUE_HEAD
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import ModelSettings
from tests.decoding.adapters import train_lora, with_adapter
from tests.models.test_prompt_reward_model import make_head, tensors_of
from tests.tiny import PRINCIPLES, make_reward_model

Damage = Callable[[Path], object]


@pytest.fixture
def saved(policy: LanguageModel, tmp_path: Path) -> Path:
    """A checkpoint whose backbone is nowhere: nothing here may load it."""
    details = {"stages": [{"stage": "heads", "steps": 5}], "metrics": {"dev": {"pairs": 3}}}
    save_reward_model(replace(make_reward_model(policy), details=details), tmp_path, ModelSettings(model="gone/away"))
    return tmp_path


def test_a_checkpoint_tells_what_it_is_without_its_backbone(saved: Path, policy: LanguageModel) -> None:
    found = inspect_reward_model(str(saved))
    assert (found.form, found.adapter, found.data) == ("pad", None, {})
    assert found.config["principles"] == list(PRINCIPLES)
    assert found.config["backbone_fingerprint"] == policy.fingerprint
    assert found.config["stages"] == [{"stage": "heads", "steps": 5}]
    assert found.parameters == {HEADS: 2 * len(PRINCIPLES) * 2 * policy.hidden_size}
    assert found.bytes == (saved / HEADS).stat().st_size + (saved / CONFIG).stat().st_size


def test_what_was_measured_and_how_long_it_took_come_from_the_checkpoint_and_its_report(saved: Path) -> None:
    report = {"data": {"splits": []}, "stages": [{"name": "heads", "seconds": 1.5}]}
    (saved / "report.json").write_text(json.dumps(report))
    found = inspect_reward_model(str(saved))
    assert (found.metrics, found.data, found.seconds) == ({"dev": {"pairs": 3}}, {"splits": []}, {"heads": 1.5})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # called by peft
def test_an_adapter_is_told_by_its_rank_and_modules(policy: LanguageModel, tmp_path: Path) -> None:
    adapted = with_adapter(make_reward_model(policy), train_lora(policy))
    save_reward_model(adapted, tmp_path, ModelSettings(model="gone/away"))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    found = inspect_reward_model(str(tmp_path))
    assert found.adapter is not None
    rank = len(next(tensor for name, tensor in tensors.items() if "lora_A" in name))
    assert (found.adapter["rank"], found.adapter["modules"]) == (rank, len(tensors) // 2)
    assert found.parameters["adapter_model.safetensors"] == sum(tensor.numel() for tensor in tensors.values())


def test_the_released_form_is_told_without_its_language_model(policy: LanguageModel, tmp_path: Path) -> None:
    policy.model.config.save_pretrained(tmp_path)
    save_file(tensors_of(make_head(policy.hidden_size)), tmp_path / VALUE_HEAD)
    found = inspect_reward_model(str(tmp_path))
    assert (found.form, found.config["conditioning"]) == ("released", "prompt")
    assert found.config["hidden_size"] == policy.hidden_size
    assert found.parameters == {VALUE_HEAD: policy.hidden_size * (policy.hidden_size + 1)}


def truncate(directory: Path) -> None:
    (directory / HEADS).write_bytes((directory / HEADS).read_bytes()[:40])


def exchange(directory: Path) -> None:
    tensors = {name: torch.cat([tensor, tensor]) for name, tensor in load_file(directory / HEADS).items()}
    save_file(tensors, directory / HEADS)


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        pytest.param(lambda d: (d / HEADS).unlink(), HEADS, id="no heads"),
        pytest.param(lambda d: (d / CONFIG).unlink(), CONFIG, id="no pad_config"),
        pytest.param(lambda d: (d / CONFIG).write_text("{"), CONFIG, id="pad_config is no JSON"),
        pytest.param(lambda d: (d / "report.json").write_text("[]"), "report.json", id="the report is a list"),
        pytest.param(truncate, HEADS, id="heads cut short"),
        pytest.param(exchange, HEADS, id="heads of another model"),
    ],
)
def test_damage_is_refused_and_named(saved: Path, damage: Damage, names: str) -> None:
    damage(saved)
    with pytest.raises(CheckpointError) as caught:
        inspect_reward_model(str(saved))
    assert names in caught.value.message
    assert caught.value.hint


def test_a_directory_of_something_else_is_no_reward_model(model_directory: Path, tmp_path: Path) -> None:
    for place in (model_directory, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=r"[Nn]o reward model"):
            inspect_reward_model(str(place))
