"""Reward models with an adapter: random LoRA weights that PEFT itself made and wrote."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel

LLAMA_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LINEARS: dict[str, tuple[str, ...]] = {
    "llama": LLAMA_LINEARS,
    "gemma2": LLAMA_LINEARS,
    "mistral": LLAMA_LINEARS,
    "qwen2": LLAMA_LINEARS,
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt-neox": ("query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}
"""Every linear layer of a body, by the architecture's name in `tests/architectures.py`."""


def train_lora(model: LanguageModel, targets: tuple[str, ...] = LLAMA_LINEARS, scale: float = 0.2) -> Any:
    """A PeftModel on a copy of the model; `scale` is that of its random weights, 0 for LoRA that changes nothing."""
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=6, task_type="CAUSAL_LM", target_modules=list(targets))
    config.fan_in_fan_out = model.model.config.model_type == "gpt2"
    trained = get_peft_model(copy.deepcopy(model.model), config).eval().requires_grad_(False)
    for name, parameter in trained.named_parameters():
        if "lora_" in name:
            parameter.copy_(scale * torch.randn_like(parameter))
    return trained


def with_adapter(model: PersonalizedRewardModel, trained: Any) -> PersonalizedRewardModel:
    """The reward model with the LoRA weights of a PeftModel, which pass through PEFT's files."""
    with tempfile.TemporaryDirectory() as directory:
        trained.save_pretrained(directory)
        return replace(model, adapter=Adapter.load(Path(directory), model.backbone.model))
