"""LoRA on a backbone of 4 or 8 bits (QLoRA), trained and decoded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from pad_cli.errors import TrainingError
from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel, load_language_model, wrap_language_model
from pad_cli.recipe import ModelSettings
from pad_cli.training.lora import train_lora
from tests.tiny import make_language_model
from tests.training.test_lora_stages import (
    LEARNING,
    adapter_stage,
    close,
    condition,
    joint_stage,
    kept,
    make_heads,
    tables,
)

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes"),
    pytest.mark.filterwarnings("ignore"),
]


def quantised(bits: str, tokenizer: Any, directory: Path) -> LanguageModel:
    plain = make_language_model(tokenizer, seed=0, hidden_size=64)
    plain.model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    content = {"model": str(directory), "quantization": bits, "device": "cpu"}
    return load_language_model(ModelSettings.model_validate(content))


def read(model: LanguageModel) -> torch.Tensor:
    tokens = torch.tensor([[5, 40, 60, 7, 9, 30]])
    with torch.inference_mode():
        return model.hidden_states(tokens, torch.ones_like(tokens))


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantised_backbone_trains_and_decodes_through_its_adapter(
    bits: str, byte_tokenizer: Any, tmp_path: Path
) -> None:
    backbone = quantised(bits, byte_tokenizer, tmp_path / "model")
    before, heads = condition(backbone), make_heads(backbone)
    sequences, pairs, weights = tables(backbone)
    stage = joint_stage(**LEARNING, evaluate_every=40)
    adapter, history = train_lora(
        stage, backbone, heads, sequences, pairs, weights, validation=[("own", pairs, weights)],
        directory=tmp_path / "run", seed=0,
    )  # fmt: skip
    adapter.remove_hooks()
    assert condition(backbone) == before
    assert {tensor.dtype for tensor in kept(tmp_path / "run").values()} == {torch.float32}
    assert history[-1]["splits"]["own"]["pair_accuracy"] > 0.9
    for module in backbone.model.modules():  # PEFT repacks the weights that bitsandbytes packed, wrongly
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    plain = read(backbone)
    adapter = Adapter.load(tmp_path / "run" / "last", backbone.model)
    with adapter.on_rows_from(0):
        ours = read(backbone)
    adapter.remove_hooks()
    trained = PeftModel.from_pretrained(backbone.model, str(tmp_path / "run" / "last")).eval()
    theirs = read(backbone)
    trained.unload()
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)
    assert (ours - plain).abs().max() > 0.3


def test_weights_of_4_bits_train_as_their_values_written_out(byte_tokenizer: Any, tmp_path: Path) -> None:
    stage, found = adapter_stage(learning_rate=0.01, steps=3), []
    for name in ("packed", "written out"):
        model = quantised("4bit", byte_tokenizer, tmp_path / "model")
        if name == "written out":
            model = wrap_language_model(name, model.model.dequantize(), byte_tokenizer)
        train_lora(stage, model, None, *tables(model), directory=tmp_path / name, seed=0)
        found.append(kept(tmp_path / name))
    close(*found, tolerance=1e-4)


def test_weights_of_4_bits_that_cannot_be_trained_any_more_are_refused(byte_tokenizer: Any, tmp_path: Path) -> None:
    model = quantised("4bit", byte_tokenizer, tmp_path / "model")
    read(model)
    layers = [module for module in model.model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    if not getattr(layers[0].weight.quant_state, "packing_format_for_cpu", False):
        pytest.skip("this CPU does not repack")
    with pytest.raises(TrainingError, match="pass no gradients"):
        train_lora(adapter_stage(), model, None, *tables(model), directory=tmp_path, seed=0)
