"""Which layers get LoRA weights, and what `unchanged` gives back."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from pad_cli.errors import RecipeError
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.training.lora import linear_layers, unchanged
from tests.architectures import ARCHITECTURES, make_architecture
from tests.decoding.adapters import train_lora
from tests.every_architecture import tiny_model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_linear_layers_of_the_body_and_never_the_unembedding(name: str, byte_tokenizer: Any) -> None:
    model = make_architecture(name, byte_tokenizer).model
    layers = linear_layers(model, "all-linear")
    matrices = {
        path
        for path, parameter in ((p.removesuffix(".weight"), w) for p, w in model.named_parameters())
        if parameter.ndim == 2 and "embed" not in path and "wte" not in path and "wpe" not in path
    }
    output = next(path for path, module in model.named_modules() if module is model.get_output_embeddings())
    assert set(layers) == matrices - {output}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # called by peft
@pytest.mark.parametrize(
    ("name", "left_out"),
    [("llama4_text", {"feed_forward.router", "lm_head"}), ("mamba", {"mixer.out_proj", "lm_head"})],
)
def test_layers_that_lora_cannot_adapt_are_left_out(name: str, left_out: set[str], byte_tokenizer: Any) -> None:
    model = wrap_language_model(name, tiny_model(name), byte_tokenizer)
    layers = linear_layers(model.model, "all-linear")
    linear = {path for path, module in model.model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {re.sub(r".*layers\.\d\.", "", path) for path in linear - {*layers}} == left_out
    text = torch.tensor([[5, 40, 77]])
    plain = model.model(input_ids=text).logits
    assert not torch.equal(train_lora(model, tuple(layers))(input_ids=text).logits, plain)


def test_names_choose_among_them(policy: LanguageModel) -> None:
    assert linear_layers(policy.model, ["q_proj", "mlp.up_proj"]) == [
        f"model.layers.{layer}.{name}" for layer in range(2) for name in ("self_attn.q_proj", "mlp.up_proj")
    ]


@pytest.mark.parametrize("name", ["lm_head", "q_prj", "proj", "embed_tokens"])
def test_a_name_that_no_layer_of_the_body_has_is_refused(name: str, policy: LanguageModel) -> None:
    with pytest.raises(RecipeError, match=f"no linear layer '{name}'"):
        linear_layers(policy.model, ["q_proj", name])


def test_unchanged_gives_back_attributes_children_and_hooks() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    handle = model[0].register_forward_hook(lambda *_: None)
    first = model[0]

    def spoil() -> None:
        model[0] = torch.nn.Identity()
        first.train(False)
        first.register_forward_hook(lambda *_: None)
        model.forward = None
        raise KeyError

    with pytest.raises(KeyError), unchanged(*model.modules()):
        spoil()
    assert model[0] is first
    assert first.training
    assert "forward" not in vars(model)
    assert len(first._forward_hooks) == 1
    handle.remove()
    assert not first._forward_hooks
