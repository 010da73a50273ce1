"""The files of a checkpoint, which anybody may have written: JSON and tensors, whole and of use, or a CheckpointError.

Of tensors only safetensors are read, never pickles, and of those the shapes first: a file cannot claim more numbers
than it has bytes, but a configuration beside it can.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from pad_cli.errors import CheckpointError

if TYPE_CHECKING:
    import torch

AGAIN = "Train or copy it again."


def read_object(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object in a file; an empty one where it may be missing and is.

    Raises:
        CheckpointError: it is missing, cannot be read, or holds something else.
    """
    _check_there(path, optional=optional)
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}", AGAIN) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' holds no JSON object.", AGAIN)
    return content


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, on the CPU.

    Raises:
        CheckpointError: it is missing or damaged, or a number in it is not finite.
    """
    import torch

    from pad_cli.models.tensor_file import load_tensors

    _check_there(path)
    try:
        tensors, _ = load_tensors(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"'{path}' is damaged: {error}", AGAIN) from error
    for name, tensor in tensors.items():
        if tensor.is_complex() or not torch.isfinite(tensor.float()).all():
            raise CheckpointError(f"'{path}' holds numbers in '{name}' that are not finite.", AGAIN)
    return tensors


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a file, from its header.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    _check_there(path)
    try:
        with safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' is damaged: {error}", AGAIN) from error


def check_shapes(path: Path, found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Compare what is in a file with what the checkpoint's configuration says.

    Raises:
        CheckpointError: they differ.
    """
    if dict(found) != dict(wanted):
        names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        told = ", ".join(f"{name} {found.get(name, 'missing')} for {wanted.get(name, 'none')}" for name in names[:3])
        raise CheckpointError(f"'{path}' is damaged or of another shape: {told}.", AGAIN)


def _check_there(path: Path, *, optional: bool = False) -> None:
    """A plain file; reading a pipe would wait for ever."""
    if not path.exists() and not optional:
        raise CheckpointError(f"'{path.parent}' lacks {path.name}.", AGAIN)
    if path.exists() and not path.is_file():
        raise CheckpointError(f"'{path}' is no file.", AGAIN)
