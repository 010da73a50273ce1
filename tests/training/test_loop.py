"""Our training loop: killed anywhere and started again, it gives the weights of a run that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pad_cli.errors import TrainingError
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import EncoderStage, HeadsStage
from pad_cli.training import loop
from pad_cli.training.pair_table import SequenceBook, tabulate
from pad_cli.training.stages import CachedData
from tests.tiny import make_reward_model
from tests.training.conftest import TEXTS, make_rewards, train_encoder
from tests.training.test_stages import PAIRS

STAGE = {"stage": "heads", "steps": 40, "batch_size": 8, "learning_rate": 0.05, "warmup_steps": 4}


class KilledError(Exception):
    """Stands for SIGKILL."""


def task() -> tuple[nn.Module, torch.Tensor]:
    """A linear score of 30 pairs of three features."""
    torch.manual_seed(0)
    return nn.Linear(3, 1), torch.randn(30, 2, 3)


def run(
    snapshot: Path, killed_at: int | None = None, evaluate: Any = None, **changed: Any
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    module, features = task()
    calls = iter(range(10**6))

    stage = HeadsStage.model_validate({**STAGE, **changed})

    def loss_of(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if killed_at is not None and next(calls) == killed_at:
            raise KilledError
        seen = nn.functional.dropout(features[batch], 0.3)
        return loop.pair_loss(stage, module(seen)[..., 0].T.flatten())

    groups = [(dict(module.named_parameters()), stage.learning_rate)]
    history = loop.fit(stage, groups, loss_of, len(features), 3, snapshot, evaluate and (lambda: evaluate(module)))
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}, history


def fit_once(stage: HeadsStage, module: nn.Module, features: torch.Tensor, snapshot: Path) -> None:
    groups = [(dict(module.named_parameters()), stage.learning_rate)]

    def loss_of(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return loop.pair_loss(stage, module(features[batch])[..., 0].T.flatten())

    loop.fit(stage, groups, loss_of, 30, 0, snapshot)


def judge(module: nn.Module) -> dict[str, dict[str, float]]:
    """Best somewhere in the middle: the closer the norm is to .8 the better."""
    norm = sum(parameter.square().sum() for parameter in module.parameters()).item() ** 0.5
    return {"dev": {"policy_accuracy": 1 - abs(norm - 0.8) / 2}}


@pytest.mark.parametrize("killed_at", [0, 1, 7, 19, 33, 39])
@pytest.mark.parametrize("evaluated", [False, True])
def test_killed_and_started_again_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, evaluated: bool
) -> None:
    """Also with early stopping and dropout, and killed a second time two steps later."""
    monkeypatch.setattr(loop, "_SAVE_SECONDS", 0.0)
    changed: dict[str, Any] = {"evaluate_every": 4} if evaluated else {}
    evaluate = judge if evaluated else None
    weights, history = run(tmp_path / "whole", evaluate=evaluate, **changed)
    for moment in (killed_at, 2):
        try:
            run(tmp_path / "broken", killed_at=moment, evaluate=evaluate, **changed)
        except KilledError:
            continue
    again, told = run(tmp_path / "broken", evaluate=evaluate, **changed)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert told == history


@pytest.mark.parametrize("broken", ["loss", "gradient"])
@pytest.mark.parametrize("step", [0, 6, 39])
def test_a_step_that_is_not_finite_stops_before_it_and_goes_on_from_there(
    tmp_path: Path, step: int, broken: str
) -> None:
    """As if a machine had computed one step wrongly: run again, it ends as one that never did."""
    weights, history = run(tmp_path / "whole")
    plain, steps = loop.preference_loss, iter(range(100))

    def wrong(chosen: torch.Tensor, rejected: torch.Tensor, **settings: Any) -> torch.Tensor:
        loss = plain(chosen, rejected, **settings)
        if next(steps) != step:
            return loss
        return loss * torch.nan if broken == "loss" else loss + (chosen * 0).pow(0.5).sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "preference_loss", wrong)
        with pytest.raises(TrainingError) as caught:
            run(tmp_path / "broken")
    what = "the loss is nan" if broken == "loss" else "the gradient's norm is nan"
    pairs = ", ".join(map(str, loop.order_of_pairs(30, 320, 3)[8 * step : 8 * step + 8].tolist()))
    assert caught.value.message == (
        f"Training heads, step {step + 1} of 40: {what}. "
        f"Its pairs, by their number in the stage's training data (from 0): {pairs}."
    )
    assert str(tmp_path / "broken") in caught.value.hint
    again, told = run(tmp_path / "broken")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert told == history


def test_the_pairs_without_a_finite_reward_are_named(tmp_path: Path) -> None:
    module, features = task()
    features[17] = torch.inf
    stage = HeadsStage.model_validate({**STAGE, "batch_size": 30})
    with pytest.raises(TrainingError, match="Without a finite reward: 17") as caught:
        fit_once(stage, module, features, tmp_path / "snapshot")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "facts"])
def test_a_damaged_snapshot_starts_the_stage_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(loop, "_SAVE_SECONDS", 0.0)
    weights, _ = run(tmp_path / "whole")
    path = tmp_path / "broken"
    with pytest.raises(KilledError):
        run(path, killed_at=25)
    content = path.read_bytes()
    path.unlink()
    if damage == "other":
        from safetensors.torch import save_file

        save_file({"weight.weight": torch.zeros(2, 2)}, path, metadata={"facts": json.dumps({"step": 3})})
    else:
        damaged = {"cut": content[:-9], "empty": b"", "facts": content.replace(b"best_score", b"bets_score")}
        path.write_bytes(damaged[damage])
    again, _ = run(path)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_best_weights_are_kept_and_patience_stops(tmp_path: Path) -> None:
    everything, history = run(tmp_path / "a", evaluate=judge, evaluate_every=2, learning_rate=0.3)
    scores = {point["step"]: point["splits"]["dev"]["policy_accuracy"] for point in history if point["splits"]}
    best = max(scores, key=lambda step: scores[step])
    assert 2 < best < 40, "the test is about a best in the middle"
    until_best, _ = run(tmp_path / "b", killed_at=None, evaluate=judge, evaluate_every=2, learning_rate=0.3, patience=1)
    assert all(torch.equal(everything[name], until_best[name]) for name in everything)
    _, short = run(tmp_path / "c", evaluate=judge, evaluate_every=2, learning_rate=0.3, patience=1)
    assert short[-1]["step"] == best + 2


def test_every_pass_sees_every_pair_once_and_in_another_order() -> None:
    order = loop.order_of_pairs(10, 25, seed=1)
    assert [sorted(order[start : start + 10].tolist()) for start in (0, 10)] == [list(range(10))] * 2
    assert order[:10].tolist() != order[10:20].tolist()
    assert len(order) == 25
    assert not torch.equal(order, loop.order_of_pairs(10, 25, seed=2))


def test_training_leaves_torchs_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    module, features = task()
    torch.manual_seed(5)
    stage = HeadsStage.model_validate(STAGE)
    fit_once(stage, module, features, tmp_path / "snapshot")
    assert torch.equal(torch.rand(3), expected)


def test_free_text_preferences_train_the_encoder(policy: LanguageModel, tmp_path: Path) -> None:
    """Pairs that name no principle teach which text means which head."""
    heads = make_reward_model(policy).heads
    worded = [
        type(pair)(pair.prompt, {}, pair.chosen, pair.rejected, {TEXTS[name][0]: 1.0})
        for pair in PAIRS
        for name in pair.preference
    ]
    book = SequenceBook()
    table = tabulate(worded, book)
    sequences, _ = book.tokenised(policy.tokenizer, 512, 512)
    data = CachedData(make_rewards(policy, sequences, tmp_path), table, 0, tmp_path / "snapshot")
    stage = EncoderStage(stage="encoder", steps=60, batch_size=8, hidden_size=16, dropout=0.0, learning_rate=0.03)
    encoder, history = train_encoder(stage, heads, policy, {}, data)
    assert len(encoder.state_dict()) > 0
    assert history[-1]["loss"] < history[0]["loss"]
