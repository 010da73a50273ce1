"""A training run killed at ten random moments, and continued, writes the weights of one that was not disturbed."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from pad_cli.models.checkpoint_files import ENCODER, HEADS
from tests.slow.killing import run_pad
from tests.training.conftest import TEXTS, make_rows, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS = 10
STAGES = [
    {"stage": "adapter", "steps": 24, "batch_size": 4, "lora_rank": 2, "save_every": 2, "warmup_steps": 2},
    {"stage": "heads", "steps": 600, "batch_size": 16, "dropout": 0.2, "evaluate_every": 50},
    {"stage": "encoder", "steps": 200, "batch_size": 16, "hidden_size": 16},
]


def train(recipe: Path, home: Path, out: Path, stop_after: float | None = None) -> int:
    """`pad train-rm` on one thread."""
    return run_pad(["train-rm", str(recipe), "--quiet", "--out", str(out)], home, stop_after, OMP_NUM_THREADS="1")


def test_killed_ten_times_equals_undisturbed(model_directory: Path, tmp_path: Path) -> None:
    content = {
        "kind": "train-rm",
        "output": "unused",
        "backbone": {"model": str(model_directory), "device": "cpu", "dtype": "float32"},
        "data": {
            "train": write_rows(tmp_path / "train.jsonl", make_rows(96, seed=1)),
            "validation": {"dev": write_rows(tmp_path / "dev.jsonl", make_rows(40, seed=2))},
            "texts": TEXTS,
        },
        "heads": {"rank": 2},
        "stages": STAGES,
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(content))  # JSON is YAML
    started = time.monotonic()
    assert train(recipe, tmp_path / "home", tmp_path / "whole") == 0
    whole = time.monotonic() - started
    rng, killed = random.Random(0), 0
    for _ in range(KILLS):
        killed += train(recipe, tmp_path / "home-2", tmp_path / "broken", rng.uniform(0.2, 1.0) * whole) < 0
    assert killed >= KILLS / 2, "most kills must hit a running program"
    assert train(recipe, tmp_path / "home-2", tmp_path / "broken") == 0
    for name in (HEADS, ENCODER, "adapter_model.safetensors", "metrics.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "broken" / ".work").exists()
