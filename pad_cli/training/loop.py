"""The training loop of every stage: AdamW, warm-up and a cosine, gradients clipped at norm 1, early stopping, resume.

Resume is exact. Every step draws what is random from the seed and its own number, so a run that was killed ends with
the weights of one that was not. A loss or gradient that is not finite ends training before it reaches the weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from safetensors import SafetensorError
from torch import nn

from pad_cli.equation import preference_loss
from pad_cli.errors import TrainingError
from pad_cli.models.checkpoint_files import load_tensors, save_tensors
from pad_cli.recipe import AdapterStage, DistilStage, EncoderStage, HeadsStage, JointStage, LoraStage, Stage
from pad_cli.system.processes import ALONE, Processes
from pad_cli.system.progress import bar
from pad_cli.system.runs import storage_errors

_SAVE_SECONDS = 15.0
_POINTS = 40  # of the history, at least
_SHOWN_PAIRS = 64  # of a batch, in an error
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's own
_STATE = ("step", "history", "best_score", "stale", "since", "scaler")

TrainingStage = AdapterStage | HeadsStage | DistilStage | EncoderStage | JointStage
Parameters = Mapping[str, nn.Parameter]

Loss = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(B,) indices of items to their mean loss, and to (B,) margins: above 0 where an item is learned."""

Evaluate = Callable[[], dict[str, dict[str, Any]]]
"""Metrics of every validation split, with `policy_accuracy`."""


def fit(
    stage: TrainingStage,
    groups: Sequence[tuple[Parameters, float]],
    loss_of: Loss,
    items: int,
    seed: int,
    snapshot: Path,
    evaluate: Evaluate | None = None,
    *,
    everyone: Processes = ALONE,
    scaler: torch.amp.GradScaler | None = None,
) -> list[dict[str, Any]]:
    """Train some parameters, or go on where a killed run was.

    Args:
        groups: parameters by name, and the peak learning rate of each group.
        loss_of: loss and margins of some of the items under the parameters; an item is a pair, or what else a stage
            learns from.
        items: their number.
        snapshot: file that the state of the stage is saved to.
        evaluate: called every `evaluate_every` steps; the weights with the best mean policy accuracy are kept.
        everyone: processes that share the items of every batch and average their gradients.
        scaler: scales the loss of a float16 backbone on a GPU.

    Returns:
        The history: for some steps the mean loss and pair accuracy (share of margins above 0) of the batches since the
        one before, and for measured steps the `splits`' metrics.

    Raises:
        TrainingError: a loss or gradient is not finite; the snapshot is from before that step.
        StorageError: the snapshot cannot be written.
    """
    title, lora, passes = f"Training {stage.stage}", isinstance(stage, LoraStage), _passes(stage)
    total, size = steps_of(stage, items), stage.batch_size
    order = order_of_pairs(items, total * passes * size, seed)
    rates = [learning_rate(step, stage.warmup_steps, total, from_zero=lora) for step in range(total)]
    trained = {name: parameter for group, _ in groups for name, parameter in group.items()}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(
        [{"params": list(group.values()), "lr": peak} for group, peak in groups],
        betas=(0.9, 0.99),
        weight_decay=stage.weight_decay,
    )
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    state = Snapshot.load(snapshot, trained, optimiser)
    if state.scaler:
        scaler.load_state_dict(state.scaler)

    def save() -> None:
        if everyone.main:
            state.scaler = scaler.state_dict()
            state.save(snapshot, trained, optimiser)

    def backward(where: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss and accuracy of a step's items; leaves their clipped gradient."""
        batches, margins, losses = [], [], []
        for number in range(state.step * passes, (state.step + 1) * passes):
            torch.manual_seed(_mixed(seed, number * everyone.count + everyone.rank))  # of dropout
            batch = order[number * size : (number + 1) * size].chunk(everyone.count)[everyone.rank]
            loss, of_items = loss_of(batch)
            batches.append(batch)
            margins.append(of_items.detach())
            losses.append(loss.detach())
            _check_finite(where, "loss", loss, batches, margins, snapshot)
            scaler.scale(loss / passes).backward()
        # the mean of the processes' gradients is that of the whole batch, since their shares are equal
        for parameter in trained.values() if everyone.count > 1 else ():
            if parameter.grad is not None:
                parameter.grad = reduce(parameter.grad, "mean")
        scaler.unscale_(optimiser)
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        if not scaler.is_enabled():  # a scaler leaves out a step that overflows
            _check_finite(where, "gradient's norm", norm, batches, margins, snapshot)
        return torch.stack(losses).mean(), (torch.cat(margins) > 0).float().mean()

    saved, every = time.monotonic(), max(1, total // _POINTS)
    with bar(title, total=total) as progress, torch.random.fork_rng(devices=[]):
        progress.skip(state.step)
        while state.step < total and not (stage.patience and state.stale >= stage.patience):
            for group, (_, peak) in zip(optimiser.param_groups, groups, strict=True):
                group["lr"] = peak * rates[state.step]
            optimiser.zero_grad()
            try:
                loss, accuracy = backward(f"{title}, step {state.step + 1} of {total}")
            except TrainingError:
                save()
                raise
            scaler.step(optimiser)
            scaler.update()
            state.step += 1
            state.count(_mean(loss, everyone), _mean(accuracy, everyone))
            means = state.means()
            progress.advance(status=f"loss {means['loss']:.3f}  accuracy {means['pair_accuracy']:.2f}")
            last = state.step == total
            measured = stage.evaluate_every and (last or state.step % stage.evaluate_every == 0)
            logged = bool(measured) or last or state.step % every == 0
            if logged:
                splits = evaluate() if measured and evaluate else {}
                if splits:
                    state.judge(splits, trained)
                state.history.append({"step": state.step, **means, "splits": splits})
                state.since = (0, 0.0, 0.0)
            if isinstance(stage, LoraStage):
                due = last or state.step % stage.save_every == 0
            else:
                due = logged and time.monotonic() - saved > _SAVE_SECONDS
            if due:
                save()
                saved = time.monotonic()
    with torch.no_grad():
        for name, tensor in state.best.items():
            trained[name].copy_(tensor)
    for parameter in trained.values():
        parameter.requires_grad_(False)
    return state.history


def pair_loss(stage: Stage, rewards: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What `fit` needs of B pairs: from the (2 B,) summed rewards of their chosen answers, then of the rejected."""
    chosen, rejected = rewards.chunk(2)
    loss = preference_loss(
        chosen, rejected, beta=stage.beta, anchor=stage.anchor, label_smoothing=stage.label_smoothing
    )
    return loss, chosen - rejected


def steps_of(stage: TrainingStage, items: int) -> int:
    """Optimiser steps of a stage on some number of items."""
    return stage.steps or math.ceil((stage.epochs or 1) * items / (stage.batch_size * _passes(stage)))


def _passes(stage: TrainingStage) -> int:
    """Forward passes in one optimiser step."""
    return stage.accumulation_steps if isinstance(stage, LoraStage) else 1


def order_of_pairs(count: int, length: int, seed: int) -> torch.Tensor:
    """(length,) indices of pairs: all of them again and again, each time in another random order."""
    generator = torch.Generator()
    passes = [
        torch.randperm(count, generator=generator.manual_seed(_mixed(seed, number)))
        for number in range(math.ceil(length / count))
    ]
    return torch.cat(passes)[:length]


def learning_rate(step: int, warmup: int, total: int, *, from_zero: bool) -> float:
    """Share of the peak: linear warm-up, then half a cosine; `from_zero` begins as transformers' schedule does."""
    if step < warmup:
        return (step + (not from_zero)) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def _mixed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**63


def _mean(value: torch.Tensor, everyone: Processes) -> float:
    return float(reduce(value, "mean") if everyone.count > 1 else value)


def _check_finite(
    where: str, what: str, value: torch.Tensor, batches: list[torch.Tensor], margins: list[torch.Tensor], snapshot: Path
) -> None:
    """Raises TrainingError where a loss or norm is not finite; it names the pairs of the step so far."""
    if torch.isfinite(value):
        return
    pairs = torch.cat(batches)
    guilty = pairs[~torch.isfinite(torch.cat(margins)).cpu()].tolist()
    listed = [", ".join(map(str, numbers[:_SHOWN_PAIRS])) for numbers in (pairs.tolist(), guilty)]
    raise TrainingError(
        f"{where}: the {what} is {value.item()}. Its pairs, by their number in the stage's training data (from 0): "
        f"{listed[0]}." + (f" Without a finite reward: {listed[1]}." if guilty else ""),
        f"The last good state is saved in {snapshot}. Look at these pairs for extreme weights, or lower the learning "
        "rate.",
    )


@dataclass
class Snapshot:
    """A stage after some steps, saved whole; the file before it stays in case the newest one is damaged.

    `best` holds the weights with the best validation score so far, and `stale` counts the measurements since then;
    `since` the steps since the history's last point, and the sums of their losses and accuracies.
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_score: float = -1.0
    stale: int = 0
    since: tuple[int, float, float] = (0, 0.0, 0.0)
    scaler: dict[str, Any] = field(default_factory=dict)

    def count(self, loss: float, accuracy: float) -> None:
        """Add a step to `since`."""
        steps, losses, accuracies = self.since
        self.since = (steps + 1, losses + loss, accuracies + accuracy)

    def means(self) -> dict[str, float]:
        """Over the steps in `since`."""
        steps, losses, accuracies = self.since
        return {"loss": losses / steps, "pair_accuracy": accuracies / steps}

    def judge(self, splits: Mapping[str, Mapping[str, Any]], parameters: Parameters) -> None:
        """Keep the weights if their mean policy accuracy is the best so far."""
        score = sum(metrics["policy_accuracy"] for metrics in splits.values()) / len(splits)
        if score > self.best_score:
            self.best_score, self.stale = score, 0
            self.best = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        else:
            self.stale += 1

    def save(self, path: Path, parameters: Parameters, optimiser: torch.optim.Optimizer) -> None:
        """Write it with the parameters and the optimiser's moments.

        Raises:
            StorageError: the file cannot be written.
        """
        tensors = {f"best.{name}": tensor for name, tensor in self.best.items()}
        for name, parameter in parameters.items():
            tensors[f"weight.{name}"] = parameter.detach()
            moments = optimiser.state.get(parameter, {})
            tensors |= {f"{key}.{name}": moments[key] for key in _MOMENTS if key in moments}
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(".part")
            copies = {name: tensor.cpu().clone().contiguous() for name, tensor in tensors.items()}
            save_tensors(copies, scratch, {"facts": json.dumps({name: getattr(self, name) for name in _STATE})})
            if path.exists():
                path.replace(_previous(path))
            scratch.replace(path)

    @classmethod
    def load(cls, path: Path, parameters: Parameters, optimiser: torch.optim.Optimizer) -> Snapshot:
        """Bring parameters and optimiser to the newest state that fits; a new start where there is none."""
        for file in (path, _previous(path)):
            try:
                return cls._read(file, parameters, optimiser)
            except (OSError, SafetensorError, KeyError, ValueError, TypeError):
                continue
        return cls()

    @classmethod
    def _read(cls, path: Path, parameters: Parameters, optimiser: torch.optim.Optimizer) -> Snapshot:
        mapped, metadata = load_tensors(path)
        content = {"scaler": {}, **json.loads(metadata["facts"])}  # version 0.1 saved no scaler
        tensors = {name: tensor.clone() for name, tensor in mapped.items()}
        best = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("best.")}
        snapshot = cls(best=best, **{name: content[name] for name in _STATE})
        if any(tensors[f"weight.{name}"].shape != parameter.shape for name, parameter in parameters.items()):
            raise ValueError(f"'{path}' is of another stage")
        for name, parameter in parameters.items():
            parameter.data.copy_(tensors[f"weight.{name}"])
            moments = {key: tensors[f"{key}.{name}"] for key in _MOMENTS if f"{key}.{name}" in tensors}
            if moments:
                optimiser.state[parameter] = {
                    key: tensor if key == "step" else tensor.to(parameter.device) for key, tensor in moments.items()
                }
        return snapshot


def _previous(path: Path) -> Path:
    return path.with_suffix(".previous")
