"""A causal language model in the two pieces PAD needs: the body (tokens to `h`) and the head (`h` to logits).

`h` is the last hidden state after the body's final norm, and logits = cap(scale * (E h + bias)), where `E` is the
unembedding (`lm_head`); `forward_check.py` compares them with the model's own. The body is called on its own because a
frozen `lm_head` applied to a 3-D slice copies the whole weight for every row (transformers' `logits_to_keep=1`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pad_cli.equation import LogitHead
from pad_cli.errors import ModelLoadError, UsageError
from pad_cli.models.forward import FASTEST, Body, ForwardMode, Memory
from pad_cli.models.forward_check import check_forward
from pad_cli.models.loading import load_pretrained
from pad_cli.models.prompts import end_of_turn
from pad_cli.models.weight_sample import WeightSample, sample_weights
from pad_cli.recipe import ModelSettings
from pad_cli.registry import resolve_model
from pad_cli.system.progress import note
from pad_cli.system.runs import fingerprint

# What architectures call the number of positions in their configuration, and their table of learned positions.
_LIMITS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "max_seq_length", "max_sequence_length"),
    *("max_target_positions", "n_ctx"),
)
_POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe", "position_embedding")
_ALREADY_LONG = ("default", "llama3", "longrope")  # kinds of RoPE whose configuration tells the extended length


@dataclass(frozen=True)
class LanguageModel:
    """A frozen causal language model with its tokenizer.

    Attributes:
        name: as the user named it.
        model: the transformers model, in evaluation mode, without gradients.
        tokenizer: its tokenizer; `pad_token_id` is always set.
        head: its unembedding.
        fingerprint: of the configuration and a sample of every weight, see `WeightSample.fingerprint`; a key for what
            was computed with it. Use `same_model` to tell whether two models are the same.
        sample: what tells whether another model is the same in another dtype.
        forward_mode: how its body is run.
    """

    name: str
    model: Any
    tokenizer: Any
    head: LogitHead
    fingerprint: str
    sample: WeightSample = field(compare=False, repr=False)
    forward_mode: ForwardMode = FASTEST

    @property
    def dtype(self) -> torch.dtype:
        """Of the unembedding, and of all weights that are not packed."""
        return self.head.weight.dtype

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
    def context_length(self) -> int | None:
        """Tokens of prompt and answer together that it can read; None where nothing limits them."""
        return context_length(self.model)

    @functools.cached_property
    def vocabulary(self) -> str:
        """A hash of every token and its number: equal where two tokenizers mean the same by them."""
        return vocabulary_hash(self.tokenizer)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer: the tokenizer's, the chat template's and the generation configuration's."""
        configured = self.model.generation_config.eos_token_id
        tokens = configured if isinstance(configured, list) else [configured]
        ends = [*tokens, self.tokenizer.eos_token_id, self._end_of_turn]
        return frozenset(token for token in ends if token is not None)

    @functools.cached_property
    def _end_of_turn(self) -> int:
        return end_of_turn(self.tokenizer)

    def new_cache(self) -> Memory:
        """An empty memory, for `hidden_states`."""
        return self._body.memory()

    def hidden_states(self, tokens: torch.Tensor, mask: torch.Tensor, cache: Memory | None = None) -> torch.Tensor:
        """Run the body on new tokens.

        Args:
            tokens: (B, T) token ids, the last T of each row.
            mask: (B, past + T), 1 for real tokens; padding may stand on either side.
            cache: holds the past when given, and then takes in the new tokens.

        Returns:
            (B, T, H) hidden states after the final norm, where the head is.

        Raises:
            UsageError: a row is longer than the model can read.
            ModelLoadError: the model overflows in float16.
        """
        limit = self.context_length
        # the last resort: whoever reads texts of unknown length cuts or refuses them first
        if limit is not None and mask.shape[1] > limit and (length := int(mask.sum(-1).max())) > limit:
            raise UsageError(
                f"A text of {length} tokens is too long for '{self.name}', which reads at most {limit}.",
                "Shorten the prompt or the answer.",
            )
        first_device = self.model.get_input_embeddings().weight.device
        hidden = self._body(tokens.to(first_device), mask.to(first_device), cache).to(self.device)
        if self.dtype == torch.float16:
            read = mask[:, -tokens.shape[1] :].bool().to(hidden.device)
            if not torch.isfinite(hidden[read]).all():
                raise ModelLoadError(
                    f"'{self.name}' overflows in float16: some of its hidden states are not finite.",
                    "Load it in another dtype: --set policy.dtype=bfloat16, or float32 (backbone.dtype in training).",
                )
        return hidden

    @functools.cached_property
    def _body(self) -> Body:
        return Body(self.model, self.forward_mode)


def load_language_model(settings: ModelSettings, *, computes_on: torch.device | None = None) -> LanguageModel:
    """Load a policy or a backbone from a directory, a GGUF file, the hub, or a registered source (`embedded/medium`).

    `computes_on` is where its weights will be moved to, for the choice of a dtype; by default they stay.

    Raises:
        ModelLoadError: it cannot be loaded this way, is no causal language model, or has no tokenizer.
    """
    model, tokenizer = load_pretrained(settings, resolve_model(settings.model), computes_on=computes_on)
    return wrap_language_model(settings.model, model, tokenizer)


def wrap_language_model(name: str, model: Any, tokenizer: Any) -> LanguageModel:
    """Take an already loaded transformers model and its tokenizer.

    Raises:
        ModelLoadError: the model has no unembedding that can be read, or the tokenizer no end of sequence.
        ArchitectureError: no way of running the model gives its own logits.
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
    verdict = check_forward(name, model, tokenizer.all_special_ids)
    if slower := verdict.mode.slower:
        note(f"Note: '{name}' ({model.config.model_type}) has to be read {slower} to give its own logits.")
    sample = sample_weights(model)
    return LanguageModel(name, model, tokenizer, verdict.head(unembedding), sample.fingerprint(), sample, verdict.mode)


def same_model(first: LanguageModel, second: LanguageModel) -> bool:
    """Are the two one model, in whatever dtype each was loaded?"""
    return first.model is second.model or first.sample.agrees(second.sample)


def same_vocabulary(first: LanguageModel, second: LanguageModel) -> bool:
    """Do the two models mean the same by every token id?"""
    return first.tokenizer is second.tokenizer or first.vocabulary == second.vocabulary


def vocabulary_hash(tokenizer: Any) -> str:
    return fingerprint(sorted(tokenizer.get_vocab().items()))


def room(longest: int | None, prompt: int) -> int | None:
    """New tokens that may follow a prompt of that many tokens; None where nothing limits them."""
    return None if longest is None else longest - prompt


def cut_to_context(longest: int | None, max_prompt: int, max_answer: int) -> int:
    """How many tokens of a prompt to read at most, so that `max_answer` more, or half of all, can follow."""
    return max_prompt if longest is None else max(1, min(max_prompt, longest - min(max_answer, longest // 2)))


def context_length(model: Any) -> int | None:
    """Tokens of prompt and answer together that a transformers model can read; None where nothing limits it.

    The configuration tells it, or the table of learned positions where that is smaller. Rotary positions that are
    scaled (YaRN, linear, dynamic) reach further; some models have several kinds, for different layers.
    """
    config = model.config.get_text_config(decoder=True)
    configured = [value for name in _LIMITS if isinstance(value := getattr(config, name, None), int) and value > 0]
    lengths = [min(configured)] if configured else []
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if lengths and isinstance(rope, Mapping):
        for each in [rope, *(value for value in rope.values() if isinstance(value, Mapping))]:
            kind, factor = each.get("rope_type", "default"), each.get("factor")
            if kind not in _ALREADY_LONG and isinstance(factor, int | float) and factor > 1:
                lengths.append(int(factor * (each.get("original_max_position_embeddings") or lengths[0])))
    limits = [max(lengths)] if lengths else []
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _POSITION_TABLES and isinstance(module, torch.nn.Embedding):
            offset = getattr(module, "offset", None)  # OPT and its kin leave the first rows out
            if offset is None:
                offset = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts from behind it
            limits.append(module.num_embeddings - offset)
    return min(limits, default=None)
