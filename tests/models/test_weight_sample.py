"""A model is recognised in every dtype, and a changed one in none."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path

import pytest
import torch

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import CheckpointError
from pad_cli.models.checkpoint import load_reward_model, save_reward_model
from pad_cli.models.checkpoint_files import SAMPLE
from pad_cli.models.language_model import (
    LanguageModel,
    WeightSample,
    load_language_model,
    read_sample,
    same_model,
    wrap_language_model,
)
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings, ModelSettings
from tests.tiny import make_language_model, make_reward_model

DTYPES = ("float32", "bfloat16", "float16")
BEFORE = "a directory of version 0.1 has no sample"


def load(directory: Path, dtype: str) -> LanguageModel:
    return load_language_model(ModelSettings.model_validate({"model": str(directory), "dtype": dtype, "device": "cpu"}))


def saved(model: LanguageModel, directory: Path, dtype: str = "float32") -> Path:
    copy.deepcopy(model.model).to(getattr(torch, dtype)).save_pretrained(directory)
    model.tokenizer.save_pretrained(directory)
    return directory


def sample(values: list[float], dtype: torch.dtype = torch.float32) -> WeightSample:
    return WeightSample({"model_type": "llama"}, {"weight": torch.tensor(values, dtype=dtype)})


@pytest.fixture
def trained(policy: LanguageModel, model_directory: Path, tmp_path: Path) -> Path:
    """A reward model on the tiny policy, as `pad train-rm` leaves it."""
    (tmp_path / "rm").mkdir()
    settings = ModelSettings(model=str(model_directory))
    save_reward_model(make_reward_model(policy), tmp_path / "rm", settings)
    return tmp_path / "rm"


@pytest.mark.parametrize(("first", "second"), list(product(DTYPES, DTYPES)))
def test_a_model_is_the_same_in_every_two_dtypes(model_directory: Path, first: str, second: str) -> None:
    assert same_model(load(model_directory, first), load(model_directory, second))


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_a_copy_that_was_saved_in_a_narrow_dtype_is_the_same_model(
    policy: LanguageModel, tmp_path: Path, stored: str
) -> None:
    directory = saved(policy, tmp_path, stored)
    assert all(same_model(policy, load(directory, dtype)) for dtype in ("float32", stored))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_that_was_trained_a_little_is_another_in_every_dtype(
    policy: LanguageModel, tmp_path: Path, dtype: str
) -> None:
    """Weights of 0.3 that moved by 0.0003: a tenth of what bfloat16 tells apart there."""
    changed = make_language_model(policy.tokenizer, seed=0)
    torch.manual_seed(1)
    for weight in changed.model.parameters():
        weight.add_(3e-4 * torch.randn_like(weight))
    assert not same_model(policy, load(saved(changed, tmp_path), dtype))


def test_a_norm_that_left_its_ones_is_a_change_though_ones_fit_every_dtype(policy: LanguageModel) -> None:
    changed = make_language_model(policy.tokenizer, seed=0).model
    changed.model.norm.weight.mul_(1.0001)
    assert not same_model(policy, wrap_language_model("changed", changed, policy.tokenizer))


def test_two_roundings_agree_where_one_number_can_be_behind_both() -> None:
    """Between 1 and 2, float16 has steps of 1/1024 and bfloat16 of 1/128: 1 + 5/1024 lies between 1 and 1 + 8/1024."""
    half, whole = sample([1 + 5 / 1024, 0.3], torch.float16), sample([1 + 8 / 1024, 0.3], torch.bfloat16)
    far = sample([1.0, 0.3], torch.bfloat16)
    assert half.agrees(whole)
    assert whole.agrees(half)
    assert not half.agrees(far)
    assert not whole.agrees(far)
    assert not sample([0.1]).agrees(sample([0.1 + 2**-24]))
    assert not sample([1.0]).agrees(WeightSample({"model_type": "gpt2"}, {"weight": torch.tensor([1.0])}))
    assert not sample([1.0]).agrees(sample([1.0, 1.0]))


@pytest.mark.parametrize(
    ("dtype", "old"), [*((dtype, False) for dtype in DTYPES), ("float32", True), ("bfloat16", True)]
)
def test_a_reward_model_steers_its_backbone_in_every_dtype_and_stays_the_same_one(
    trained: Path, model_directory: Path, dtype: str, old: bool
) -> None:
    if old:
        (trained / SAMPLE).unlink()
    policy = load(model_directory, dtype)
    model = load_reward_model(str(trained), backbone=policy, device="cpu")
    assert PadEngine(policy, model).path(DecodingSettings()) == "fused"
    assert model.fingerprint == load_reward_model(str(trained), dtype="float32", device="cpu").fingerprint


@pytest.mark.parametrize(
    ("dtype", "old"), [*((dtype, False) for dtype in DTYPES), ("float32", True), ("float16", True)]
)
def test_what_float16_trained_steers_in_every_dtype(
    model_directory: Path, tmp_path: Path, dtype: str, old: bool
) -> None:
    narrow = load(model_directory, "float16")
    save_reward_model(make_reward_model(narrow), tmp_path, ModelSettings(model=str(model_directory)))
    if old:
        (tmp_path / SAMPLE).unlink()
    assert isinstance(load_reward_model(str(tmp_path), dtype=dtype, device="cpu"), PersonalizedRewardModel)


@pytest.mark.parametrize("old", [False, True], ids=["", BEFORE])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_backbone_that_changed_is_refused_in_every_dtype(
    policy: LanguageModel, tmp_path: Path, dtype: str, old: bool
) -> None:
    place = saved(policy, tmp_path / "model")
    (tmp_path / "rm").mkdir()
    save_reward_model(make_reward_model(load(place, "float32")), tmp_path / "rm", ModelSettings(model=str(place)))
    if old:
        (tmp_path / "rm" / SAMPLE).unlink()
    saved(make_language_model(policy.tokenizer, seed=5), place)
    with pytest.raises(CheckpointError, match="changed since"):
        load_reward_model(str(tmp_path / "rm"), dtype=dtype, device="cpu")


def test_a_damaged_sample_is_a_clear_error(trained: Path) -> None:
    (trained / SAMPLE).write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=SAMPLE):
        read_sample(trained / SAMPLE)
