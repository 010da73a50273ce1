"""A causal language model in the two pieces PAD needs: the body (tokens to `h`) and the head (`h` to logits).

`h` is the last hidden state after the body's final norm, and logits = cap(scale * (E h + bias)), where `E` is the
unembedding (`lm_head`); `reading_check.py` compares them with the model's own. The body is called on its own because a
frozen `lm_head` applied to a 3-D slice copies the whole weight for every row (transformers' `logits_to_keep=1`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch

from pad_cli.equation import LogitHead
from pad_cli.errors import ModelLoadError, UsageError
from pad_cli.models.context import context_length
from pad_cli.models.loading import load_pretrained
from pad_cli.models.prompts import end_of_turn
from pad_cli.models.reading import FASTEST, Body, Memory, Reading
from pad_cli.models.reading_check import Ending, check_reading
from pad_cli.models.weight_sample import WeightSample, sample_weights
from pad_cli.recipe import ModelSettings
from pad_cli.registry import resolve_model as resolve_model
from pad_cli.system.progress import note
from pad_cli.system.runs import fingerprint


@dataclass(frozen=True)
class LanguageModel:
    """A frozen causal language model with its tokenizer.

    Attributes:
        name: as the user named it.
        model: the transformers model, in evaluation mode, without gradients.
        tokenizer: its tokenizer; `pad_token_id` is always set.
        head: its unembedding.
        fingerprint: of the configuration and a sample of every weight, see `WeightSample.fingerprint`; a key for what
            was computed with it. Whether two models are the same one says `same_model`.
        sample: what tells whether another model is the same in another dtype; None of a model without weights.
        reading: how its body is read.
    """

    name: str
    model: Any
    tokenizer: Any
    head: LogitHead
    fingerprint: str
    sample: WeightSample | None = field(default=None, compare=False, repr=False)
    reading: Reading = FASTEST

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
        return frozenset(t for t in [*tokens, self.tokenizer.eos_token_id, self._end_of_turn] if t is not None)

    @functools.cached_property
    def _end_of_turn(self) -> int:
        return end_of_turn(self.tokenizer)

    def new_cache(self) -> Memory:
        """A memory of nothing yet, for `hidden_states`."""
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
        self._check_length(mask)
        hidden = self._body(tokens.to(self._input_device), mask.to(self._input_device), cache).to(self.device)
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
        return Body(self.model, self.reading)

    def _check_length(self, mask: torch.Tensor) -> None:
        """The last resort; whoever reads texts of unknown length cuts or refuses them first."""
        longest = self.context_length
        if longest is not None and mask.shape[1] > longest and (found := int(mask.sum(-1).max())) > longest:
            raise UsageError(
                f"A text of {found} tokens is too long for '{self.name}', which reads at most {longest}.",
                "Shorten the prompt or the answer.",
            )

    @functools.cached_property
    def _input_device(self) -> torch.device:
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device


def load_language_model(settings: ModelSettings, *, computes_on: torch.device | None = None) -> LanguageModel:
    """Load a policy or a backbone from a directory, a GGUF file, the hub, or a registered source (`embedded/medium`).

    Args:
        settings: how to load it.
        computes_on: where its weights will be moved to, for the choice of a dtype; by default they stay.

    Raises:
        ModelLoadError: it cannot be loaded this way, is no causal language model, or has no tokenizer.
    """
    model, tokenizer = load_pretrained(settings, resolve_model(settings.model), computes_on=computes_on)
    return wrap_language_model(settings.model, model, tokenizer)


def wrap_language_model(name: str, model: Any, tokenizer: Any) -> LanguageModel:
    """Take an already loaded transformers model and its tokenizer.

    Raises:
        ModelLoadError: the model has no unembedding that can be read, or the tokenizer no end of sequence.
        ArchitectureError: no way of reading the model gives its own logits.
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
    verdict = check_reading(name, model, tokenizer.all_special_ids, functools.partial(_head, unembedding))
    if verdict.reading.slower:
        kind, how = model.config.model_type, verdict.reading.slower
        note(f"Note: '{name}' ({kind}) has to be read {how} to give its own logits, which is slower.")
    config = model.config.get_text_config(decoder=True)
    head = _head(unembedding, verdict.ending)
    sample = sample_weights(model, config)
    return LanguageModel(name, model, tokenizer, head, sample.fingerprint, sample, verdict.reading)


def same_model(first: LanguageModel, second: LanguageModel) -> bool:
    """Are the two one model, in whatever dtype each was loaded?"""
    if first.model is not None and first.model is second.model:
        return True
    if first.sample is None or second.sample is None:
        return first.fingerprint == second.fingerprint
    return first.sample.agrees(second.sample)


def same_vocabulary(first: LanguageModel, second: LanguageModel) -> bool:
    """Do the two models mean the same by every token id?"""
    return first.tokenizer is second.tokenizer or first.vocabulary == second.vocabulary


def vocabulary_hash(tokenizer: Any) -> str:
    return fingerprint(sorted(tokenizer.get_vocab().items()))


def _head(unembedding: Any, ending: Ending) -> LogitHead:
    weight, bias = unembedding.weight, getattr(unembedding, "bias", None)
    if ending.size < len(weight):
        weight, bias = weight[: ending.size], None if bias is None else bias[: ending.size]
    return LogitHead(weight, bias, ending.scale, ending.cap)
