"""Safetensors with a checksum, so that damage inside a tensor is noticed as well as a file that was cut."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

_SUM = "crc32"


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors on the CPU, and their checksum among the metadata.

    Raises:
        OSError, SafetensorError: the file cannot be written.
    """
    save_file(dict(tensors), path, metadata={**(metadata or {}), _SUM: _checksum(tensors)})
    if metadata:
        _sort_metadata(path)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a file, mapped to memory, and its metadata; one without a checksum is not checked.

    Raises:
        OSError, SafetensorError: it cannot be read, or is damaged.
    """
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    expected = metadata.pop(_SUM, None)
    if expected is not None and expected != _checksum(tensors):
        raise SafetensorError("its checksum is another one")
    return tensors, metadata


def _sort_metadata(path: Path) -> None:
    """Safetensors writes metadata in a random order; the same tensors are to give the same bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        settled = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(settled) <= size, "it is the same text in another order, padded with spaces"
        file.seek(8)
        file.write(settled.ljust(size))


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].detach().reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"
