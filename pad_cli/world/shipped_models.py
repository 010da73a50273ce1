"""The embedded world's models: where a name like `embedded/medium` leads.

    embedded/small         0.14 M parameters
    embedded/medium        0.50 M parameters, under the reward model
    embedded/large         1.5 M parameters, trained on other documents
    embedded/following     0.50 M parameters, trained to do what a preference in its prompt says
    embedded/reward-model  the shipped recipe `embedded` on embedded/medium
    embedded/enlarged      61 M parameters that write what `large` writes, to measure speculative decoding on

All but the last ship with the package, in `data/embedded/`, where `make embedded` writes them. The last is too large to
ship: it is made from `large` on first use, and cached in `PAD_HOME`. Every feature is repeated r times and every linear
map averages over the copies. With R x = (x, ..., x), r copies of x one after another, each part of the large model sees
R x where the small one sees x:

    embedding       E'[v] = R E[v]
    norm            g' = R g                                  the mean square of R x is that of x
    linear map      W' = W / r in each of r x r tiles         W' R x + R b = R (W x + b)
    heads           r A query and r K key-value heads of the old size, copies of the A and the K
    unembedding     U' = (U, ..., U) / r                      U' R h = U h

Query head c A + i reads key-value head c K + floor(i K / A), as head i read floor(i K / A); RoPE turns each head as
before. E' and U' differ by 1 / r, so they are no longer tied. An inserted block has random weights, but o_proj and
down_proj are zero: what it adds to x is 0.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from pad_cli.errors import UsageError, did_you_mean
from pad_cli.system.resources import shipped

if TYPE_CHECKING:  # a shipped model is found without torch
    from torch import nn
    from transformers import LlamaConfig, LlamaForCausalLM

SHIPPED = ("small", "medium", "large", "following", "reward-model")
_ENLARGED = "enlarged"
_WIDTH, _LAYERS = 4, 8  # of it: times the width of `large`, and blocks more


def model_directory(name: str) -> Path:
    """Small language models and a reward model that ship with the package: the directory of one.

    Raises:
        UsageError: there is no such model.
        StorageError: the installation lacks its files, or `PAD_HOME` cannot be written.
    """
    if name == _ENLARGED:
        return enlarged_directory()
    if name not in SHIPPED:
        raise UsageError(f"No embedded model is named '{name}'.", did_you_mean(name, (*SHIPPED, _ENLARGED)))
    return shipped(f"data/embedded/{name}")


def enlarged_directory() -> Path:
    """The large policy, enlarged: a directory named by that policy's fingerprint.

    Raises:
        StorageError: `PAD_HOME` cannot be written.
    """
    from pad_cli.models.language_model import load_language_model
    from pad_cli.recipe import ModelSettings
    from pad_cli.system.progress import note, stage
    from pad_cli.system.runs import home, in_turn, whole_directory

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


def enlarge(model: LlamaForCausalLM, width: int, layers: int, seed: int = 0) -> LlamaForCausalLM:
    """A new, larger Llama with the same logits, up to rounding in the model's dtype.

    Args:
        model: any Llama; it is left as it is.
        width: r; multiplies hidden size, attention heads, key-value heads and the MLP's width.
        layers: further blocks, between the L old ones: old block i is number floor(i (L + layers) / L), from 0.
        seed: of the further blocks' weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    old = model.model.layers
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        torch.default_generator.manual_seed(seed)
        large = AutoModelForCausalLM.from_config(_config(model.config, width, layers), dtype=model.dtype)
    large.to(model.device).generation_config = copy.deepcopy(model.generation_config)
    places = {number * (len(old) + layers) // len(old): block for number, block in enumerate(old)}
    with torch.no_grad():
        large.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight.tile(1, width))
        for place, block in enumerate(large.model.layers):
            if place in places:
                _repeat(places[place], block, width)
            else:  # it adds nothing
                for name in ("self_attn.o_proj", "mlp.down_proj"):
                    for parameter in block.get_submodule(name).parameters():
                        parameter.zero_()
        _repeat(model.model.norm, large.model.norm, width)
        large.lm_head.weight.copy_(model.lm_head.weight.tile(1, width) / width)
    enlarged: LlamaForCausalLM = large.eval()
    return enlarged


def _config(config: LlamaConfig, width: int, layers: int) -> LlamaConfig:
    large = copy.deepcopy(config)
    for size in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        setattr(large, size, width * getattr(config, size))
    large.num_hidden_layers += layers
    large.tie_word_embeddings = False
    return large


def _repeat(old: nn.Module, new: nn.Module, width: int) -> None:
    """Norm gains and biases are repeated; weights are tiled and divided."""
    for name, weight in old.named_parameters():
        repeated = weight.tile(width) if weight.ndim == 1 else weight.tile(width, width) / width
        new.get_parameter(name).copy_(repeated)
