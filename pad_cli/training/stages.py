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
from pad_cli.models.heads import DenseHead, PreferenceEncoder, PreferenceHeads, text_states
from pad_cli.recipe import AdapterStage, EncoderStage, HeadsStage, JointStage
from pad_cli.records import PairSplit
from pad_cli.system.processes import processes
from pad_cli.system.runs import whole_directory, write_json
from pad_cli.training.cached_stages import CachedData, add_clauses, train_encoder, train_heads
from pad_cli.training.calibration import global_scale, normalise_heads, reward_scales
from pad_cli.training.loop import TrainingStage
from pad_cli.training.metrics import measure
from pad_cli.training.pair_table import PairTable, TrainingData
from pad_cli.training.token_rewards import TokenRewards

_HEAD, _ENCODER, _ADAPTER, _RECORD = "head.safetensors", "encoder.safetensors", "adapter", "stage.json"
_LORA = ("adapter", "joint")  # stages that train an adapter

Split = tuple[str, PairTable, torch.Tensor]
"""Name, N pairs, and their (N, K) weights."""


@dataclass
class StageRecord:
    """What a finished stage reports: its history (see `fit`), and the (K,) factors that have scaled the heads so far.

    An interrupted stage counts the seconds since it was last started.
    """

    stage: str
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)


class TrainingRun:
    """The parts of a reward model on their way through the stages.

    `head`, `encoder` and `adapter` are as far as they are trained; `pairs` train features: those that name principles,
    or all of them when the preference is in the prompt; `records` are those of finished stages, in order.
    """

    def __init__(
        self, data: TrainingData, principles: Sequence[str], texts: Mapping[str, Sequence[str]], work: Path
    ) -> None:
        recipe, size = data.recipe, data.backbone.hidden_size
        self._data, self._texts, self._work = data, texts, work
        self._principles = tuple(principles)
        self._factors = torch.ones(len(self._principles))  # by which calibration has scaled the heads
        self._rewards: TokenRewards | None = None
        self.head: PreferenceHeads | DenseHead = DenseHead(size)
        if recipe.conditioning == "heads":
            self.head = PreferenceHeads(principles, size, recipe.heads.rank, recipe.seed)
        self.encoder: PreferenceEncoder | None = None
        self.adapter: Adapter | None = None
        self.pairs = data.train.named() if self._principles else data.train
        self.records: list[StageRecord] = []

    def train(self, stage: TrainingStage) -> None:
        """Train a stage, or take it from disk when it is finished.

        Several processes train LoRA weights and cache hidden states together; on those, the first one trains alone, and
        the others read what it has saved. Of a sharded backbone the first one reads the states, too.

        Raises:
            TrainingError, StorageError: see `pad_cli.errors`.
        """
        finished = self._work / stage.stage
        if not self._restore(finished):
            started, everyone = time.monotonic(), processes()
            together, model = isinstance(stage, AdapterStage | JointStage), self._data.backbone.model
            if everyone.count > 1 and not together and self._rewards is None and not is_sharded(model):
                self._rewards = self._data.rewards(self.adapter, everyone)
            with contextlib.nullcontext() if together else main_reads_first(model):
                history = self._train(stage) if together or everyone.main else []
                if everyone.main:
                    record = StageRecord(stage.stage, time.monotonic() - started, history, self._factors.tolist())
                    self._save(finished, record)
            wait_for_all()
            if not everyone.main and not self._restore(finished):
                raise TrainingError(f"{finished} cannot be read by all processes.", "Give them one file system.")
        self.head.eval().requires_grad_(False)

    @property
    def rewards(self) -> TokenRewards:
        """Over the states of the backbone through the adapter so far."""
        if self._rewards is None:
            self._rewards = self._data.rewards(self.adapter)
        return self._rewards

    def weights(self, pairs: PairTable) -> torch.Tensor:
        """(N, K) weights of pairs that name principles; (N, 0) when the preference is in the prompt."""
        return pairs.weights(self._principles) if self._principles else torch.zeros(len(pairs), 0)

    def as_trained(self, weights: torch.Tensor) -> torch.Tensor:
        """(N, K) weights under which the calibrated heads give the rewards that their loss saw."""
        return weights / self._factors

    def splits(self) -> list[Split]:
        """The validation splits that can be judged now; those in free text only once there is an encoder."""
        judged = ((split.name, table, self._split_weights(split, table)) for split, table in self._data.validation)
        return [(name, table, weights) for name, table, weights in judged if weights is not None]

    def _split_weights(self, split: PairSplit, table: PairTable) -> torch.Tensor | None:
        """(N, K) weights of a split; its `texts` stand for principles, and pairs take a principle's in turn."""
        if not self._principles:
            return self.weights(table)
        clauses = [(row, text, weight) for row, texts in enumerate(table.texts) for text, weight in texts.items()]
        if split.texts:
            weights = torch.zeros(len(table), len(self._principles))
            clauses += [
                (row, split.texts[name][row % len(split.texts[name])], weight)
                for row, preference in enumerate(table.preferences)
                for name, weight in preference.items()
            ]
        else:
            weights = self.weights(table)
        if not clauses:
            return weights
        if self.encoder is None:
            return None
        with torch.inference_mode():
            encoded, _ = self.encoder.read(text_states(self._data.backbone, [text for _, text, _ in clauses]))
            return add_clauses(weights, clauses, encoded)

    def _train(self, stage: TrainingStage) -> list[dict[str, Any]]:
        snapshot = self._work / f"{stage.stage}.snapshot.safetensors"
        if isinstance(stage, AdapterStage | JointStage):
            return self._train_lora(stage)
        pairs = self.pairs if isinstance(stage, HeadsStage) else self._data.train
        data = CachedData(self.rewards, pairs, self._data.recipe.seed, snapshot, self._evaluate)
        if isinstance(stage, EncoderStage):
            assert isinstance(self.head, PreferenceHeads)
            self.encoder, history = train_encoder(stage, self.head, self._data.backbone, self._texts, data)
            return history
        history = train_heads(stage, self.head, self.weights(self.pairs), data)
        self._factors = torch.ones(len(self._principles))
        if isinstance(self.head, PreferenceHeads) and self.adapter is None:
            # with an adapter there is a part of the reward that all principles share
            scales = reward_scales(self.head, self.rewards, title="Balancing heads")
            self._factors = normalise_heads(self.head, scales)
        return history

    def _train_lora(self, stage: AdapterStage | JointStage) -> list[dict[str, Any]]:
        from pad_cli.training.lora import train_lora

        directory = self._work / f"{stage.stage}.unfinished"
        if isinstance(stage, JointStage):
            self._factors = torch.ones(len(self._principles))  # its loss sees the heads as they are now
        validation = self.splits() if stage.evaluate_every else ()
        self._read_through(None)  # PEFT starts from the files of the adapter before
        earlier = [self._work / record.stage / _ADAPTER for record in self.records if record.stage in _LORA]
        adapter, history = train_lora(
            stage,
            self._data.backbone,
            self.head if isinstance(stage, JointStage) else None,
            self._data.book.sequences,
            self.pairs,
            self.weights(self.pairs),
            validation=validation,
            start=earlier[-1] if earlier else None,
            directory=directory,
            seed=self._data.recipe.seed,
            report_to=self._data.recipe.report_to,
        )
        self._read_through(adapter)
        wait_for_all()
        if processes().main:
            shutil.rmtree(directory, ignore_errors=True)
        return history

    def _read_through(self, adapter: Adapter | None) -> None:
        """Read states through another adapter, or none, from now on."""
        if self.adapter is not None:
            self.adapter.detach()
        self.adapter, self._rewards = adapter, None

    def _evaluate(self) -> dict[str, dict[str, Any]]:
        calibration = global_scale(reward_scales(self.head, self.rewards))
        return {
            name: measure(self.head, self.rewards, table, weights, calibration)
            for name, table, weights in self.splits()
        }

    def _restore(self, finished: Path) -> bool:
        """Take a finished stage from disk; False when there is none that fits."""
        try:
            record = StageRecord(**json.loads((finished / _RECORD).read_text(encoding="utf-8")))
            files = [name for name in (_HEAD, _ENCODER) if name == _HEAD or (finished / name).exists()]
            tensors = {name: load_tensors(finished / name)[0] for name in files}
            if _ENCODER in tensors:
                self.encoder = self._new_encoder(tensors[_ENCODER])
            if (finished / _ADAPTER).exists():
                self._read_through(Adapter.load(finished / _ADAPTER, self._data.backbone.model))
            self.head.load_state_dict(tensors[_HEAD])
        except (OSError, ValueError, TypeError, SafetensorError, RuntimeError, CheckpointError):
            return False
        self._factors = torch.tensor(record.factors)
        self.records.append(record)
        return True

    def _new_encoder(self, tensors: Mapping[str, torch.Tensor]) -> PreferenceEncoder:
        stage = next(stage for stage in self._data.recipe.stages if isinstance(stage, EncoderStage))
        size = self._data.backbone.hidden_size
        encoder = PreferenceEncoder(size, stage.hidden_size, len(self._principles), texts=len(tensors["known"]))
        encoder.load_state_dict(tensors)
        return encoder.eval().requires_grad_(False)

    def _save(self, finished: Path, record: StageRecord) -> None:
        """Write everything that is trained so far, whole or not at all."""
        modules: dict[str, nn.Module] = {_HEAD: self.head}
        if self.encoder is not None:
            modules[_ENCODER] = self.encoder
        with whole_directory(finished) as scratch:
            for name, module in modules.items():
                tensors = {key: tensor.detach().contiguous() for key, tensor in module.state_dict().items()}
                save_tensors(tensors, scratch / name)
            if self.adapter is not None:
                (scratch / _ADAPTER).mkdir()
                self.adapter.save(scratch / _ADAPTER)
            write_json(scratch / _RECORD, asdict(record))
        self.records.append(record)
