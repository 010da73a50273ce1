"""Training ends at a loss or gradient that is not finite, before it reaches the weights: what is kept stays good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pad_cli.errors import TrainingError

_SHOWN = 64  # pairs of a batch


def check_finite(
    step: str, loss: torch.Tensor, norm: torch.Tensor, batch: torch.Tensor, margins: torch.Tensor, kept: Path
) -> None:
    """Stop at a step that cannot be made.

    Args:
        step: which one, in words.
        loss: of its batch.
        norm: of the gradients.
        batch: (B,) numbers of its pairs.
        margins: (B,) reward of each chosen answer less that of the rejected one, nats.
        kept: where the training stands before this step.

    Raises:
        TrainingError: loss or norm is not finite.
    """
    if torch.isfinite(loss) and torch.isfinite(norm):
        return
    what = f"the loss is {loss.item()}" if not torch.isfinite(loss) else f"the gradient's norm is {norm.item()}"
    guilty = batch[~torch.isfinite(margins.detach()).cpu()].tolist()
    raise TrainingError(
        f"{step}: {what}. Its pairs, by their number in the stage's training data (from 0): {_listed(batch.tolist())}."
        + (f" Without a finite reward: {_listed(guilty)}." if guilty else ""),
        f"The last good state is kept in {kept}. Look at these pairs for extreme weights, or lower the learning rate.",
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
