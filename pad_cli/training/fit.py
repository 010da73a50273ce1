"""Our own small training loop, for the stages whose hidden states are cached.

AdamW with warm-up and a cosine, gradients clipped at norm 1, early stopping, and exact resume: every step draws what is
random from the seed and its own number, so a run that was killed gives the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pad_cli.equation import preference_loss
from pad_cli.errors import TrainingError
from pad_cli.recipe import EncoderStage, HeadsStage
from pad_cli.system.progress import bar
from pad_cli.training.finite import check_finite
from pad_cli.training.snapshot import Snapshot

_SAVE_SECONDS = 15.0
_POINTS = 40  # of the history, at least

Score = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(B,) numbers of pairs to the (B,) rewards of their chosen and of their rejected answers."""

Evaluate = Callable[[], dict[str, dict[str, Any]]]
"""Metrics of every validation split, with `policy_accuracy`."""


def fit(
    stage: HeadsStage | EncoderStage,
    module: nn.Module,
    score: Score,
    pairs: int,
    seed: int,
    snapshot: Path,
    evaluate: Evaluate | None = None,
) -> list[dict[str, Any]]:
    """Train a module, or go on where a killed run was.

    Args:
        stage: its length, optimiser and loss.
        module: all of its parameters are trained.
        score: rewards of some pairs under the module.
        pairs: how many there are.
        seed: of batches and dropout.
        snapshot: file that says where the stage stands.
        evaluate: validation metrics, for `evaluate_every`; the weights with the best mean policy accuracy are kept.

    Returns:
        The history: for some steps the mean loss and pair accuracy of the batches since the one before, and of the
        steps that were measured the `splits`' metrics.

    Raises:
        TrainingError: a loss or gradient is not finite; the snapshot is from before that step.
        StorageError: the snapshot cannot be written.
    """
    name = f"Training {stage.stage}"
    trained = list(module.requires_grad_(True).parameters())
    total = stage.steps or math.ceil((stage.epochs or 1) * pairs / stage.batch_size)
    optimiser = torch.optim.AdamW(trained, stage.learning_rate, betas=(0.9, 0.99), weight_decay=stage.weight_decay)
    state = Snapshot.load(snapshot, module, optimiser)
    batches = _Batches(pairs, stage.batch_size, seed)
    saved, every = time.monotonic(), max(1, total // _POINTS)
    with bar(name, total=total) as progress, torch.random.fork_rng(devices=[]):
        progress.skip(state.step)
        while state.step < total and not (stage.patience and state.stale >= stage.patience):
            torch.manual_seed(_mixed(seed, state.step))
            batch = batches.of(state.step)
            chosen, rejected = score(batch)
            loss = preference_loss(
                chosen, rejected, beta=stage.beta, anchor=stage.anchor, label_smoothing=stage.label_smoothing
            )
            for group in optimiser.param_groups:
                group["lr"] = stage.learning_rate * _rate(state.step, stage.warmup_steps, total)
            optimiser.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
            try:
                check_finite(
                    f"{name}, step {state.step + 1} of {total}", loss, norm, batch, chosen - rejected, snapshot
                )
            except TrainingError:
                state.save(snapshot, module, optimiser)
                raise
            optimiser.step()
            state.step += 1
            state.count(loss.item(), _accuracy(chosen, rejected))
            means = state.means()
            progress.advance(status=f"loss {means['loss']:.3f}  accuracy {means['pair_accuracy']:.2f}")
            measured = stage.evaluate_every and (state.step % stage.evaluate_every == 0 or state.step == total)
            if measured or state.step % every == 0 or state.step == total:
                splits = _measure(state, module, evaluate) if measured and evaluate is not None else {}
                state.history.append({"step": state.step, **means, "splits": splits})
                state.since = (0, 0.0, 0.0)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    state.save(snapshot, module, optimiser)
                    saved = time.monotonic()
    if state.best:
        module.load_state_dict(state.best, strict=False)  # buffers are not trained
    module.requires_grad_(False)
    return state.history


def _measure(state: Snapshot, module: nn.Module, evaluate: Evaluate) -> dict[str, dict[str, Any]]:
    module.eval()
    splits = evaluate()
    module.train()
    scored = [metrics["policy_accuracy"] for metrics in splits.values()]
    score = sum(scored) / len(scored) if scored else 0.0
    if score > state.best_score:
        state.best_score, state.stale = score, 0
        state.best = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    else:
        state.stale += 1
    return splits


def _accuracy(chosen: torch.Tensor, rejected: torch.Tensor) -> float:
    return (chosen > rejected).float().mean().item()


class _Batches:
    """The pairs in random order, again and again, each time in another; which are in a step depends on its number."""

    def __init__(self, count: int, size: int, seed: int) -> None:
        self._count, self._size, self._seed = count, size, seed
        self._passes: dict[int, torch.Tensor] = {}

    def of(self, step: int) -> torch.Tensor:
        """(size,) numbers of the pairs of a step."""
        places = range(step * self._size, (step + 1) * self._size)
        return torch.stack([self._order(place // self._count)[place % self._count] for place in places])

    def _order(self, number: int) -> torch.Tensor:
        if number not in self._passes:
            self._passes = {key: order for key, order in self._passes.items() if key == number - 1}
            generator = torch.Generator().manual_seed(_mixed(self._seed, number))
            self._passes[number] = torch.randperm(self._count, generator=generator)
        return self._passes[number]


def _mixed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**63


def _rate(step: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
