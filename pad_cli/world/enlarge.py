"""A larger Llama that writes exactly what a small one writes: the cost of many weights, the sense of few.

Every feature is repeated r times and every linear map averages over the copies. With R x = (x, ..., x), r copies
of x one after another, each part of the large model sees R x where the small one sees x:

    embedding       E'[v] = R E[v]
    norm            g' = R g                                  the mean square of R x is that of x
    linear map      W' = W / r in each of r x r tiles         W' R x + R b = R (W x + b)
    heads           r A query and r K key-value heads of the old size, copies of the A and the K
    unembedding     U' = (U, ..., U) / r                      U' R h = U h

Query head c A + i reads key-value head c K + floor(i K / A), as head i read floor(i K / A); RoPE turns each head as
before. E' and U' differ by 1 / r, so they are no longer tied. An inserted block has random weights, but o_proj and
down_proj are zero: what it adds to x is 0.

`embedded/enlarged` is `embedded/large` enlarged on first use, and cached in `PAD_HOME`: it is too large to ship.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pad_cli.models.language_model import load_language_model
from pad_cli.recipe import ModelSettings
from pad_cli.system.progress import note, stage
from pad_cli.system.runs import home, in_turn, whole_directory

_WIDTH, _LAYERS = 4, 8  # times the width of `large`, and blocks more than it


def enlarged_directory() -> Path:
    """The large policy, enlarged: a directory named by that policy's fingerprint.

    Raises:
        StorageError: `PAD_HOME` cannot be written.
    """
    large = load_language_model(ModelSettings(model="embedded/large", dtype="float32", device="cpu"))
    directory = home() / f"embedded-enlarged-{_WIDTH}-{_LAYERS}-{large.fingerprint}"
    if not directory.is_dir():
        with in_turn(directory):
            if not directory.is_dir():
                note(f"Writing the enlarged policy to {directory} (once).")
                with stage("Enlarging the large policy"), whole_directory(directory) as scratch:
                    enlarge(large.model, _WIDTH, _LAYERS).save_pretrained(scratch)
                    large.tokenizer.save_pretrained(scratch)
    return directory


@torch.no_grad()
def enlarge(model: LlamaForCausalLM, width: int, layers: int, seed: int = 0) -> LlamaForCausalLM:
    """A new, larger Llama with the same logits, up to rounding in the model's dtype.

    Args:
        model: any Llama; it is left as it is.
        width: r; multiplies hidden size, attention heads, key-value heads and the MLP's width.
        layers: further blocks, between the L old ones: old block i is number floor(i (L + layers) / L), from 0.
        seed: of the further blocks' weights.
    """
    old = model.model.layers
    large = _random(_config(model.config, width, layers), model.dtype, seed).to(model.device)
    large.generation_config = copy.deepcopy(model.generation_config)
    large.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight.tile(1, width))
    places = {number * (len(old) + layers) // len(old): block for number, block in enumerate(old)}
    for place, block in enumerate(large.model.layers):
        if place in places:
            _repeat(places[place], block, width)
        else:
            _silence(block)
    _repeat(model.model.norm, large.model.norm, width)
    large.lm_head.weight.copy_(model.lm_head.weight.tile(1, width) / width)
    return large.eval()


def _config(config: LlamaConfig, width: int, layers: int) -> LlamaConfig:
    large = copy.deepcopy(config)
    for size in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        setattr(large, size, width * getattr(config, size))
    large.num_hidden_layers += layers
    large.tie_word_embeddings = False
    return large


def _random(config: LlamaConfig, dtype: torch.dtype, seed: int) -> LlamaForCausalLM:
    """A randomly initialised model; the caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def _repeat(old: nn.Module, new: nn.Module, width: int) -> None:
    """Norm gains and biases are repeated; weights are tiled and divided."""
    for name, weight in old.named_parameters():
        repeated = weight.tile(width) if weight.ndim == 1 else weight.tile(width, width) / width
        new.get_parameter(name).copy_(repeated)


def _silence(block: nn.Module) -> None:
    """Let a block add nothing."""
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        for parameter in block.get_submodule(name).parameters():
            parameter.zero_()
