"""Tiny real models for tests: built from configurations, seeded, saved and loaded as any other model is."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.models.reward_model import PersonalizedRewardModel

PRINCIPLES = ("humorous", "formal", "concise")
_SPECIALS = ("<pad>", "<end>", "<user>", "<assistant>")
_TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<end>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def make_tokenizer(*, chat: bool = True, extra: tuple[str, ...] = ()) -> Any:
    """Tokens are the bytes of UTF-8, after four special ones; `extra` tokens change the vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*_SPECIALS, *alphabet, *extra])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    if chat:
        wrapped.chat_template = _TEMPLATE
    return wrapped


def make_language_model(
    tokenizer: Any, *, seed: int, hidden_size: int = 32, tied: bool = True, positions: int = 256
) -> LanguageModel:
    """A random two-layer Llama in float32, with weights large enough that its answers vary."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return wrap_language_model(f"tiny-{seed}", model, tokenizer)


def make_reward_model(backbone: LanguageModel, seed: int = 0, scale: float = 0.3) -> PersonalizedRewardModel:
    """Heads whose B is random instead of zero, so that they reward something."""
    heads = PreferenceHeads(PRINCIPLES, backbone.hidden_size, rank=2, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        heads.up.copy_(scale * torch.randn(heads.up.shape, generator=generator))
    return PersonalizedRewardModel(backbone, heads.eval().requires_grad_(False))
