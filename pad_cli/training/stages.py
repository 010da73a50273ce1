"""The stages of one training run, each saved when it is finished.

A stage changes only its own part: `adapter` the LoRA weights, `heads` the head, `encoder` the encoder, `joint` LoRA
weights and head together. `heads` and `encoder` train here, on cached hidden states, and so does `distil`, another way
to train the heads; for the others see `lora`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from pad_cli.equation import answer_sums, likelihood_loss
from pad_cli.errors import CheckpointError, RecipeError, TrainingError
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_files import load_tensors, save_tensors
from pad_cli.models.distributed import wait_for_all
from pad_cli.models.heads import PreferenceEncoder, PreferenceHeads, text_states
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import DistilStage, EncoderStage, HeadsStage, JointStage, LoraStage
from pad_cli.records import PairSplit
from pad_cli.system.processes import processes
from pad_cli.system.runs import whole_directory, write_json
from pad_cli.training.distil import InstructedAnswers, read_instructed
from pad_cli.training.loop import Evaluate, Loss, TrainingStage, fit, pair_loss
from pad_cli.training.metrics import Split, measure
from pad_cli.training.pair_table import PairTable, TrainingData
from pad_cli.training.token_rewards import TokenRewards, global_scale, normalise_heads, reward_scales

_HEAD, _ENCODER, _ADAPTER, _RECORD = "head.safetensors", "encoder.safetensors", "adapter", "stage.json"
_LORA = ("adapter", "joint")  # stages that train an adapter

Clause = tuple[int, str, float]
"""A row of a table, a text, and its weight in the preference of that row."""

WeightsOf = Callable[[torch.Tensor], torch.Tensor]
"""(B,) indices of pairs to the (B, K) weights of their preferences."""


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage reports; an interrupted one counts the seconds since it was last started."""

    name: str  # of its kind: `heads`, `distil`, `encoder`, `adapter` or `joint`
    steps: int
    seconds: float  # of wall time
    history: list[dict[str, Any]]  # see `fit`


class TrainingRun:
    """The parts of a reward model on their way through the stages.

    `heads`, `encoder` and `adapter` are as far as they are trained; `principles` are the heads' names; `pairs` are
    those that train heads, since they name only principles; `records` are those of finished stages, in order.
    """

    def __init__(
        self,
        data: TrainingData,
        heads: PreferenceHeads,
        texts: Mapping[str, Sequence[str]],
        work: Path,
        instructions: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._data, self._texts, self._work, self._instructions = data, texts, work, instructions
        self._instructed: InstructedAnswers | None = None
        self.principles = heads.names
        self._rewards: TokenRewards | None = None
        self.heads = heads
        self.encoder: PreferenceEncoder | None = None
        self.adapter: Adapter | None = None
        self.pairs = data.named
        self.records: list[StageRecord] = []

    def train(self, stage: TrainingStage) -> None:
        """Train a stage, or take it from disk when it is finished.

        Several processes train LoRA weights and cache hidden states together; on those, the first one trains alone, and
        the others read what it has saved.
        """
        finished = self._work / stage.stage
        if not self._restore(finished):
            started, everyone = time.monotonic(), processes()
            together = isinstance(stage, LoraStage)
            if not together and self._rewards is None:
                self._rewards = self._data.rewards(self.adapter, everyone)
            if isinstance(stage, DistilStage):
                self._instructed = read_instructed(
                    self._data, self.principles, self._instructions, self.rewards, everyone
                )
            history = self._train(stage) if together or everyone.main else []
            if everyone.main:
                seconds = time.monotonic() - started
                self._save(finished, StageRecord(stage.stage, history[-1]["step"], seconds, history))
            wait_for_all()
            if not everyone.main and not self._restore(finished):
                raise TrainingError(f"{finished} cannot be read by all processes.", "Give them one file system.")
        self.heads.eval().requires_grad_(False)

    @property
    def rewards(self) -> TokenRewards:
        """Over the states of the backbone through the adapter so far."""
        if self._rewards is None:
            self._rewards = self._data.rewards(self.adapter)
        return self._rewards

    def splits(self) -> list[Split]:
        """The validation splits that can be judged now; those in free text only once there is an encoder."""
        judged = ((split.name, table, self._split_weights(split, table)) for split, table in self._data.validation)
        return [(name, table, weights) for name, table, weights in judged if weights is not None]

    def _split_weights(self, split: PairSplit, table: PairTable) -> torch.Tensor | None:
        """(N, K) weights of a split; its `texts` stand for principles, and pairs take a principle's in turn."""
        clauses = [(row, text, weight) for row, texts in enumerate(table.texts) for text, weight in texts.items()]
        if split.texts:
            weights = torch.zeros(len(table), len(self.principles))
            clauses += [
                (row, split.texts[name][row % len(split.texts[name])], weight)
                for row, preference in enumerate(table.preferences)
                for name, weight in preference.items()
            ]
        else:
            weights = table.weights(self.principles)
        if not clauses:
            return weights
        if self.encoder is None:
            return None
        with torch.inference_mode():
            encoded, _ = self.encoder.read(text_states(self._data.backbone, [text for _, text, _ in clauses]))
            return add_clauses(weights, clauses, encoded)

    def _train(self, stage: TrainingStage) -> list[dict[str, Any]]:
        if isinstance(stage, HeadsStage | DistilStage | EncoderStage):
            return self._train_cached(stage)
        from pad_cli.training.lora import train_lora

        directory = self._work / f"{stage.stage}.unfinished"
        validation = self.splits() if stage.evaluate_every else ()
        earlier = [self._work / record.name / _ADAPTER for record in self.records if record.name in _LORA]
        if self.adapter is not None:
            self.adapter.remove_hooks()  # PEFT starts from its files
        self.adapter = self._rewards = None
        self.adapter, history = train_lora(
            stage,
            self._data.backbone,
            self.heads if isinstance(stage, JointStage) else None,
            self._data.sequences,
            self.pairs,
            self.pairs.weights(self.principles),
            validation=validation,
            start=earlier[-1] if earlier else None,
            directory=directory,
            seed=self._data.seed,
        )
        wait_for_all()
        if processes().main:
            shutil.rmtree(directory, ignore_errors=True)
        return history

    def _train_cached(self, stage: HeadsStage | DistilStage | EncoderStage) -> list[dict[str, Any]]:
        """Train the heads, from pairs or from instructions, or an encoder that gives the weights."""
        data = self._data
        snapshot = self._work / f"{stage.stage}.snapshot.safetensors"
        cached = CachedData(self.rewards, self.pairs, data.seed, snapshot, self._evaluate)
        if isinstance(stage, EncoderStage):
            encoder, weights_of = new_encoder(stage, self.principles, data.backbone, self._texts, data.train, data.seed)
            history = replace(cached, pairs=data.train).train(stage, self.heads, encoder, weights_of)
            self.encoder = encoder.eval()
            return history
        if isinstance(stage, DistilStage):
            assert self._instructed is not None
            history = cached.distil(stage, self.heads, self._instructed)
        else:
            weights_of = self.pairs.weights(self.principles).__getitem__
            history = cached.train(stage, self.heads, self.heads, weights_of)
        if self.adapter is None:
            # with an adapter there is a part of the reward that all principles share
            scales = reward_scales(self.heads, self.rewards, title="Balancing heads")
            normalise_heads(self.heads, scales)
        return history

    def _evaluate(self) -> dict[str, dict[str, Any]]:
        calibration = global_scale(reward_scales(self.heads, self.rewards))
        return {
            name: measure(self.heads, self.rewards, table, weights, calibration)
            for name, table, weights in self.splits()
        }

    def _restore(self, finished: Path) -> bool:
        """Take a finished stage from disk; False when there is none that fits."""
        try:
            record = StageRecord(**json.loads((finished / _RECORD).read_text(encoding="utf-8")))
            head, _ = load_tensors(finished / _HEAD)
            if (finished / _ENCODER).exists():
                tensors, _ = load_tensors(finished / _ENCODER)
                size, (width, principles) = len(tensors["mean"]), tensors["network.4.weight"].T.shape
                self.encoder = PreferenceEncoder(size, width, principles, texts=len(tensors["known"]))
                self.encoder.load_state_dict(tensors)
                self.encoder.eval().requires_grad_(False)
            if (finished / _ADAPTER).exists():
                adapter = Adapter.load(finished / _ADAPTER, self._data.backbone.model)
                if self.adapter is not None:
                    self.adapter.remove_hooks()
                self.adapter, self._rewards = adapter, None
            self.heads.load_state_dict(head)
        except (OSError, ValueError, TypeError, KeyError, SafetensorError, RuntimeError, CheckpointError):
            return False
        self.records.append(record)
        return True

    def _save(self, finished: Path, record: StageRecord) -> None:
        """Write everything that is trained so far, whole or not at all."""
        with whole_directory(finished) as scratch:
            for name, module in ((_HEAD, self.heads), (_ENCODER, self.encoder)):
                if module is not None:
                    tensors = {key: tensor.detach().contiguous() for key, tensor in module.state_dict().items()}
                    save_tensors(tensors, scratch / name)
            if self.adapter is not None:
                (scratch / _ADAPTER).mkdir()
                self.adapter.save(scratch / _ADAPTER)
            write_json(scratch / _RECORD, asdict(record))
        self.records.append(record)


@dataclass(frozen=True)
class CachedData:
    """What a stage on cached states works with; `snapshot` is the file that its state is saved to."""

    rewards: TokenRewards
    pairs: PairTable
    seed: int
    snapshot: Path
    evaluate: Evaluate | None = None

    def train(
        self, stage: HeadsStage | EncoderStage, heads: PreferenceHeads, trained: nn.Module, weights_of: WeightsOf
    ) -> list[dict[str, Any]]:
        """Train all parameters of the heads, or of the encoder that weighs them; returns the history, see `fit`."""
        dropout = stage.dropout if isinstance(stage, HeadsStage) else 0.0  # an encoder has its own

        likelihood = isinstance(stage, HeadsStage) and stage.loss == "likelihood"

        def loss_of(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            answers, weights = self.pairs.answers(batch), weights_of(batch)
            positions, owners = self.rewards.cache.positions(answers)
            of_answers = torch.cat([weights, -weights if likelihood else weights])
            tokens = self.rewards.rewards(heads, positions, of_answers[owners], dropout)
            if likelihood:
                loss = likelihood_loss(*(tokens[part] for part in (owners < len(batch), owners >= len(batch))))
                return loss, answer_sums(tokens, owners % len(batch), len(batch))
            sums = answer_sums(tokens, owners, len(answers))
            if stage.length_normalised:
                sums = sums / self.rewards.cache.lengths[answers]
            return pair_loss(stage, sums)

        return self._fit(stage, trained, loss_of, len(self.pairs))

    def distil(self, stage: DistilStage, heads: PreferenceHeads, instructed: InstructedAnswers) -> list[dict[str, Any]]:
        """Train all parameters of the heads to give what instructions make of the next token."""
        return self._fit(
            stage, heads, lambda batch: instructed.divergence(heads, batch, stage.contrast), len(instructed)
        )

    def _fit(self, stage: TrainingStage, trained: nn.Module, loss_of: Loss, items: int) -> list[dict[str, Any]]:
        groups = [(dict(trained.named_parameters()), stage.learning_rate)]
        return fit(stage, groups, loss_of, items, self.seed, self.snapshot, self.evaluate)


def new_encoder(
    stage: EncoderStage,
    names: Sequence[str],
    backbone: LanguageModel,
    texts: Mapping[str, Sequence[str]],
    pairs: PairTable,
    seed: int,
) -> tuple[PreferenceEncoder, WeightsOf]:
    """The encoder g of stage `encoder`, to be trained, and w_p = sum over a preference's clauses of weight * g(clause).

    Every time a pair is seen, its principles get fresh paraphrases; free text stays as it is. `texts` are the
    paraphrases of each principle, its name not among them.

    Raises:
        RecipeError: a principle has no paraphrases, and no pair is in free text.
    """
    free = sorted({text for row in pairs.texts for text in row})
    lacking = [name for name in names if not texts.get(name)]
    if lacking and not free:
        raise RecipeError(
            f"data.texts: no paraphrases for {', '.join(lacking)}; the encoder stage needs some for every principle.",
            "Add them under data.texts, or leave the encoder stage out.",
        )
    paraphrases = {name: list(dict.fromkeys([name, *texts.get(name, ())])) for name in names}
    known = list(dict.fromkeys([*(text for name in names for text in paraphrases[name]), *free]))
    place = {text: index for index, text in enumerate(known)}
    states = text_states(backbone, known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = PreferenceEncoder(backbone.hidden_size, stage.hidden_size, len(names), stage.dropout, len(known))
    owner = {text: number for number, name in enumerate(names) for text in paraphrases[name]}
    encoder.remember(states, torch.tensor([owner.get(text, -1) for text in known]))

    def weights_of(batch: torch.Tensor) -> torch.Tensor:
        clauses: list[Clause] = []
        for row, pair in enumerate(batch.tolist()):
            for name, weight in pairs.preferences[pair].items():
                drawn = int(torch.randint(len(paraphrases[name]), ()))
                clauses.append((row, paraphrases[name][drawn], weight))
            clauses += [(row, text, weight) for text, weight in pairs.texts[pair].items()]
        encoded = encoder(states[[place[text] for _, text, _ in clauses]])
        return add_clauses(torch.zeros(len(batch), len(names)), clauses, encoded)

    return encoder, weights_of


def add_clauses(weights: torch.Tensor, clauses: Sequence[Clause], encoded: torch.Tensor) -> torch.Tensor:
    """(N, K) weights of preferences plus those of their clauses, encoded (C, K) each."""
    signed = encoded * torch.tensor([weight for _, _, weight in clauses])[:, None]
    return weights.index_add(0, torch.tensor([row for row, _, _ in clauses]), signed)
