"""Two processes killed at random moments and continued, give the answers and report of one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pad_cli.models.checkpoint_files import HEADS
from tests.system.test_processes import ADAPTER, PREFERENCES, models, run, train_recipe
from tests.training.test_lora_resume import saved_step

__all__ = ["models"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KILLS = 4


def killed(command: list[str], directory: Path, victim: int, far: Callable[[], bool]) -> None:
    """Run by two processes, and kill one of them once they have come so far."""
    launcher = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "pad_cli", *command],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PAD_HOME": str(directory / "home")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not far():
        assert launcher.poll() is None, "it must be killed while it runs"
        time.sleep(0.02)
    workers = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[victim]), signal.SIGKILL)
    assert launcher.wait(120) != 0


def written(directory: Path) -> int:
    """Answers in the parts of the log."""
    return sum(path.read_bytes().count(b"\n") for path in (directory / "run").glob("answers.jsonl.part-*"))


def test_killed_and_continued_equals_undisturbed(models: dict[str, str], tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Question {number}?"}) + "\n" for number in range(300)))
    recipe = {
        "kind": "eval",
        "output": "run",
        "policies": {"home": {"model": models["policy"], "device": "cpu"}},
        "reward_model": models["reward_model"],
        "benchmarks": [{"benchmark": "jsonl", "options": {"path": str(prompts), "preferences": list(PREFERENCES)}}],
        "scorers": ["words"],
        "decoding": {"max_new_tokens": 60, "batch_size": 1, "temperature": 0.7},  # for the same bytes
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    command = ["eval", str(tmp_path / "recipe.yaml")]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    run(command, one, 1)
    chance = random.Random(0)
    for _ in range(KILLS):
        wanted = written(two) + chance.randrange(20, 120)
        killed(command, two, wanted % 2, lambda wanted=wanted: written(two) >= wanted)
    run(command, two, 2)
    for name in ("report.json", "outputs.json"):
        assert (two / "run" / name).read_bytes() == (one / "run" / name).read_bytes(), name
    assert not list((two / "run").glob("*.part-*"))


def test_training_killed_and_continued_equals_undisturbed(model_directory: Path, tmp_path: Path) -> None:
    stages = [{**ADAPTER, "steps": 40, "save_every": 4}, {"stage": "heads", "steps": 60, "batch_size": 16}]
    recipe = train_recipe(tmp_path, model_directory, *stages, count=200)
    command = ["train-rm", str(recipe)]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    run(command, whole, 2)

    def reached(step: int) -> bool:
        snapshots = broken.glob("run/.work/*/adapter.unfinished/snapshot.safetensors")
        return any(saved_step(path) >= step for path in snapshots)

    for victim, step in ((0, 4), (1, 16), (0, 28)):
        killed(command, broken, victim, partial(reached, step))
    run(command, broken, 2)
    for name in (HEADS, "adapter_model.safetensors", "metrics.json"):
        assert (broken / "run" / name).read_bytes() == (whole / "run" / name).read_bytes(), name
