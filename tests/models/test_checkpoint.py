"""A reward model on disk: a round trip keeps every reward, and every kind of damage is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pad_cli.errors import CheckpointError, ModelLoadError
from pad_cli.models.checkpoint import load_reward_model, save_reward_model
from pad_cli.models.checkpoint_files import ADAPTER_WEIGHTS, CONFIG, ENCODER, HEADS
from pad_cli.models.heads import PreferenceEncoder
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import ModelSettings
from pad_cli.records import as_messages
from tests.decoding.adapters import train_lora, with_adapter
from tests.tiny import PRINCIPLES, make_language_model, make_reward_model, make_tokenizer

PROMPT = as_messages("How do I start with chess?")
ANSWER = "Begin with the king."


@pytest.fixture
def backbone(policy: LanguageModel, tmp_path: Path) -> ModelSettings:
    """A backbone on disk that a test may spoil."""
    save_backbone(policy, tmp_path / "backbone")
    return ModelSettings(model=str(tmp_path / "backbone"), device="cpu")


@pytest.fixture
def encoder(policy: LanguageModel) -> PreferenceEncoder:
    torch.manual_seed(5)
    encoder = PreferenceEncoder(policy.hidden_size, 7, len(PRINCIPLES))
    encoder.remember(torch.randn(20, policy.hidden_size), torch.arange(20) % 3)
    return encoder.eval().requires_grad_(False)


@pytest.fixture
def model(policy: LanguageModel, encoder: PreferenceEncoder) -> PersonalizedRewardModel:
    return replace(make_reward_model(policy), encoder=encoder, calibration=1.25, details={"run": "r", "metrics": {}})


@pytest.fixture
def saved(model: PersonalizedRewardModel, backbone: ModelSettings, tmp_path: Path) -> Path:
    directory = tmp_path / "reward-model"
    directory.mkdir()
    save_reward_model(model, directory, backbone)
    return directory


def save_backbone(model: LanguageModel, directory: Path) -> None:
    model.model.save_pretrained(directory)
    model.tokenizer.save_pretrained(directory)


def load(directory: Path, **options: Any) -> PersonalizedRewardModel:
    return load_reward_model(str(directory), device="cpu", **options)


def change(directory: Path, **keys: Any) -> None:
    """Write keys of pad_config.json."""
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps({**config, **keys}))


def lack(key: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        config = json.loads((directory / CONFIG).read_text())
        del config[key]
        (directory / CONFIG).write_text(json.dumps(config))

    return damage


def test_a_round_trip_keeps_every_reward(model: PersonalizedRewardModel, saved: Path) -> None:
    loaded = load(saved)
    for specs in (["humorous"], ["formal=0.5", "not concise"], ["something to laugh about"], []):
        preference = model.preference(specs)
        assert loaded.preference(specs) == preference
        expected = model.token_rewards(PROMPT, ANSWER, preference)
        assert torch.equal(loaded.token_rewards(PROMPT, ANSWER, preference), expected)
    assert loaded.principles == model.principles
    assert loaded.calibration == 1.25
    assert loaded.details["run"] == "r"


def test_a_model_without_encoder_comes_back_without_one(
    policy: LanguageModel, backbone: ModelSettings, tmp_path: Path
) -> None:
    save_reward_model(make_reward_model(policy), tmp_path, backbone)
    assert load(tmp_path).encoder is None
    assert not (tmp_path / ENCODER).exists()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # called by peft
def test_an_adapter_comes_back_and_is_missed_when_it_is_gone(
    model: PersonalizedRewardModel, backbone: ModelSettings, tmp_path: Path
) -> None:
    adapted, directory = with_adapter(model, train_lora(model.backbone)), tmp_path / "adapted"
    directory.mkdir()
    save_reward_model(adapted, directory, backbone)
    loaded, preference = load(directory), model.preference(["humorous"])
    expected = adapted.token_rewards(PROMPT, ANSWER, preference)
    assert torch.equal(loaded.token_rewards(PROMPT, ANSWER, preference), expected)
    assert not torch.allclose(expected, model.token_rewards(PROMPT, ANSWER, preference), atol=0.1)
    assert loaded.fingerprint == adapted.fingerprint != model.fingerprint
    (directory / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=ADAPTER_WEIGHTS):
        load(directory)


def test_a_loaded_model_that_is_changed_and_saved_again_keeps_the_change(
    saved: Path, backbone: ModelSettings, tmp_path: Path
) -> None:
    loaded = load(saved)
    loaded.calibration, loaded.encoder = 3.0, None
    (tmp_path / "again").mkdir()
    save_reward_model(loaded, tmp_path / "again", backbone)
    again = load(tmp_path / "again")
    assert (again.calibration, again.encoder) == (3.0, None)


def test_a_loaded_model_is_frozen(saved: Path) -> None:
    loaded = load(saved)
    assert loaded.encoder is not None
    modules = (loaded.heads, loaded.encoder, loaded.backbone.model)
    assert not any(module.training for module in modules)
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())


def test_the_policy_is_reused_as_backbone_when_it_is_the_same(saved: Path, backbone: ModelSettings) -> None:
    policy = load_language_model(backbone)
    assert load(saved, backbone=policy).backbone is policy


def test_another_policy_is_not_taken_for_the_backbone(saved: Path, other_policy: LanguageModel) -> None:
    loaded = load(saved, backbone=other_policy)
    assert loaded.backbone is not other_policy
    assert loaded.backbone.hidden_size == loaded.heads.down.shape[2]


def delete(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def truncate(name: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[: len(content) // 2])

    return damage


def without_up(directory: Path) -> None:
    tensors = load_file(directory / HEADS)
    save_file({"down": tensors["down"].clone()}, directory / HEADS)


def one_head_fewer(directory: Path) -> None:
    tensors = load_file(directory / HEADS)
    save_file({name: tensor[:2].clone() for name, tensor in tensors.items()}, directory / HEADS)


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        pytest.param(delete(CONFIG), CONFIG, id="no pad_config"),
        pytest.param(delete(HEADS), HEADS, id="no heads"),
        pytest.param(delete(ENCODER), ENCODER, id="no encoder"),
        pytest.param(truncate(CONFIG), CONFIG, id="pad_config cut short"),
        pytest.param(truncate(HEADS), HEADS, id="heads cut short"),
        pytest.param(truncate(ENCODER), ENCODER, id="encoder cut short"),
        pytest.param(without_up, "up", id="a tensor missing"),
        pytest.param(one_head_fewer, HEADS, id="a head missing"),
        pytest.param(lambda d: (d / HEADS).write_bytes(b""), HEADS, id="heads empty"),
        pytest.param(lambda d: (d / CONFIG).write_text("[]"), CONFIG, id="pad_config is a list"),
        pytest.param(lambda d: (d / CONFIG).write_bytes(b"\xff\xfe\x00"), CONFIG, id="pad_config is no text"),
        pytest.param(lambda d: change(d, format_version=3), "format 3", id="newer format"),
        pytest.param(lambda d: change(d, format_version=1), "format 1", id="older format"),
        pytest.param(lambda d: change(d, format_version="new"), "format", id="format is no number"),
        pytest.param(lambda d: change(d, rank=4), HEADS, id="other rank"),
        pytest.param(lambda d: change(d, rank="two"), "rank", id="rank is no number"),
        pytest.param(lambda d: change(d, hidden_size=64), "hidden size 64", id="other hidden size"),
        pytest.param(lambda d: change(d, tokenizer_hash="0"), "tokenizer", id="other tokenizer hash"),
        pytest.param(lambda d: change(d, principles=["humorous"]), HEADS, id="other principles"),
        *(
            pytest.param(lack(key), key, id=f"no {key}")
            for key in ("backbone", "backbone_fingerprint", "hidden_size", "tokenizer_hash", "principles", "rank")
        ),
        pytest.param(lack("calibration"), "calibration", id="no calibration"),
    ],
)
def test_damage_is_refused_and_named(saved: Path, damage: Callable[[Path], None], names: str) -> None:
    damage(saved)
    with pytest.raises(CheckpointError) as caught:
        load(saved)
    assert names in caught.value.message
    assert caught.value.hint


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No reward model"):
        load(tmp_path / "missing")


def test_a_backbone_that_is_gone_is_a_load_error(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "backbone").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelLoadError) as caught:
        load(saved)
    assert caught.value.hint


def test_a_backbone_of_another_hidden_size_is_refused(
    saved: Path, backbone: ModelSettings, other_policy: LanguageModel
) -> None:
    save_backbone(other_policy, Path(backbone.model))
    with pytest.raises(CheckpointError, match="hidden size 32, but the one found there now has 24"):
        load(saved)


def test_a_backbone_of_another_tokenizer_is_refused(saved: Path, backbone: ModelSettings) -> None:
    save_backbone(make_language_model(make_tokenizer(extra=("<x>",)), seed=0), Path(backbone.model))
    with pytest.raises(CheckpointError, match="tokenizer"):
        load(saved)


@pytest.mark.parametrize("which", ["embedding", "attention"])
def test_a_backbone_whose_weights_have_changed_is_refused(
    saved: Path, backbone: ModelSettings, policy: LanguageModel, which: str
) -> None:
    """A fine-tuned or merged model often keeps its embedding, and its hidden states are others all the same."""
    changed = make_language_model(policy.tokenizer, seed=0)
    parts = {"embedding": changed.model.lm_head, "attention": changed.model.model.layers[0].self_attn.q_proj}
    parts[which].weight.mul_(1.5)
    save_backbone(changed, Path(backbone.model))
    with pytest.raises(CheckpointError, match="weights have changed"):
        load(saved)
