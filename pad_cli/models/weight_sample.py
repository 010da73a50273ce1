"""Which model this is, whatever dtype its weights were loaded in: a sample of every weight, compared up to rounding.

Two samples are of one model when some original value rounds to both. float32 against bfloat16 is an exact test: the one
rounded is the other. bfloat16 against float16 is a test of intervals, because neither holds all digits of the original.
Weights that went through a narrow format keep its grid in a wider one (a float16 copy loaded as float32), so the format
is read off the values, not off the dtype of the tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pad_cli.models.checkpoint_files import damaged, load_tensors, save_tensors
from pad_cli.system.runs import fingerprint

_SAMPLES = 64  # values of each weight; up to twice as many are taken
_KEYS = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
_NARROW = (torch.bfloat16, torch.float16)
_ARCHITECTURE = "architecture"
_TWICE_ROUNDED = 1.125  # half a step of bfloat16 and of float16, in the former: for values rounded to both in turn
_LOADED_AS = "quant_state"  # bitsandbytes' record of how a weight was packed: it names the dtype of the activations


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
        grids, their_grids = _grids(mine), _grids(theirs)
        return all(
            _agree(tensor, theirs[name], grids[tensor.dtype], their_grids[theirs[name].dtype])
            for name, tensor in mine.items()
        )

    def save(self, path: Path) -> None:
        """Write the sample; errors as of `save_tensors`."""
        save_tensors(self.tensors, path, {_ARCHITECTURE: json.dumps(self.architecture, sort_keys=True)})


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


def _grids(tensors: Mapping[str, torch.Tensor]) -> dict[torch.dtype, torch.dtype | None]:
    """For each dtype of tensors: the narrow format that holds all their values, None if there is none."""
    grids: dict[torch.dtype, torch.dtype | None] = {}
    for dtype in {tensor.dtype for tensor in tensors.values()}:
        values = torch.cat([tensor for tensor in tensors.values() if tensor.dtype == dtype])
        fits = (each for each in _NARROW if dtype.is_floating_point and torch.equal(values.to(each).to(dtype), values))
        grids[dtype] = next(fits, None)
    return grids


def _agree(first: torch.Tensor, second: torch.Tensor, grid: torch.dtype | None, other_grid: torch.dtype | None) -> bool:
    if torch.equal(first.double(), second.double()):
        return True
    tolerance = _half_step(first, grid) + _half_step(second, other_grid)
    if {grid, other_grid} == {None, torch.bfloat16}:
        tolerance *= _TWICE_ROUNDED
    return grid != other_grid and bool(((first.double() - second.double()).abs() <= tolerance).all())


def _half_step(values: torch.Tensor, grid: torch.dtype | None) -> torch.Tensor:
    """How far the original of each value can be from it, if it was rounded to the grid: half a step of the grid."""
    if grid is None:
        return torch.zeros(len(values), dtype=torch.double)
    limits = torch.finfo(grid)
    _, exponent = torch.frexp(values.double().abs().clamp(min=limits.tiny))
    return torch.ldexp(torch.full((len(values),), limits.eps / 2, dtype=torch.double), exponent - 1)
