"""A tiny random model of every causal architecture of transformers, made from its configuration's own defaults."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

NAMES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

WIDTH, HEADS, LAYERS, VOCABULARY = 32, 4, 2, 260

_SIZES = (
    (
        WIDTH,
        "hidden_size d_model n_embd embedding_dim emb_dim embedding_size word_embed_proj_dim "
        "input_embedding_size output_embedding_size mamba_d_ssm lru_width attention_hidden_size "
        "dim_model_base hidden_size_global",
    ),
    (
        2 * WIDTH,
        "intermediate_size moe_intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim dim_ff dff "
        "d_inner ffn_hidden_size expert_ffn_hidden_size feed_forward_size shared_expert_intermediate_size "
        "shared_intermediate_size intermediate_size_mlp dense_intermediate_size "
        "moe_shared_expert_intermediate_size shared_experts_intermediate_size attention_head_dim",
    ),
    (
        HEADS,
        "num_attention_heads decoder_attention_heads encoder_attention_heads attention_heads n_head "
        "n_heads num_heads num_decoder_attention_heads num_encoder_attention_heads linear_num_heads "
        "linear_num_value_heads mamba_num_heads mamba_n_heads n_mamba_heads index_n_heads "
        "swa_num_attention_heads num_experts n_routed_experts num_local_experts moe_num_experts "
        "num_query_groups d_rel",
    ),
    (
        2,
        "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads "
        "num_experts_per_tok num_experts_per_token moe_topk moe_k n_group num_expert_group topk_group "
        "n_groups",
    ),
    (
        8,
        "head_dim d_head dim_head attention_head_size kv_channels qk_rope_head_dim qk_nope_head_dim "
        "v_head_dim kv_lora_rank q_lora_rank o_lora_rank linear_key_head_dim linear_value_head_dim "
        "linear_head_dim index_head_dim swa_head_dim rotary_dim query_pre_attn_scalar mamba_d_state "
        "state_size ssm_state_size mamba_d_head mamba_head_dim mamba_headdim sliding_window "
        "sliding_window_size window_size attention_window_size local_attention attention_chunk_size "
        "keep_window_size block_size mamba_chunk_size chunk_size time_step_rank mamba_dt_rank "
        "router_hidden_size laurel_rank hidden_size_per_layer_input adapter_rank loop_gate_rank "
        "gated_norm_rank",
    ),
    (
        LAYERS,
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers "
        "num_encoder_layers num_blocks num_layers_per_stack n_input_layers n_recurrent_layers "
        "n_output_layers",
    ),
    (64, "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions rel_extent index_topk"),
    (VOCABULARY, "vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size"),
    (1, "first_k_dense_replace num_dense_layers o_groups"),
    (0, "num_nextn_predict_layers num_kv_shared_layers"),
)
_SMALL = {name: size for size, names in _SIZES for name in names.split()}
_FLOATS = {  # what stands between the unembedding and logits, so that leaving it out shows
    "logits_scaling": 4.0,
    "logit_scale": 0.25,
    "lm_head_multiplier": 0.04,
    "logits_mup_width_multiplier": 4.0,
    "final_logit_softcapping": 3.0,
    "logits_soft_cap": 3.0,
    "output_logit_soft_cap": 3.0,
}
_DEEPER = {"num_hidden_layers": 4}  # so that there is attention beside the recurrent layers
_INDEXER = {
    "indexer_n_heads": HEADS,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}
_LATE_SHARED = {  # the last layers read the keys and values of those before
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
}
_SHARED = {
    "num_hidden_layers": 4,
    "layers_block_type": ["linear_attention", "hybrid"] * 2,
    "attention_hidden_size": None,
}
UNMADE = {
    "dots3_note": "its text part is walked as dots3_note_text",
    "gemma3n": "it needs Pillow and timm; its text part is walked as gemma3n_text",
    "gemma4_assistant": "it drafts from the states of another model",
    "musicgen": "transformers builds no causal language model of it: it is audio",
    "musicgen_melody": "transformers builds no causal language model of it: it is audio",
}
"""Architectures of which there is no tiny model, and why."""

_EXTRA: dict[str, dict[str, Any]] = {  # None leaves a size to the configuration
    "bailing_hybrid": {"num_hidden_layers": 6},
    "bamba": {**_DEEPER, "mamba_d_head": 16, "mamba_n_heads": HEADS, "attn_layer_indices": [1], "mamba_expand": 2},
    "blt": {"encoder_hash_byte_group_vocab": 50},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "doge": {"keep_window_size": 64},  # a narrower one chooses among equals where tokens repeat
    "dory": {"num_hidden_layers": 3, "n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1},
    "dots1": {"n_routed_experts": HEADS, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note/text_config": {"num_key_value_heads": HEADS, "num_attention_heads": HEADS},
    "dots3_note_text": {"num_key_value_heads": HEADS, "num_attention_heads": HEADS},
    "gemma3n_text": {"intermediate_size": 2 * WIDTH, **_LATE_SHARED},
    "gemma4_text": _LATE_SHARED,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": LAYERS},
    "granitemoehybrid": {
        "mamba_d_head": 16,
        "mamba_n_heads": HEADS,
        "layer_types": ["mamba", "attention"],
        "num_hidden_layers": 2,
    },
    "hrm_text": {"num_layers_per_stack": None},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"num_hidden_layers": 5},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "lfm3": _DEEPER,
    "mamba2": {"head_dim": 16, "num_heads": HEADS, "hidden_size": WIDTH},
    "qwen3_5/text_config": _DEEPER,
    "qwen3_5_moe/text_config": _DEEPER,
    "qwen3_5_moe_text": _DEEPER,
    "qwen3_5_text": _DEEPER,
    "qwen3_next": _DEEPER,
    "qwen4_exp/text_config": {**_DEEPER, **_INDEXER},
    "qwen4_exp_text": {**_DEEPER, **_INDEXER},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "is_decoder": True,
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "num_buckets": 4,
    },
    "roc_bert": {
        "shape_vocab_size": 20,
        "pronunciation_vocab_size": 20,
        "shape_embed_dim": 8,
        "pronunciation_embed_dim": 8,
    },
    "xlm": {"causal": True},
    "xlnet": {"attn_type": "uni"},
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {**_SHARED, "attention_head_dim": 16},
    "zamba2": {**_SHARED, "attention_head_dim": None, "mamba_headdim": None},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(name: str, **settings: Any) -> Any:
    """The architecture's configuration with every size made small, a decoder unless the settings say otherwise."""
    kind = CONFIG_MAPPING[name]
    return kind(**{**_shrunk(kind, name), **settings})


def _shrunk(kind: Any, name: str) -> dict[str, Any]:
    default = kind()
    sizes = default.to_dict()
    found = {key: _SMALL[key] for key, value in sizes.items() if key in _SMALL and type(value) is int and value}
    if sizes.get("kv_lora_rank"):  # latent attention: every head has its own keys
        found["num_key_value_heads"] = HEADS
    found.update({key: _SMALL[key] for key in ("head_dim", "num_key_value_heads") if sizes.get(key, 0) is None})
    found.update({key: number for key, number in _FLOATS.items() if key in sizes})
    if "is_decoder" in sizes:
        found["is_decoder"] = True
    for part in default.sub_configs:
        value = getattr(default, part, None)
        if value is not None:
            found[part] = _shrunk(type(value), f"{name}/{part}")
    for token in ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id"):
        if hasattr(default, token):
            found[token] = 1
    return {key: value for key, value in {**found, **_EXTRA.get(name, {})}.items() if value is not None}


@torch.no_grad()
def tiny_model(name: str, seed: int = 0, **settings: Any) -> Any:
    """The model in float32, with weights so large that a part which is left out shows."""
    torch.manual_seed(seed)
    with _silent():
        model = AutoModelForCausalLM.from_config(tiny_config(name, **settings), dtype=torch.float32)
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        parameter.copy_(0.3 * noise) if parameter.ndim > 1 else parameter.add_(0.2 * noise)
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
