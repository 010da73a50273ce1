"""What the LoRA stages learn from: pairs with their rewards, and how well a split is told apart.

    r(answer) = log pi_p(answer) - log pi_ref(answer)     nats; over its tokens when the stage is length-normalised

The reference is the plain backbone, read once before it gets any LoRA weights: each distinct answer, not each pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from pad_cli.models.checkpoint_files import load_tensors, save_tensors
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import TokenSequence, all_log_probs, answer_log_probs
from pad_cli.recipe import AdapterStage, JointStage
from pad_cli.system.runs import fingerprint, storage_errors
from pad_cli.training.metrics import outcomes
from pad_cli.training.pair_table import PairTable

Split = tuple[str, PairTable, torch.Tensor]
"""Name, N pairs, and their (N, K) weights."""

METRICS = ("pairs", "pair_accuracy", "margin", "policy_accuracy")
_REFERENCE = "reference.safetensors"


@dataclass(frozen=True)
class Lesson:
    """Everything that a stage learns from, and what learns.

    Attributes:
        stage: its settings.
        backbone: the language model, which has LoRA weights while it is trained.
        head: shifts states under a preference's weights; None in stage `adapter`.
        sequences: S (prompt, answer) token sequences.
        train: N pairs of them.
        weights: (N, K) weights of their preferences.
        validation: the splits that are measured.
        reference: (S,) log-probabilities of the sequences under the plain backbone, nats.
        directory: of the stage's files.
    """

    stage: AdapterStage | JointStage
    backbone: LanguageModel
    head: nn.Module | None
    sequences: Sequence[TokenSequence]
    train: PairTable
    weights: torch.Tensor
    validation: tuple[Split, ...]
    reference: torch.Tensor
    directory: Path

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole stage."""
        stage = self.stage
        return stage.steps or math.ceil((stage.epochs or 1) * len(self.train) / self.pairs_in_a_step)

    @property
    def name(self) -> str:
        return f"Training {self.stage.stage}"

    @property
    def pairs_in_a_step(self) -> int:
        return self.stage.batch_size * self.stage.accumulation_steps

    @property
    def measured_every(self) -> int | None:
        return self.stage.evaluate_every if self.validation else None

    def lengths(self, answers: torch.Tensor) -> torch.Tensor:
        """(B,) numbers of sequences to the lengths of their answers in tokens."""
        return torch.tensor([float(len(self.sequences[number][1])) for number in answers.tolist()])

    def rewards(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rewards of the chosen and of the rejected answers of some training pairs: (B,) each, nats."""
        answers = torch.cat([self.train.chosen[batch], self.train.rejected[batch]])
        read = [self.sequences[number] for number in answers.tolist()]
        found = answer_log_probs(self.backbone, read, self.head, self.weights[batch].repeat(2, 1))
        rewards = found - self.reference[answers].to(found.device)
        if self.stage.length_normalised:
            rewards = rewards / self.lengths(answers).to(found.device)
        return rewards[: len(batch)], rewards[len(batch) :]

    def measure(self, table: PairTable, weights: torch.Tensor) -> dict[str, float]:
        """Metrics of a split, ties half; each answer is read once for every preference."""
        asked = torch.cat([torch.cat([table.chosen, table.rejected])[:, None], weights.repeat(2, 1)], dim=1)
        asked = asked if self.head is not None else asked[:, :1]
        distinct, where = asked.double().unique(dim=0, return_inverse=True)
        answers = distinct[:, 0].long()
        read = [self.sequences[number] for number in answers.tolist()]
        found = all_log_probs(self.backbone, read, self.head, distinct[:, 1:].float())
        rewards = (found - self.reference[answers])[where].view(2, -1)
        likely = (found / self.lengths(answers))[where].view(2, -1)
        return {
            "pairs": len(table),
            "pair_accuracy": _share(rewards[0] - rewards[1]),
            "margin": round((rewards[0] - rewards[1]).mean().item(), 4),
            "policy_accuracy": _share(likely[0] - likely[1]),
        }


def _share(margins: torch.Tensor) -> float:
    return round(outcomes(margins).mean().item(), 4)


def reference_log_probs(
    backbone: LanguageModel, sequences: Sequence[TokenSequence], tables: Sequence[PairTable], directory: Path
) -> torch.Tensor:
    """Log-probabilities of the sequences that occur in some tables under the plain backbone: (S,), 0 for the others."""
    used = torch.cat([part for table in tables for part in (table.chosen, table.rejected)]).unique()
    read = [sequences[number] for number in used.tolist()]
    key, path = fingerprint([backbone.fingerprint, str(backbone.dtype), read]), directory / _REFERENCE
    found = _read_reference(path, key)
    if found is None:
        found = all_log_probs(backbone, read, title="Reading answers with the reference")
        with storage_errors(path):
            scratch = path.with_suffix(".part")
            save_tensors({"log_probs": found}, scratch, {"key": key})
            scratch.replace(path)
    return torch.zeros(len(sequences)).index_copy(0, used, found)


def _read_reference(path: Path, key: str) -> torch.Tensor | None:
    """What an earlier run computed of the same; None when there is nothing."""
    try:
        tensors, metadata = load_tensors(path)
        return tensors["log_probs"] if metadata["key"] == key else None
    except (OSError, SafetensorError, KeyError):
        return None


def order_of_pairs(count: int, length: int, seed: int) -> torch.Tensor:
    """(length,) numbers of pairs: all of them again and again, each time in another random order."""
    generator = torch.Generator().manual_seed(seed)
    passes = [torch.randperm(count, generator=generator) for _ in range(math.ceil(length / count))]
    return torch.cat(passes)[:length]
