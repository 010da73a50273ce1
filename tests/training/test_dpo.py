"""Plain DPO by TRL: the weights that our own loop gives, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pad_cli.errors import RecipeError
from pad_cli.models.language_model import LanguageModel
from pad_cli.training import dpo
from pad_cli.training.lora import train_lora
from tests.tiny import make_language_model
from tests.training.test_lora_stages import adapter_stage, condition, tables

VARIANTS: dict[str, dict[str, Any]] = {
    "decayed": {"weight_decay": 0.5},
    "length-normalised": {"length_normalised": True, "beta": 3.0},
    "accumulated": {"batch_size": 2, "accumulation_steps": 3, "warmup_steps": 1},
    "checkpointed": {"gradient_checkpointing": True, "save_every": 1},
}


@pytest.fixture
def backbone(byte_tokenizer: Any) -> LanguageModel:
    return make_language_model(byte_tokenizer, seed=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_trl_trains_the_weights_that_the_stage_adapter_does(
    variant: str, backbone: LanguageModel, tmp_path: Path
) -> None:
    stage = adapter_stage(learning_rate=0.01, anchor=0.0, **{"steps": 3, **VARIANTS[variant]})
    sequences, pairs, weights = tables(backbone)
    before = condition(backbone)
    theirs = dpo.train_dpo(stage, backbone, sequences, pairs, directory=tmp_path / "trl", seed=3)
    theirs.remove_hooks()
    assert condition(backbone) == before
    ours, _ = train_lora(stage, backbone, None, sequences, pairs, weights, directory=tmp_path / "ours", seed=3)
    ours.remove_hooks()
    for one, other in zip(theirs.tensors, ours.tensors, strict=True):
        assert (one - other).abs().max() < 1e-4
    assert max(tensor.abs().max() for tensor in theirs.tensors) > 1e-3


def test_a_checkpoint_that_was_not_finished_falls_back_to_the_one_before(
    backbone: LanguageModel, tmp_path: Path
) -> None:
    sequences, pairs, _ = tables(backbone)
    stage = adapter_stage(steps=4, save_every=2, anchor=0.0)
    dpo.train_dpo(stage, backbone, sequences, pairs, directory=tmp_path, seed=0).remove_hooks()
    assert dpo._last_whole(tmp_path) == str(tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text('{"global_step": 4')
    assert dpo._last_whole(tmp_path) == str(tmp_path / "checkpoint-2")
    assert not (tmp_path / "checkpoint-4").exists()


@pytest.mark.parametrize("changed", [{"anchor": 0.1}, {"label_smoothing": 0.1}])
def test_what_dpo_does_not_have_is_refused(changed: dict[str, Any], backbone: LanguageModel, tmp_path: Path) -> None:
    stage = adapter_stage(**{"anchor": 0.0, **changed})
    sequences, pairs, _ = tables(backbone)
    with pytest.raises(RecipeError, match="DPO has neither"):
        dpo.train_dpo(stage, backbone, sequences, pairs, directory=tmp_path, seed=0)
