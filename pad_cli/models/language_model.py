"""A causal language model in the two pieces PAD needs: the body (tokens to `h`) and the head (`h` to logits).

`h` is the last hidden state after the body's final norm, and logits = cap(scale * (E h + bias)), where `E` is the
unembedding (`lm_head`); `forward_check.py` compares them with the model's own. The body is called on its own because a
frozen `lm_head` applied to a 3-D slice copies the whole weight for every row (transformers' `logits_to_keep=1`).

Which model it is, whatever dtype its weights were loaded in, a sample of every weight tells: two samples are of one
model when the one, rounded to the other's dtype, is the other. A narrow copy may have been loaded in a wide dtype, so
what counts is what the values fit into. bfloat16 against float16 is a test of closeness: neither holds all digits.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from pad_cli.equation import LogitHead
from pad_cli.errors import ModelLoadError, UsageError
from pad_cli.models.checkpoint_files import damaged, load_tensors
from pad_cli.models.forward import FASTEST, Body, ForwardMode, Memory
from pad_cli.models.forward_check import check_forward
from pad_cli.models.loading import load_pretrained
from pad_cli.models.prompts import end_of_turn
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
_SAMPLES = 64  # values of each weight; up to twice as many are taken
_KEYS = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
_NARROW = (torch.bfloat16, torch.float16)
_ARCHITECTURE = "architecture"
_ROUNDED, _TINY = 2**-8 + 2**-11, 2**-24  # half a step of bfloat16 and of float16: of a number, and of the smallest
_LOADED_AS = "quant_state"  # bitsandbytes' record of how a weight was packed: it names the dtype of the activations
_ALREADY_LONG = ("default", "llama3", "longrope")  # kinds of RoPE whose configuration tells the extended length


@dataclass(frozen=True)
class WeightSample:
    """Some values of every weight of a model.

    Attributes:
        architecture: the entries of the configuration that name its kind and sizes.
        tensors: the name of each weight to at most 128 of its values, in the dtype that they were loaded in.
    """

    architecture: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    def fingerprint(self, *through: torch.dtype) -> str:
        """Of the values in bfloat16, rounded to other dtypes before.

        Equal for one model in float32 and in bfloat16, but not always in float16.
        """
        values = {}
        for name, tensor in self.tensors.items():
            for dtype in (*through, torch.bfloat16):
                tensor = tensor.to(dtype)
            values[name] = tensor.float().numpy().tobytes().hex()
        return fingerprint([self.architecture, values])

    def agrees(self, other: WeightSample) -> bool:
        """Can both be of the same model, up to the rounding of the dtypes that either was loaded or saved in?"""
        mine, theirs = (
            {name: tensor for name, tensor in each.tensors.items() if _LOADED_AS not in name} for each in (self, other)
        )
        shapes = [{name: tensor.shape for name, tensor in each.items()} for each in (mine, theirs)]
        if self.architecture != other.architecture or shapes[0] != shapes[1]:
            return False
        by_dtype: dict[Any, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for name, tensor in mine.items():
            by_dtype.setdefault((tensor.dtype, theirs[name].dtype), []).append((tensor, theirs[name]))
        return all(_agree(*map(torch.cat, zip(*pairs, strict=True))) for pairs in by_dtype.values())

    def save(self, path: Path) -> None:
        """Write the sample."""
        save_file(dict(self.tensors), path, {_ARCHITECTURE: json.dumps(self.architecture, sort_keys=True)})


@dataclass(frozen=True)
class LanguageModel:
    """A frozen causal language model with its tokenizer.

    Attributes:
        name: as the user named it.
        model: the transformers model, in evaluation mode, without gradients.
        tokenizer: its tokenizer; `pad_token_id` is always set.
        head: its unembedding.
        fingerprint: of the configuration and a sample of every weight; a key for what was computed with it.
        sample: tells whether another model is the same, in whatever dtype; see `same_model`.
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
        """Run the body on new tokens (B, T), the last T of each row: (B, T, H) states after the final norm.

        The mask (B, past + T) is 1 for real tokens; padding may stand on either side. A `cache` holds the past, and
        takes in the new tokens. The states are on the device of the head.

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


def load_language_model(settings: ModelSettings) -> LanguageModel:
    """Load a policy or a backbone from a directory, a GGUF file, the hub, or a registered source (`embedded/medium`).

    Raises:
        ModelLoadError: it cannot be loaded this way, is no causal language model, or has no tokenizer.
    """
    location = resolve_model(settings.model)
    model, tokenizer = load_pretrained(settings, location)
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
    sample = sample_weights(model)
    mode, head = check_forward(name, model, tokenizer.all_special_ids)
    if mode.alone:
        kind = f"'{name}' ({model.config.model_type})"
        note(f"Note: {kind} is read row by row, and from the beginning for every token: no faster way is exact.")
    return LanguageModel(name, model, tokenizer, head, sample.fingerprint(), sample, mode)


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
            padding = -1 if module.padding_idx is None else module.padding_idx
            offset = getattr(module, "offset", padding + 1)  # rows that OPT leaves out; RoBERTa counts from the padding
            limits.append(module.num_embeddings - offset)
    return min(limits, default=None)


def sample_weights(model: Any) -> WeightSample:
    """Take the sample of a loaded model, also where a device map leaves weights on the disk or in another memory."""
    from accelerate.utils import align_module_device

    config = model.config.get_text_config(decoder=True)
    packed = getattr(model, "is_quantized", False)  # then scales decide too, and those are no parameters
    tensors = {}
    for name, weight in (model.state_dict() if packed else dict(model.named_parameters())).items():
        if weight.is_meta:
            owner, _, leaf = name.rpartition(".")
            module = model.get_submodule(owner)
            with align_module_device(module):
                weight = getattr(module, leaf)
        flat = weight.detach().reshape(-1)
        tensors[name] = flat[:: max(1, flat.numel() // _SAMPLES)][: 2 * _SAMPLES].cpu().contiguous().clone()
    return WeightSample({key: getattr(config, key, None) for key in _KEYS}, tensors)


def read_sample(path: Path) -> WeightSample | None:
    """The sample in a file, None where there is no such file; a CheckpointError if it is damaged."""
    if not path.exists():
        return None
    try:
        tensors, metadata = load_tensors(path)
        return WeightSample(dict(json.loads(metadata[_ARCHITECTURE])), tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise damaged(path, error) from error


def _agree(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Can both be the same values, loaded in their dtypes?"""
    exact = first.double(), second.double()
    if torch.equal(*exact):
        return True
    for dtype in _NARROW:
        rounded = first.to(dtype), second.to(dtype)
        fits = any(torch.equal(*each) for each in zip(exact, (each.double() for each in rounded), strict=True))
        if fits and torch.equal(*rounded):
            return True
    return {first.dtype, second.dtype} == set(_NARROW) and torch.allclose(*exact, rtol=_ROUNDED, atol=_TINY)
