"""A backbone divided between two processes reads as a whole one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pad_cli.models.distributed import is_sharded, load_sharded, main_reads_first
from pad_cli.recipe import ModelSettings, TrainRecipe
from tests.architectures import ARCHITECTURES, make_architecture


def test_divided_models_read_as_whole_ones_and_an_error_of_the_reader_ends_all(
    byte_tokenizer: Any, tmp_path: Path
) -> None:
    names = []
    for architecture in ARCHITECTURES:
        model = make_architecture(architecture, byte_tokenizer)
        names.append(str(tmp_path / architecture))
        model.model.save_pretrained(names[-1])
        model.tokenizer.save_pretrained(names[-1])
    worker = Path(__file__).with_name("sharded_reading.py")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(worker), *names],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == names, done.stderr
    assert done.returncode != 0
    assert "ValueError: on purpose" in done.stderr


def test_one_process_keeps_the_whole_backbone(model_directory: Path) -> None:
    backbone = load_sharded(ModelSettings(model=str(model_directory), device="cpu"))
    assert not is_sharded(backbone.model)
    with main_reads_first(backbone.model):
        pass


@pytest.mark.parametrize("key", [{"device_map": "auto"}, {"quantization": "4bit"}])
def test_a_backbone_is_divided_in_one_way(key: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"either `shard_backbone` or `backbone.{next(iter(key))}`"):
        TrainRecipe.model_validate(
            {
                "kind": "train-rm",
                "output": "run",
                "backbone": {"model": "owner/name", **key},
                "data": {"train": "train.jsonl"},
                "stages": [{"stage": "heads", "steps": 1}],
                "shard_backbone": True,
            }
        )
