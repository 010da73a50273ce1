"""A language model without its weights: configuration, tokenizer, and modules that take no memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from pad_cli.equation import LogitHead
from pad_cli.errors import ModelLoadError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.loading import find_source, load_errors, own_dtype
from pad_cli.recipe import ModelSettings
from pad_cli.registry import resolve_model


@dataclass(frozen=True)
class Outline:
    """What a configuration tells of a model: every weight of `model` is on the `meta` device."""

    name: str
    model: Any
    tokenizer: Any
    dtype: torch.dtype

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(in, out) of every linear layer of the body, by its path in the model; experts in one tensor are not seen."""
        unembedding = self.model.get_output_embeddings()
        sizes = {}
        for path, module in self.model.named_modules():
            if isinstance(module, torch.nn.Linear) and module is not unembedding:
                sizes[path] = (module.in_features, module.out_features)
            elif isinstance(module, Conv1D):
                sizes[path] = (module.nx, module.nf)
        return sizes

    @property
    def unembedding(self) -> tuple[int, int]:
        """(V, H) of the unembedding."""
        size, width = self.model.get_output_embeddings().weight.shape
        return int(size), int(width)

    @property
    def layers(self) -> int:
        return int(self.model.config.get_text_config(decoder=True).num_hidden_layers)

    @property
    def attention_width(self) -> int:
        """Numbers in all query heads of a layer."""
        config = self.model.config.get_text_config(decoder=True)
        heads = int(config.num_attention_heads)
        return heads * int(getattr(config, "head_dim", None) or math.ceil(config.hidden_size / heads))

    def as_language_model(self, fingerprint: str) -> LanguageModel:
        """This model for its name, sizes and tokens only; it cannot be run."""
        head = LogitHead(self.model.get_output_embeddings().weight, None, 1.0, None)
        return LanguageModel(self.name, self.model, self.tokenizer, head, fingerprint)


def load_outline(settings: ModelSettings) -> Outline:
    """Read a model's configuration and tokenizer; errors as in `load_language_model`. A GGUF file has neither."""
    location = resolve_model(settings.model)
    if location.endswith(".gguf"):
        raise ModelLoadError(
            f"'{settings.model}' is a GGUF file: its configuration is stored with its weights.",
            "Name the model that it was made from.",
        )
    source = find_source(settings, location)
    with load_errors(settings, location):
        config = AutoConfig.from_pretrained(**source)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return Outline(settings.model, model, tokenizer, own_dtype(config) or torch.float32)
