"""An enlarged Llama costs more and says the same."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from pad_cli.decoding.engine import PadEngine
from pad_cli.models.language_model import wrap_language_model
from pad_cli.recipe import DecodingSettings
from pad_cli.world.shipped_models import enlarge
from tests.agreement import alone, assert_agree

VOCABULARY = 40
PAD, END = 0, 1


def make_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A random Llama with two queries to a key, every gain and bias random.

    Larger weights make its logits so sensitive that rounding alone changes them by 1e-4.
    """
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 24,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "bos_token_id": None,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**(sizes | changes))).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    return model


def left_padded(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens (3, 12) and their mask; the rows are 12, 7 and 1 tokens long."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, VOCABULARY, (3, 12), generator=generator)
    mask = torch.ones_like(tokens)
    mask[1, :5], mask[2, :11] = 0, 0
    return tokens.where(mask == 1, PAD), mask


def positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def logits_at_once(model: LlamaForCausalLM, seed: int = 0) -> torch.Tensor:
    """Logits of every real token: (20, V)."""
    tokens, mask = left_padded(seed)
    logits: torch.Tensor = model(tokens, attention_mask=mask, position_ids=positions(mask)).logits
    return logits[mask == 1]


@torch.no_grad()
def logits_with_a_cache(model: LlamaForCausalLM, seed: int = 0) -> torch.Tensor:
    """The same logits, the first nine columns read at once and each further one by itself."""
    tokens, mask = left_padded(seed)
    cache, parts = DynamicCache(config=model.config), []
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    for start, end in ((0, 9), (9, 10), (10, 11), (11, 12)):
        done = model(
            tokens[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=positions(mask)[:, start:end],
            use_cache=True,
            **{name: cache},
        )
        parts.append(done.logits)
    return torch.cat(parts, dim=1)[mask == 1]


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=5e-5)


@pytest.mark.parametrize("layers", range(4))
@pytest.mark.parametrize("width", range(1, 4))
def test_the_logits_are_those_of_the_original(width: int, layers: int) -> None:
    model = make_llama()
    large = enlarge(model, width, layers)
    close(logits_at_once(large), logits_at_once(model))
    close(logits_with_a_cache(large), logits_at_once(model))


@settings(max_examples=50, deadline=None)
@given(
    width=st.integers(1, 3),
    layers=st.integers(0, 3),
    old_layers=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (3, 1), (4, 2), (3, 3)]),
    head_dim=st.sampled_from([2, 8, 12]),
    attention_bias=st.booleans(),
    mlp_bias=st.booleans(),
    tied=st.booleans(),
    rope=st.sampled_from([{"rope_type": "default"}, {"rope_type": "linear", "factor": 4.0}]),
    seed=st.integers(0, 99),
)
def test_the_logits_are_those_of_the_original_for_every_configuration(
    width: int,
    layers: int,
    old_layers: int,
    heads: tuple[int, int],
    head_dim: int,
    attention_bias: bool,
    mlp_bias: bool,
    tied: bool,
    rope: dict[str, Any],
    seed: int,
) -> None:
    model = make_llama(
        seed,
        num_hidden_layers=old_layers,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        head_dim=head_dim,
        attention_bias=attention_bias,
        mlp_bias=mlp_bias,
        tie_word_embeddings=tied,
        rope_parameters={"rope_theta": 10000.0} | rope,
    )
    large = enlarge(model, width, layers)
    close(logits_at_once(large, seed), logits_at_once(model, seed))
    close(logits_with_a_cache(large, seed), logits_with_a_cache(model, seed))


@pytest.mark.parametrize("width", [2, 3])
def test_greedy_generation_is_identical(width: int, byte_tokenizer: Any) -> None:
    model = make_llama()
    model.generation_config.eos_token_id = None
    tokens, mask = left_padded()
    wanted, ours = (
        m.generate(tokens, attention_mask=mask, do_sample=False, max_new_tokens=30)[:, 12:]
        for m in (model, enlarge(model, width, 2))
    )
    engine = PadEngine(wrap_language_model("small", model, byte_tokenizer))
    prompts = [row[kept == 1].tolist() for row, kept in zip(tokens, mask, strict=True)]
    assert_agree(wanted.tolist(), ours.tolist(), alone(engine, prompts, None, DecodingSettings(max_new_tokens=30)))
    assert wanted.unique().numel() > 10, "the original says too little to compare"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("width", "layers"), [(1, 0), (1, 2), (2, 0), (3, 1)])
def test_weights_grow_with_the_square_of_the_width_and_with_the_layers(width: int, layers: int, bias: bool) -> None:
    model = make_llama(tie_word_embeddings=True, attention_bias=bias, mlp_bias=bias)
    large = enlarge(model, width, layers)
    block, embedding = model.model.layers[0], model.model.embed_tokens.weight.numel()
    matrices = sum(p.numel() for p in block.parameters() if p.ndim == 2)
    vectors = sum(p.numel() for p in block.parameters() if p.ndim == 1)
    blocks = (2 + layers) * (width**2 * matrices + width * vectors)
    assert sum(p.numel() for p in large.parameters()) == 2 * width * embedding + blocks + width * 24
    assert large.config.num_hidden_layers == 2 + layers
    assert large.config.head_dim == model.config.head_dim


@pytest.mark.parametrize(("layers", "old"), [(0, [0, 1]), (1, [0, 1]), (2, [0, 2]), (4, [0, 3]), (5, [0, 3])])
def test_the_further_blocks_stand_evenly_between_and_behind_the_old(layers: int, old: list[int]) -> None:
    large = enlarge(make_llama(), 1, layers)
    loud = [number for number, block in enumerate(large.model.layers) if block.mlp.down_proj.weight.any()]
    assert loud == old


def test_a_further_block_adds_exactly_nothing_and_its_other_weights_are_random() -> None:
    model = make_llama(attention_bias=True, mlp_bias=True)
    block = enlarge(model, 2, 1).model.layers[2]
    for name, weight in block.named_parameters():
        adds = name.split(".")[-2] in ("o_proj", "down_proj")
        assert adds == (not weight.any()) or name.endswith("bias"), name
        assert adds or weight.ndim == 1 or weight.unique().numel() > 0.9 * weight.numel(), name
    hidden = torch.randn(2, 5, 48)
    angles = torch.randn(1, 5, 6)
    assert torch.equal(block(hidden, position_embeddings=(angles.cos(), angles.sin())), hidden)


def test_the_seed_decides_the_further_blocks_and_nothing_else_is_drawn() -> None:
    model = make_llama()
    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (enlarge(model, 2, 1, seed).model.layers[2] for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), undisturbed)
    assert torch.equal(first.mlp.up_proj.weight, again.mlp.up_proj.weight)
    assert not torch.equal(first.mlp.up_proj.weight, other.mlp.up_proj.weight)


def test_the_original_is_left_as_it_is() -> None:
    model = make_llama(tie_word_embeddings=True)
    config, weights = model.config.to_dict(), {name: weight.clone() for name, weight in model.state_dict().items()}
    large = enlarge(model, 2, 1)
    for parameter in large.parameters():
        parameter.data.zero_()
    large.generation_config.max_new_tokens = 3
    assert model.config.to_dict() == config
    assert model.generation_config.max_new_tokens is None
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_number_format_and_generation_settings_stay_also_on_disk(dtype: torch.dtype, tmp_path: Any) -> None:
    model = make_llama(tie_word_embeddings=True)
    model.generation_config.update(repetition_penalty=1.3, eos_token_id=[END, 7])
    model.to(dtype)
    large = enlarge(model, 2, 1)
    large.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, dtype="auto")
    for each in (large, loaded):
        assert {p.dtype for p in each.parameters()} == {dtype}
        assert each.generation_config.repetition_penalty == 1.3
        assert each.generation_config.eos_token_id == [END, 7]
        assert not each.training
    assert torch.equal(logits_at_once(loaded), logits_at_once(large))
