"""A LoRA stage that was killed goes on as if it had not been: the same weights, bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pad_cli.errors import TrainingError
from pad_cli.models.checkpoint_files import load_tensors
from pad_cli.models.language_model import LanguageModel
from pad_cli.training import loop
from pad_cli.training.lora import train_lora
from tests.tiny import make_language_model
from tests.training.test_lora_stages import condition, joint_stage, make_heads, tables

STAGE = joint_stage(
    steps=7, batch_size=3, accumulation_steps=2, save_every=2, evaluate_every=3, lora_dropout=0.2, learning_rate=0.01
)


def run(model: LanguageModel, directory: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The whole stage, or what is left of it: its weights, and its history."""
    heads = make_heads(model)
    sequences, pairs, weights = tables(model)
    adapter, history = train_lora(
        STAGE, model, heads, sequences, pairs, weights, validation=[("own", pairs, weights)],
        directory=directory, seed=5,
    )  # fmt: skip
    adapter.remove_hooks()
    return {**load_file(directory / "last" / "adapter_model.safetensors"), **heads.state_dict()}, history


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def backbone(byte_tokenizer: Any) -> LanguageModel:
    return make_language_model(byte_tokenizer, seed=0)


@pytest.fixture(scope="module")
def uninterrupted(
    backbone: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    return run(backbone, tmp_path_factory.mktemp("uninterrupted"))


def killed(model: LanguageModel, directory: Path, step: int) -> None:
    """A run that ends in the middle of the given step."""
    count = loop.Snapshot.count

    def fall(self: loop.Snapshot, loss: float, accuracy: float) -> None:
        count(self, loss, accuracy)
        if self.step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Snapshot, "count", fall)
        with pytest.raises(KeyboardInterrupt):
            run(model, directory)


def saved_step(path: Path) -> int:
    """Of a snapshot; 0 where there is none."""
    return int(json.loads(load_tensors(path)[1]["facts"])["step"]) if path.exists() else 0


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 7])
def test_a_killed_run_gives_the_same_weights(
    step: int, backbone: LanguageModel, uninterrupted: Any, tmp_path: Path
) -> None:
    killed(backbone, tmp_path, step)
    assert saved_step(tmp_path / "snapshot.safetensors") == {2: 0, 3: 2, 4: 2, 6: 4, 7: 6}.get(step, 0)
    torch.manual_seed(step)  # nothing that happens to be around plays a part
    weights, history = run(backbone, tmp_path)
    assert equal(weights, uninterrupted[0])
    assert history == uninterrupted[1]


def test_a_run_killed_twice_gives_the_same_weights(backbone: LanguageModel, uninterrupted: Any, tmp_path: Path) -> None:
    before = condition(backbone)
    killed(backbone, tmp_path, 3)
    killed(backbone, tmp_path, 5)
    assert condition(backbone) == before
    assert equal(run(backbone, tmp_path)[0], uninterrupted[0])


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_last_snapshot_falls_back_to_the_one_before(
    damage: str, backbone: LanguageModel, uninterrupted: Any, tmp_path: Path
) -> None:
    killed(backbone, tmp_path, 5)
    path = tmp_path / "snapshot.safetensors"
    assert (saved_step(path), saved_step(path.with_suffix(".previous"))) == (4, 2)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    else:
        path.unlink()
    assert equal(run(backbone, tmp_path)[0], uninterrupted[0])


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_that_is_not_finite_leaves_the_last_snapshot_good(
    broken: str, backbone: LanguageModel, uninterrupted: Any, tmp_path: Path
) -> None:
    """The ninth batch is the first one of the fifth step, behind the second snapshot."""
    plain, batches = loop.preference_loss, iter(range(100))

    def wrong(chosen: torch.Tensor, rejected: torch.Tensor, **settings: Any) -> torch.Tensor:
        loss = plain(chosen, rejected, **settings)
        if next(batches) != 8:
            return loss
        return loss * torch.nan if broken == "loss" else loss + (chosen * 0).pow(0.5).sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "preference_loss", wrong)
        with pytest.raises(TrainingError) as caught:
            run(backbone, tmp_path)
    what = "the loss is nan" if broken == "loss" else "the gradient's norm is nan"
    assert caught.value.message.startswith(f"Training joint, step 5 of 7: {what}. Its pairs")
    pairs = caught.value.message.rpartition("(from 0): ")[2].split(", ")
    assert len(pairs) == (3 if broken == "loss" else 6), "the first batch, or both of the step"
    assert str(tmp_path) in caught.value.hint
    assert saved_step(tmp_path / "snapshot.safetensors") == 4
    assert equal(run(backbone, tmp_path)[0], uninterrupted[0])


def test_a_finished_stage_is_not_trained_again(backbone: LanguageModel, uninterrupted: Any, tmp_path: Path) -> None:
    run(backbone, tmp_path)
    before = (tmp_path / "snapshot.safetensors").stat().st_mtime_ns
    assert equal(run(backbone, tmp_path)[0], uninterrupted[0])
    assert (tmp_path / "snapshot.safetensors").stat().st_mtime_ns == before


def test_the_reference_is_read_once(backbone: LanguageModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    killed(backbone, tmp_path, 3)
    capfd.readouterr()
    run(backbone, tmp_path)
    assert "Reading answers" not in capfd.readouterr().err


PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.tiny import make_language_model, make_tokenizer
from tests.training.test_lora_resume import run
run(make_language_model(make_tokenizer(), seed=0), Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_process_killed_by_the_system_gives_the_same_weights(
    backbone: LanguageModel, uninterrupted: Any, tmp_path: Path
) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stderr=subprocess.DEVNULL)
    while not (tmp_path / "snapshot.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "last").exists()
    assert equal(run(backbone, tmp_path)[0], uninterrupted[0])
