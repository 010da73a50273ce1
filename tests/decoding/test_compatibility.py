"""How a reward model fits a policy: the answer is the engine's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from pad_cli.decoding.compatibility import fit_policy
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import ModelLoadError
from pad_cli.models.checkpoint import load_reward_model, save_reward_model
from pad_cli.models.checkpoint_files import VALUE_HEAD
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.recipe import DecodingSettings, ModelSettings
from tests.decoding.adapters import train_lora, with_adapter
from tests.models.test_prompt_reward_model import make_head, tensors_of
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def save_model(model: LanguageModel, directory: Path) -> str:
    model.model.save_pretrained(directory)
    model.tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def policies(policy: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("policies")
    models = {
        "backbone": policy,
        "retrained": make_language_model(policy.tokenizer, seed=9),
        "smaller": make_language_model(policy.tokenizer, seed=1, hidden_size=24),
        "foreign": make_language_model(make_tokenizer(extra=("ab", "cd")), seed=2),
    }
    return {name: save_model(model, directory / name) for name, model in models.items()}


@pytest.fixture(scope="module")
def reward_models(
    policy: LanguageModel, policies: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("reward-models")
    plain = make_reward_model(policy)
    models = {"plain": plain, "adapted": with_adapter(plain, train_lora(policy))}
    for name, model in models.items():
        (directory / name).mkdir()
        save_reward_model(model, directory / name, ModelSettings(model=policies["backbone"]))
    released = directory / "released"
    save_model(policy, released)
    save_file(tensors_of(make_head(policy.hidden_size)), released / VALUE_HEAD)
    return {name: str(directory / name) for name in ("plain", "adapted", "released")}


@pytest.mark.parametrize(
    ("reward_model", "policy_name", "path"),
    [
        ("plain", "backbone", "fused"),
        ("adapted", "backbone", "paired"),
        ("plain", "retrained", "separate"),
        ("plain", "smaller", "separate"),
        ("adapted", "smaller", "separate"),
        ("plain", "foreign", "bridged"),
        ("adapted", "foreign", None),
        ("released", "smaller", "separate"),
    ],
)
def test_the_path_is_the_one_that_the_engine_takes(
    reward_models: dict[str, str], policies: dict[str, str], reward_model: str, policy_name: str, path: str | None
) -> None:
    settings = ModelSettings(model=policies[policy_name], device="cpu")
    found = fit_policy(reward_models[reward_model], settings)
    assert found.path == path
    assert found.same_vocabulary == (policy_name != "foreign")
    assert found.reason
    policy = load_language_model(settings)
    model = load_reward_model(reward_models[reward_model], backbone=policy, device="cpu")
    if path is not None:
        assert PadEngine(policy, model).path(DecodingSettings()) == path


def test_the_backbone_with_other_weights_is_told_apart(reward_models: dict[str, str], policies: dict[str, str]) -> None:
    found = fit_policy(reward_models["plain"], ModelSettings(model=policies["retrained"], device="cpu"))
    assert "other weights" in found.reason


def test_a_policy_that_is_not_there_is_a_load_error(reward_models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        fit_policy(reward_models["plain"], ModelSettings(model=str(tmp_path / "none")))
    assert caught.value.hint
