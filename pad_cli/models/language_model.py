"""A causal language model in the two pieces PAD needs: the body (tokens to `h`) and the head (`h` to logits).

`h` is the last hidden state after the body's final norm, and logits = cap(scale * (E h + bias)), where `E` is the
unembedding (`lm_head`). The body is called on its own because a frozen `lm_head` applied to a 3-D slice copies the
whole weight for every row (transformers' `logits_to_keep=1`).
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from pad_cli.equation import LogitHead
from pad_cli.errors import ModelLoadError
from pad_cli.models.loading import at_hand, load_pretrained
from pad_cli.recipe import ModelSettings
from pad_cli.registry import MODEL_SOURCES
from pad_cli.runs import fingerprint

_SAMPLES = 64  # numbers of each weight that enter a fingerprint


@dataclass(frozen=True)
class LanguageModel:
    """A frozen causal language model with its tokenizer.

    Attributes:
        name: as the user named it.
        model: the transformers model, in evaluation mode, without gradients.
        tokenizer: its tokenizer; `pad_token_id` is always set.
        head: its unembedding.
        fingerprint: of the configuration and a sample of every weight; models with equal fingerprints are the same.
    """

    name: str
    model: Any
    tokenizer: Any
    head: LogitHead
    fingerprint: str

    @property
    def device(self) -> torch.device:
        """Where the head is; a model spread over several devices begins on another."""
        return self.head.weight.device

    @property
    def hidden_size(self) -> int:
        return int(self.head.weight.shape[1])

    @property
    def vocabulary_size(self) -> int:
        return int(self.head.weight.shape[0])

    @functools.cached_property
    def vocabulary(self) -> str:
        """A hash of every token and its number: equal where two tokenizers mean the same by them."""
        return vocabulary_hash(self.tokenizer)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer: the tokenizer's, and those of the generation configuration."""
        configured = self.model.generation_config.eos_token_id
        tokens = configured if isinstance(configured, list) else [configured]
        return frozenset(t for t in [*tokens, self.tokenizer.eos_token_id] if t is not None)

    def new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.config.get_text_config(decoder=True))

    def hidden_states(
        self, tokens: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None = None
    ) -> torch.Tensor:
        """Run the body on new tokens.

        Args:
            tokens: (B, T) token ids, the last T of each row.
            mask: (B, past + T), 1 for real tokens; padding may stand on either side.
            cache: holds the past when given, and then takes in the new tokens.

        Returns:
            (B, T, H) hidden states after the final norm, where the head is.
        """
        tokens, mask = tokens.to(self._input_device), mask.to(self._input_device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        inputs = {"input_ids": tokens, "attention_mask": mask, self._cache_name: cache, "use_cache": cache is not None}
        if self._takes_positions:
            inputs["position_ids"] = positions
        hidden: torch.Tensor = self.model.get_decoder()(**inputs).last_hidden_state
        return hidden.to(self.device)

    @functools.cached_property
    def _input_device(self) -> torch.device:
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @functools.cached_property
    def _takes_positions(self) -> bool:
        return "position_ids" in self._arguments

    @functools.cached_property
    def _cache_name(self) -> str:
        """What the body calls its cache: transformers renamed it in 5.24."""
        return "cache" if "cache" in self._arguments else "past_key_values"

    @functools.cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.model.get_decoder().forward).parameters)


def load_language_model(settings: ModelSettings) -> LanguageModel:
    """Load a policy or a backbone from a directory, a GGUF file, the hub, or a registered source (`embedded/medium`).

    Raises:
        ModelLoadError: it cannot be loaded this way, is no causal language model, or has no tokenizer.
    """
    model, tokenizer = load_pretrained(settings, resolve_model(settings.model))
    return wrap_language_model(settings.model, model, tokenizer)


def wrap_language_model(name: str, model: Any, tokenizer: Any) -> LanguageModel:
    """Take an already loaded transformers model and its tokenizer.

    Raises:
        ModelLoadError: the model has no unembedding that can be read, or the tokenizer no end of sequence.
    """
    unembedding = model.get_output_embeddings()
    if unembedding is None:
        raise ModelLoadError(f"'{name}' has no output embedding.", "Use a model with a language-model head.")
    if not unembedding.weight.is_floating_point() or unembedding.weight.element_size() < 2:
        raise ModelLoadError(
            f"The output embedding of '{name}' is packed into fewer than 16 bits.",
            "Use a copy with a plain lm_head; `quantization` leaves it plain.",
        )
    if unembedding.weight.is_meta or model.get_input_embeddings().weight.is_meta:
        raise ModelLoadError(
            f"An embedding of '{name}' is not on a device.", "Give embed_tokens and lm_head one in device_map."
        )
    if tokenizer.eos_token_id is None:
        raise ModelLoadError(f"The tokenizer of '{name}' has no end-of-sequence token.", "Set its eos_token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    config = model.config.get_text_config(decoder=True)
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    head = LogitHead(unembedding.weight, getattr(unembedding, "bias", None), scale, cap)
    return LanguageModel(name, model, tokenizer, head, _fingerprint(model, config))


def resolve_model(name: str) -> str:
    """A location that transformers can load: registered sources are built or found, anything else is left alone."""
    source, slash, rest = name.partition("/")
    if slash and source in MODEL_SOURCES.names() and not Path(name).exists():
        return str(MODEL_SOURCES.get(source)(rest))
    return name


def same_vocabulary(first: LanguageModel, second: LanguageModel) -> bool:
    """Do the two models mean the same by every token id?"""
    return first.tokenizer is second.tokenizer or first.vocabulary == second.vocabulary


def vocabulary_hash(tokenizer: Any) -> str:
    return fingerprint(sorted(tokenizer.get_vocab().items()))


def _fingerprint(model: Any, config: Any) -> str:
    """Of what decides hidden states: architecture, sizes, and a sample of every weight, in bfloat16 for any format."""
    keys = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
    packed = getattr(model, "is_quantized", False)  # then scales decide too, and those are no parameters
    weights = model.state_dict() if packed else dict(model.named_parameters())
    samples = {}
    for name, weight in weights.items():
        flat = at_hand(model, name, weight).detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLES)][: 2 * _SAMPLES].to(torch.bfloat16).float().cpu()
        samples[name] = sample.numpy().tobytes().hex()
    return fingerprint([{key: getattr(config, key, None) for key in keys}, samples])
