"""An adapter: LoRA weights of a reward model, applied at inference to the last rows of a batch.

    W x + b                                                 rows of the policy
    W x + b + s B A x,   s = alpha / r (or alpha / sqrt r)  rows of the reward model

The model is shared, so one forward pass of [policy rows, reward rows] gives the hidden states of both. LoRA: Hu et al.
2021 (arXiv 2106.09685); alpha / sqrt r: Kalajdzievski 2023 (arXiv 2312.03732). Files are PEFT's.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pad_cli.errors import CheckpointError
from pad_cli.models.checkpoint_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    damaged,
    read_json,
    read_tensors,
    save_tensors,
)
from pad_cli.models.forward import first_row
from pad_cli.system.runs import write_json

_KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<factor>[AB])\.weight")
_PACKED = ("Linear4bit", "Linear8bitLt")  # of bitsandbytes
_PLAIN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SAME_MODEL = "Use the model it was trained on."
_PLAIN = "Train it again with plain LoRA on linear layers below the output embedding."

# Settings that may be set: what is read here, what the tensors say, where they come from, how they were trained.
_ALLOWED = (
    *("peft_type", "lora_alpha", "use_rslora", "init_lora_weights"),
    *("r", "rank_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("base_model_name_or_path", "revision", "auto_mapping", "task_type", "inference_mode", "peft_version"),
    *("lora_dropout", "fan_in_fan_out", "eva_config", "corda_config", "loftq_config"),
)
_DEFAULTS = {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16}  # PEFT's, of all others
# Other initialisations (PiSSA, OLoRA, ...) change the backbone's own weights as well.
_INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")


@dataclasses.dataclass(frozen=True)
class _Update:
    """What LoRA adds to one module's weight: scaling * B A, with A (r, in) and B (out, r) as they were saved."""

    down: torch.Tensor
    up: torch.Tensor
    scaling: float

    @property
    def scaled_up(self) -> torch.Tensor:
        """scaling * B in float32."""
        return self.scaling * self.up.float()


class Adapter:
    """LoRA weights attached to a model by forward hooks; without effect outside `on_rows_from`.

    The delta is computed on the device that each module's weight had when the adapter was attached, and in its dtype
    (of a quantised module, the unembedding's). Use `load`.
    """

    def __init__(self, model: Any, config: Mapping[str, Any], updates: Mapping[str, _Update]) -> None:
        self._config, self._updates = config, updates
        self._first: int | None = None
        # Where the rows with a delta start in an input, by its leading size; None: no delta at all.
        self._starts: dict[int, int] | None = None
        self._hooks = [model.get_decoder().register_forward_pre_hook(self._see_batch, with_kwargs=True)]
        for path, update in self._updates.items():
            module = model.get_submodule(path)
            packed = module.weight.dtype not in _PLAIN_DTYPES
            dtype = model.get_output_embeddings().weight.dtype if packed else module.weight.dtype
            self._hooks.append(module.register_forward_hook(self._hook(path, update, module.weight.device, dtype)))

    @classmethod
    def load(cls, directory: Path, model: Any) -> Adapter:
        """Read an adapter that PEFT or `save` wrote, and attach it to a transformers causal language model.

        Raises:
            CheckpointError: a file is missing or damaged, it is not plain LoRA, or it does not fit the model.
        """
        config, weights = read_json(directory / ADAPTER_CONFIG), directory / ADAPTER_WEIGHTS
        scaling = _scaling(directory / ADAPTER_CONFIG, config)
        updates = {}
        for path, (down, up) in _factors(weights).items():
            _check_fit(weights, path, model, down, up)
            updates[path] = _Update(down, up, scaling(len(down)))
        return cls(model, config, updates)

    def save(self, directory: Path) -> None:
        """Write PEFT's two files into an existing directory."""
        factors = {}
        for path, update in self._updates.items():
            factors[f"base_model.model.{path}.lora_A.weight"] = update.down
            factors[f"base_model.model.{path}.lora_B.weight"] = update.up
        save_tensors(factors, directory / ADAPTER_WEIGHTS)
        write_json(directory / ADAPTER_CONFIG, self._config)

    @contextmanager
    def on_rows_from(self, first: int) -> Iterator[None]:
        """Inside, rows `first`, `first` + 1, ... of every batch get the delta; cannot be nested.

        Raises:
            CheckpointError: the model calls an adapted module with something else than the batch's rows or tokens.
        """
        if not self._hooks or self._first is not None:
            raise RuntimeError(f"the adapter is {'already active' if self._hooks else 'detached'}")
        self._first, self._starts = first, {}
        try:
            yield
        finally:
            self._first = self._starts = None

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that decides the delta, for a fingerprint: A (r, in) and scaling * B (out, r), in float32, by path."""
        return [factor for update in self._updates.values() for factor in (update.down.float(), update.scaled_up)]

    def remove_hooks(self) -> None:
        """Remove every hook from the model; the adapter can still be saved."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _see_batch(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note where the delta starts in the batch (B, T) that the body is about to read."""
        if self._first is None:
            return
        inputs = (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
        rows, length = next(value for value in inputs if value is not None).shape[:2]
        first = max(0, self._first - first_row())
        # some modules get (B * T, H) in place of (B, T, H): OPT's feed-forward, routers
        self._starts = {rows * length: first * length, rows: first}

    def _hook(
        self, path: str, update: _Update, device: torch.device, dtype: torch.dtype
    ) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]:
        """A forward hook that adds scaling * x A^T B^T to the last rows of the module's output, in place."""
        down = update.down.T.to(device, dtype).contiguous()  # (in, r)
        up = update.scaled_up.T.to(device, dtype).contiguous()  # (r, out)
        size_in, size_out = down.shape[0], up.shape[1]

        def add_delta(_: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            if self._starts is None:
                return
            states = inputs[0]
            start = self._starts.get(states.shape[0])
            if start is None:
                raise CheckpointError(
                    f"The model calls '{path}' with {states.shape[0]} rows, which are not the batch's rows or tokens.",
                    f"Train the adapter again without '{path}'.",
                )
            states, target = states[start:].reshape(-1, size_in), output[start:].view(-1, size_out)
            target.addmm_(states @ down, up)

        return add_delta


def _scaling(file: Path, config: Mapping[str, Any]) -> Callable[[int], float]:
    """A rank to alpha / r or alpha / sqrt r; everything is refused that plain LoRA does not have."""
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"'{file}' is of PEFT type {config.get('peft_type')}, not LORA.", _PLAIN)
    beyond = (key for key, value in config.items() if key not in _ALLOWED and value and value != _DEFAULTS.get(key))
    other = {key: config[key] for key in beyond}
    if config.get("init_lora_weights", True) not in _INITIALISATIONS:
        other["init_lora_weights"] = config["init_lora_weights"]
    if other:
        settings = ", ".join(f"{key}={value!r}" for key, value in other.items())
        raise CheckpointError(f"'{file}' asks for more than plain LoRA: {settings}.", _PLAIN)
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float) or not abs(alpha) < 1e30:
        raise damaged(file, f"it gives no scaling, lora_alpha is {alpha!r}")
    return lambda rank: alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _factors(file: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B of each module, by its path, in the order of the paths."""
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in read_tensors(file).items():
        match = _KEY.fullmatch(key)
        if match is None:
            what = "LoRA on an embedding" if ".lora_embedding_" in key else "not plain LoRA"
            raise CheckpointError(f"'{file}' holds '{key}', which is {what}.", _PLAIN)
        factors.setdefault(match["path"], {})[match["factor"]] = tensor
    if not factors:
        raise damaged(file, "it holds no LoRA weights")
    for path, pair in factors.items():
        if len(pair) == 1:
            raise damaged(file, f"it has only lora_{next(iter(pair))} for '{path}'")
    return {path: (factors[path]["A"], factors[path]["B"]) for path in sorted(factors)}


def _check_fit(file: Path, path: str, model: Any, down: torch.Tensor, up: torch.Tensor) -> None:
    """Refuse a module that the model lacks, that is no linear layer of its body, or that has another shape."""
    named = f"'{file}' adapts '{path}'"
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise CheckpointError(f"{named}, which the model lacks.", _SAME_MODEL) from error
    if (size := _linear_size(module)) is None:
        raise CheckpointError(f"{named}, which is a {type(module).__name__}, not a linear layer.", _PLAIN)
    if module.weight is model.get_output_embeddings().weight:
        raise CheckpointError(f"{named}, which is the output embedding.", _PLAIN)
    if module.weight.dtype not in _PLAIN_DTYPES and type(module).__name__ not in _PACKED:
        raise CheckpointError(
            f"{named}, which is quantised ({module.weight.dtype}) by other means than bitsandbytes.",
            "Load the model unquantised, or with quantization: 4bit.",
        )
    size_in, size_out = size
    fits = down.ndim == up.ndim == 2 and up.shape == (size_out, len(down)) and down.shape[1] == size_in
    if not fits or len(down) == 0:
        shapes = f"A {tuple(down.shape)} and B {tuple(up.shape)}"
        raise CheckpointError(f"{named} with {shapes}, which do not fit {size_in} to {size_out}.", _SAME_MODEL)


def _linear_size(module: Any) -> tuple[int, int] | None:
    """(in, out) of a linear layer, which a packed weight does not have as its shape; None for any other module."""
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    # transformers' own layer, of GPT-2: its module imports what `inference_only` leaves out
    return (module.nx, module.nf) if type(module).__name__ == "Conv1D" else None
