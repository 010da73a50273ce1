"""The evaluation of a finished run: its reward model on training and validation pairs, beside the baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel
from pad_cli.recipe import EncoderStage, TrainRecipe
from pad_cli.records import PairData
from pad_cli.system.progress import stage
from pad_cli.training.baselines import fit_baselines, read_answers
from pad_cli.training.metrics import (
    HistoryPoint,
    PairScores,
    Share,
    head_geometry,
    outcomes,
    preference_labels,
    score_pairs,
    share_of,
)
from pad_cli.training.pair_table import PairTable, TrainingData
from pad_cli.training.record import FinishedStage, SplitRecord, TrainingRecord, split_record
from pad_cli.training.stages import StageRecord, TrainingRun

_TRAIN_PAIRS = 1000  # of which accuracy is measured
_EXACT_PAIRS = 64
_EXACT_TOKENS = 128  # whose rewards are computed over the whole vocabulary as well


def evaluate_run(
    recipe: TrainRecipe,
    data: PairData,
    material: TrainingData,
    run: TrainingRun,
    model: PersonalizedRewardModel | PromptRewardModel,
) -> TrainingRecord:
    """Measure a finished run."""
    lengths = material.book.lengths()
    return TrainingRecord(
        name=Path(recipe.output).name,
        backbone=recipe.backbone.model,
        conditioning=recipe.conditioning,
        principles=model.principles,
        rank=recipe.heads.rank if isinstance(model, PersonalizedRewardModel) else 0,
        has_adapter=model.adapter is not None,
        has_encoder=isinstance(model, PersonalizedRewardModel) and model.encoder is not None,
        pairs=len(material.train),
        preferences=dict(Counter(_labels(material.train))),
        answers=int(lengths["answers"]),
        cut_answers=int(lengths["answers_cut"]),
        max_answer_tokens=recipe.data.max_answer_tokens,
        cut_to_context=material.book.cut_to_context,
        context_length=material.backbone.context_length,
        stages=tuple(_stage(record) for record in run.records),
        calibration=(model.calibration,),
        train=_train_accuracy(run),
        splits=_splits(recipe, material, run, model.calibration),
        heads=head_geometry(run.head) if isinstance(run.head, PreferenceHeads) else None,
        shuffled_labels=recipe.data.shuffle_labels,
        seed=recipe.seed,
        normaliser_error=_normaliser_error(run) if not run.rewards.exact and model.adapter is None else None,
        data={**asdict(data.report), "lengths": lengths},
    )


def _splits(
    recipe: TrainRecipe, material: TrainingData, run: TrainingRun, calibration: float
) -> tuple[SplitRecord, ...]:
    judged = run.splits()
    if not judged:
        return ()
    answers = read_answers(material.backbone.tokenizer, material.book.sequences)
    with stage("Fitting the baselines"):
        baselines = fit_baselines(material.train, answers)
    last = [stage for stage in recipe.stages if not isinstance(stage, EncoderStage)][-1]
    return tuple(
        split_record(
            name,
            score_pairs(run.head, run.rewards, table, weights, calibration, title=f"Measuring pairs: {name}"),
            _labels(table),
            {baseline: fitted.margins(table) for baseline, fitted in baselines.items()},
            last.beta,
            trained=_as_trained(run, table, weights, f"Measuring pairs: {name}, as trained"),
            length_normalised=last.length_normalised,
        )
        for name, table, weights in judged
    )


def _as_trained(run: TrainingRun, table: PairTable, weights: torch.Tensor, title: str) -> PairScores | None:
    """Scores as the loss saw them; None where calibration has scaled nothing since."""
    trained = run.as_trained(weights)
    if torch.equal(trained, weights):
        return None
    return score_pairs(run.head, run.rewards, table, trained, 1.0, title=title)


def _train_accuracy(run: TrainingRun) -> Share:
    drawn = torch.randperm(len(run.pairs), generator=torch.Generator().manual_seed(0))[:_TRAIN_PAIRS]
    pairs = run.pairs.rows(drawn.tolist())
    scores = score_pairs(run.head, run.rewards, pairs, run.weights(pairs), 1.0, title="Measuring training pairs")
    return share_of(outcomes(scores.margins))


def _normaliser_error(run: TrainingRun) -> float:
    """Of the tokens of a few chosen answers, under their own preferences."""
    pairs = run.pairs.rows(range(min(len(run.pairs), _EXACT_PAIRS)))
    positions, owners = run.rewards.cache.positions(pairs.chosen)
    drawn = torch.randperm(len(positions), generator=torch.Generator().manual_seed(0))[:_EXACT_TOKENS]
    return run.rewards.normaliser_error(run.head, positions[drawn], run.weights(pairs)[owners[drawn]])


def _labels(table: PairTable) -> Sequence[str]:
    return preference_labels([{**names, **texts} for names, texts in zip(table.preferences, table.texts, strict=True)])


def _stage(record: StageRecord) -> FinishedStage:
    steps = record.history[-1]["step"] if record.history else 0
    return FinishedStage(record.stage, steps, record.seconds, tuple(_point(point) for point in record.history))


def _point(point: dict[str, Any]) -> HistoryPoint:
    return HistoryPoint(point["step"], point["loss"], point.get("splits", {}), point["pair_accuracy"])
