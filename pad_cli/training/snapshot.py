"""Where a stage stands, on disk: weights, optimiser, the best weights so far, and the history; never half-written.

Everything random in a stage is drawn from its seed and the step's number, so there is no generator to keep.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from pad_cli.models.checkpoint_files import load_tensors, save_tensors
from pad_cli.system.runs import storage_errors

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's own
_FACTS = ("step", "history", "best_score", "stale", "since")


@dataclass
class Snapshot:
    """A stage after some steps.

    Attributes:
        step: how many are done.
        history: what was logged, one mapping for each point.
        best: weights with the best validation so far, by parameter name; empty when nothing was measured.
        best_score: its score.
        stale: how many measurements since then were no better.
        since: the history's last point: steps, and the sums of their losses and accuracies.
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_score: float = -1.0
    stale: int = 0
    since: tuple[int, float, float] = (0, 0.0, 0.0)

    def count(self, loss: float, accuracy: float) -> None:
        """One more step since the history's last point."""
        steps, losses, accuracies = self.since
        self.since = (steps + 1, losses + loss, accuracies + accuracy)

    def means(self) -> dict[str, float]:
        """Of the steps since the history's last point, at least one."""
        steps, losses, accuracies = self.since
        return {"loss": losses / steps, "pair_accuracy": accuracies / steps}

    def save(self, path: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write it with the module's weights and the optimiser's moments.

        Raises:
            StorageError: the file cannot be written.
        """
        tensors = {f"best.{name}": tensor for name, tensor in self.best.items()}
        for name, parameter in module.named_parameters():
            tensors[f"weight.{name}"] = parameter.detach()
            moments = optimiser.state.get(parameter, {})
            tensors |= {f"{key}.{name}": moments[key] for key in _MOMENTS if key in moments}
        facts = {name: getattr(self, name) for name in _FACTS}
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(".part")
            copies = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
            save_tensors(copies, scratch, {"facts": json.dumps(facts)})
            scratch.replace(path)

    @classmethod
    def load(cls, path: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> Snapshot:
        """Bring a module and its optimiser to where a file says they were; a new start when there is none that fits."""
        parameters = dict(module.named_parameters())
        try:
            mapped, metadata = load_tensors(path)
            facts = json.loads(metadata["facts"])
            tensors = {name: tensor.clone() for name, tensor in mapped.items()}
            best = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("best.")}
            found = cls(best=best, **{name: facts[name] for name in _FACTS})
            found.since = (facts["since"][0], facts["since"][1], facts["since"][2])
            if any(tensors[f"weight.{name}"].shape != p.shape for name, p in parameters.items()):
                return cls()
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return cls()
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"weight.{name}"])
                moments = {key: tensors[f"{key}.{name}"] for key in _MOMENTS if f"{key}.{name}" in tensors}
                if moments:
                    optimiser.state[parameter] = moments
        return found
