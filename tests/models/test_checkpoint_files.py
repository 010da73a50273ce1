"""Tensors on disk are those that were written, or their file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from pad_cli.models.checkpoint_files import load_tensors, save_tensors

TENSORS = {
    "a": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    "b": torch.tensor(2.0, dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
    "whole": torch.arange(7),
}


def test_tensors_and_metadata_read_back(tmp_path: Path) -> None:
    save_tensors(TENSORS, tmp_path / "file", {"format": "pt"})
    tensors, metadata = load_tensors(tmp_path / "file")
    assert metadata == {"format": "pt"}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    for number in range(8):
        save_tensors(TENSORS, tmp_path / str(number))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@given(st.data())
def test_a_byte_changed_anywhere_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("damaged") / "file"
    save_tensors(TENSORS, path)
    content = bytearray(path.read_bytes())
    size = sum(tensor.numel() * tensor.element_size() for tensor in TENSORS.values())
    place = data.draw(st.integers(len(content) - size, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(SafetensorError, match="checksum"):
        load_tensors(path)


def test_a_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "file")
    assert load_tensors(tmp_path / "file")[0].keys() == TENSORS.keys()
