"""Tiny random models of several architectures, each with its own way from hidden state to logits."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
)

from pad_cli.models.language_model import LanguageModel, wrap_language_model

WINDOW = 8
"""Tokens that a sliding-window layer looks back."""

_EXTRAS: dict[str, tuple[type, dict[str, Any]]] = {
    "llama": (LlamaConfig, {"num_key_value_heads": 1}),
    "gemma2": (
        Gemma2Config,
        {
            "num_key_value_heads": 1,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "final_logit_softcapping": 8.0,
            "sliding_window": WINDOW,
        },
    ),
    "cohere": (CohereConfig, {"num_key_value_heads": 1, "logit_scale": 0.25}),
    "granite": (GraniteConfig, {"num_key_value_heads": 1, "logits_scaling": 4.0}),
    "gpt2": (GPT2Config, {}),
    "opt": (OPTConfig, {"ffn_dim": 32}),
    "opt-projected": (OPTConfig, {"ffn_dim": 32, "word_embed_proj_dim": 8, "do_layer_norm_before": False}),
    "gpt-neox": (GPTNeoXConfig, {"tie_word_embeddings": False}),
    "qwen2": (Qwen2Config, {"num_key_value_heads": 1}),
    "mistral": (MistralConfig, {"num_key_value_heads": 1, "sliding_window": WINDOW}),
    "phi": (PhiConfig, {}),
}
ARCHITECTURES = tuple(_EXTRAS)


def make_architecture(name: str, tokenizer: Any, seed: int = 0) -> LanguageModel:
    """A two-layer model of the named architecture in float32, every weight and bias random."""
    kind, extra = _EXTRAS[name]
    torch.manual_seed(seed)
    config = kind(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **({} if kind in (GPT2Config, OPTConfig) else {"intermediate_size": 32}),
        **({"word_embed_proj_dim": 16} if name == "opt" else {}),
        **extra,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    return wrap_language_model(name, model, tokenizer)
