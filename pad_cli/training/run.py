"""The stages of one training run, each kept on disk when it is finished.

A stage changes only its own part: `adapter` the LoRA weights, `heads` the head, `encoder` the encoder, `joint` LoRA
weights and head together.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from pad_cli.errors import CheckpointError, TrainingError
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_files import load_tensors, save_tensors
from pad_cli.models.distributed import is_sharded, main_reads_first, wait_for_all
from pad_cli.models.encoder import PreferenceEncoder
from pad_cli.models.heads import DenseHead, PreferenceHeads
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel
from pad_cli.recipe import AdapterStage, EncoderStage, HeadsStage, JointStage
from pad_cli.system.processes import processes
from pad_cli.system.runs import whole_directory, write_json
from pad_cli.training.calibration import balance, overall, strengths
from pad_cli.training.material import Material
from pad_cli.training.metrics import measure
from pad_cli.training.moments import pair_moments
from pad_cli.training.pair_table import PairTable
from pad_cli.training.stages import CachedData, train_encoder, train_heads
from pad_cli.training.token_rewards import TokenRewards
from pad_cli.training.worded import judged_weights

_LORA = ("adapter", "joint")  # stages that train an adapter
_HEAD, _ENCODER, _ADAPTER, _FACTS = "head.safetensors", "encoder.safetensors", "adapter", "stage.json"


@dataclass
class StageRecord:
    """What a finished stage reports.

    Attributes:
        stage: its name.
        seconds: that it took, its states included; of an interrupted stage those of its last part.
        history: see `fit`.
        factors: (K,) by which calibration has scaled the heads so far.
    """

    stage: str
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)


class TrainingRun:
    """A reward model on its way through the stages.

    Args:
        material: what it learns from.
        principles: names of the heads; none under `conditioning: prompt`.
        texts: principle to its wordings.
        work: directory of finished and unfinished stages.

    Attributes:
        pairs: training pairs of the stages that train features: those that name principles, or all of them when the
            preference is in the prompt.
        records: of the finished stages, in order.
    """

    def __init__(
        self, material: Material, principles: Sequence[str], texts: Mapping[str, Sequence[str]], work: Path
    ) -> None:
        recipe, size = material.recipe, material.backbone.hidden_size
        self._material, self._texts, self._work = material, texts, work
        self._principles = tuple(principles)
        self._factors = torch.ones(len(self._principles))  # by which calibration has scaled the heads
        self._head: PreferenceHeads | DenseHead = DenseHead(size)
        if recipe.conditioning == "heads":
            self._head = PreferenceHeads(principles, size, recipe.heads.rank, recipe.seed)
        self._encoder: PreferenceEncoder | None = None
        self._adapter: Adapter | None = None
        self._rewards: TokenRewards | None = None
        self.pairs = material.train.named() if self._principles else material.train
        self.records: list[StageRecord] = []

    def stage(self, stage: AdapterStage | HeadsStage | EncoderStage | JointStage) -> None:
        """Train a stage, or take it from disk when it is finished.

        Several processes train LoRA weights and read hidden states together; on those, the first one trains alone, and
        the others take what it has kept. Of a sharded backbone the first one reads the states, too.

        Raises:
            TrainingError, StorageError: see `pad_cli.errors`.
        """
        kept = self._work / stage.stage
        if not self._restore(kept):
            started, everyone = time.monotonic(), processes()
            together, model = isinstance(stage, AdapterStage | JointStage), self._material.backbone.model
            if everyone.count > 1 and not together and self._rewards is None and not is_sharded(model):
                self._rewards = self._material.rewards(self._adapter, everyone)
            with contextlib.nullcontext() if together else main_reads_first(model):
                history = self._train(stage) if together or everyone.main else []
                if everyone.main:
                    record = StageRecord(stage.stage, time.monotonic() - started, history, self._factors.tolist())
                    self._keep(kept, record)
            wait_for_all()
            if not everyone.main and not self._restore(kept):
                raise TrainingError(f"{kept} cannot be read by all processes.", "Give them one file system.")
        self._head.eval().requires_grad_(False)

    def finish(self) -> PersonalizedRewardModel | PromptRewardModel:
        """The calibrated reward model."""
        backbone = self._material.backbone
        calibration = overall(strengths(self._head, self.rewards, title="Calibrating"))
        if isinstance(self._head, DenseHead):
            return PromptRewardModel(backbone, self._head.linear, calibration, self._adapter)
        return PersonalizedRewardModel(backbone, self._head, self._encoder, calibration, {}, self._adapter)

    def moments(self) -> dict[str, list[list[float]]]:
        """What `pad learn` has to know of the calibrated heads; empty for a head without principles."""
        if not isinstance(self._head, PreferenceHeads):
            return {}
        return {"pair_moments": pair_moments(self._head, self.rewards, self.pairs)}

    @property
    def rewards(self) -> TokenRewards:
        """Over the states of the backbone as it reads now."""
        if self._rewards is None:
            self._rewards = self._material.rewards(self._adapter)
        return self._rewards

    @property
    def head(self) -> nn.Module:
        return self._head

    def weights(self, pairs: PairTable) -> torch.Tensor:
        """(N, K) weights of pairs that name principles; (N, 0) when the preference is in the prompt."""
        return pairs.weights(self._principles) if self._principles else torch.zeros(len(pairs), 0)

    def as_trained(self, weights: torch.Tensor) -> torch.Tensor:
        """(N, K) weights under which the calibrated heads give the rewards that their loss saw."""
        return weights / self._factors

    def splits(self) -> list[tuple[str, PairTable, torch.Tensor]]:
        """The validation splits that can be judged now: name, pairs, and (N, K) weights."""
        backbone = self._material.backbone
        judged = (
            (
                split.name,
                table,
                judged_weights(split, table, self._principles, backbone, self._encoder)
                if self._principles
                else self.weights(table),
            )
            for split, table in self._material.validation
        )
        return [(name, table, weights) for name, table, weights in judged if weights is not None]

    def _train(self, stage: AdapterStage | HeadsStage | EncoderStage | JointStage) -> list[dict[str, Any]]:
        material, seed = self._material, self._material.recipe.seed
        snapshot = self._work / f"{stage.stage}.snapshot.safetensors"
        if isinstance(stage, HeadsStage):
            data = CachedData(self.rewards, self.pairs, seed, snapshot, self._evaluate)
            history = train_heads(stage, self._head, self.weights(self.pairs), data)
            self._factors = torch.ones(len(self._principles))
            if isinstance(self._head, PreferenceHeads) and self._adapter is None:
                # with an adapter there is a part of the reward that all principles share
                self._factors = balance(self._head, strengths(self._head, self.rewards, title="Balancing heads"))
            return history
        if isinstance(stage, EncoderStage):
            assert isinstance(self._head, PreferenceHeads)
            data = CachedData(self.rewards, material.train, seed, snapshot, self._evaluate)
            self._encoder, history = train_encoder(stage, self._head, material.backbone, self._texts, data)
            return history
        return self._train_lora(stage)

    def _train_lora(self, stage: AdapterStage | JointStage) -> list[dict[str, Any]]:
        from pad_cli.training.trainer import train_lora

        directory = self._work / f"{stage.stage}.unfinished"
        if isinstance(stage, JointStage):
            self._factors = torch.ones(len(self._principles))  # its loss sees the heads as they are now
        validation = self.splits() if stage.evaluate_every else ()
        self._read_through(None)  # TRL starts from the files of the one before
        earlier = [self._work / record.stage / _ADAPTER for record in self.records if record.stage in _LORA]
        adapter, history = train_lora(
            stage,
            self._material.backbone,
            self._head if isinstance(stage, JointStage) else None,
            self._material.book.sequences,
            self.pairs,
            self.weights(self.pairs),
            validation=validation,
            start=earlier[-1] if earlier else None,
            directory=directory,
            seed=self._material.recipe.seed,
            report_to=self._material.recipe.report_to,
        )
        self._read_through(adapter)
        wait_for_all()
        if processes().main:
            shutil.rmtree(directory, ignore_errors=True)
        return history

    def _read_through(self, adapter: Adapter | None) -> None:
        """Read through another adapter, or none, from now on."""
        if self._adapter is not None:
            self._adapter.detach()
        self._adapter, self._rewards = adapter, None

    def _evaluate(self) -> dict[str, dict[str, Any]]:
        calibration = overall(strengths(self._head, self.rewards))
        return {
            name: measure(self._head, self.rewards, table, weights, calibration)
            for name, table, weights in self.splits()
        }

    def _restore(self, kept: Path) -> bool:
        """Take a finished stage from disk; False when there is none that fits."""
        try:
            record = StageRecord(**json.loads((kept / _FACTS).read_text(encoding="utf-8")))
            head, _ = load_tensors(kept / _HEAD)
            if (kept / _ENCODER).exists():
                self._encoder = self._read_encoder(kept / _ENCODER)
            if (kept / _ADAPTER).exists():
                self._read_through(Adapter.load(kept / _ADAPTER, self._material.backbone.model))
            self._head.load_state_dict(head)
        except (OSError, ValueError, TypeError, SafetensorError, RuntimeError, CheckpointError):
            return False
        self._factors = torch.tensor(record.factors)
        self.records.append(record)
        return True

    def _read_encoder(self, path: Path) -> PreferenceEncoder:
        stage = next(stage for stage in self._material.recipe.stages if isinstance(stage, EncoderStage))
        (tensors, _), size = load_tensors(path), self._material.backbone.hidden_size
        encoder = PreferenceEncoder(size, stage.hidden_size, len(self._principles), texts=len(tensors["known"]))
        encoder.load_state_dict(tensors)
        return encoder.eval().requires_grad_(False)

    def _keep(self, kept: Path, record: StageRecord) -> None:
        """Write everything that is trained so far, whole or not at all."""
        with whole_directory(kept) as scratch:
            save_tensors(_tensors(self._head), scratch / _HEAD)
            if self._encoder is not None:
                save_tensors(_tensors(self._encoder), scratch / _ENCODER)
            if self._adapter is not None:
                (scratch / _ADAPTER).mkdir()
                self._adapter.save(scratch / _ADAPTER)
            write_json(scratch / _FACTS, asdict(record))
        self.records.append(record)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
