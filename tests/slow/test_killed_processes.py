"""Two processes killed at random moments and continued, give the answers and report of one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_processes import PREFERENCES, models, run

__all__ = ["models"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KILLS = 4


def killed(command: list[str], directory: Path, answers: int) -> None:
    """Run by two processes, and kill one of them once they have written so many answers."""
    launcher = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "pad_cli", *command],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PAD_HOME": str(directory / "home")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while written(directory) < answers:
        assert launcher.poll() is None, "it must be killed while it runs"
        time.sleep(0.02)
    workers = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[answers % 2]), signal.SIGKILL)
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
        "decoding": {"max_new_tokens": 60, "batch_size": 2, "temperature": 0.7},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    command = ["eval", str(tmp_path / "recipe.yaml")]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    run(command, one, 1)
    chance = random.Random(0)
    for _ in range(KILLS):
        killed(command, two, written(two) + chance.randrange(20, 120))
    run(command, two, 2)
    for name in ("report.json", "outputs.json"):
        assert (two / "run" / name).read_bytes() == (one / "run" / name).read_bytes(), name
    assert not list((two / "run").glob("*.part-*"))
