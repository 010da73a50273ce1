"""How much a model can read, whatever its architecture calls it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CTRLConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    OPTConfig,
)

from pad_cli.errors import UsageError
from pad_cli.models.language_model import context_length, cut_to_context
from tests.tiny import make_language_model

SMALL = {"vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "rope_theta": 1e4,
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPT2Config(n_positions=64, **SMALL), 64),
        (CTRLConfig(n_positions=32, vocab_size=8, n_embd=4, n_layer=1, n_head=1, dff=4), 32),
        (MptConfig(max_seq_len=24, vocab_size=8, d_model=4, n_layers=1, n_heads=1), 24),
        (OPTConfig(max_position_embeddings=40, ffn_dim=4, word_embed_proj_dim=4, **SMALL), 40),
        (LlamaConfig(max_position_embeddings=48, intermediate_size=4, **SMALL), 48),
        (LlamaConfig(max_position_embeddings=32, intermediate_size=4, rope_parameters=YARN, **SMALL), 128),
        (LlamaConfig(max_position_embeddings=128, intermediate_size=4, rope_parameters=LLAMA3, **SMALL), 128),
        (BloomConfig(vocab_size=8, hidden_size=4, n_layer=1, n_head=1), None),
        (MambaConfig(vocab_size=8, hidden_size=4, num_hidden_layers=1, state_size=2), None),
    ],
    ids=lambda value: value.model_type if hasattr(value, "model_type") else str(value),
)
def test_the_limit_is_found_under_every_name(config: Any, expected: int | None) -> None:
    with torch.device("meta"):
        assert context_length(AutoModelForCausalLM.from_config(config)) == expected


def test_a_longer_text_is_refused_with_the_limit_and_the_padding_does_not_count(byte_tokenizer: Any) -> None:
    model = make_language_model(byte_tokenizer, seed=0, positions=8)
    tokens, mask = torch.full((1, 9), 5), torch.ones(1, 9, dtype=torch.long)
    with pytest.raises(UsageError, match="9 tokens is too long for 'tiny-0', which reads at most 8"):
        model.hidden_states(tokens, mask)
    mask[0, 0] = 0
    assert model.hidden_states(tokens, mask).shape == (1, 9, model.hidden_size)


def test_prompts_leave_room_for_an_answer_but_never_more_than_half() -> None:
    assert cut_to_context(None, 500, 96) == 500
    assert cut_to_context(1000, 500, 96) == 500
    assert cut_to_context(400, 500, 96) == 304
    assert cut_to_context(64, 500, 96) == 32
