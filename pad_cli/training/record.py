"""The record of a finished training run: its measurements, and `report.json`, which every report is rendered from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from pad_cli.errors import DataError
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.pairs import describe
from pad_cli.recipe import TrainRecipe
from pad_cli.records import DataReport
from pad_cli.reports.document import markdown, page
from pad_cli.reports.training_report import training_document
from pad_cli.system.progress import stage
from pad_cli.system.runs import write_json, write_whole
from pad_cli.training.baselines import Verdict, fit_baselines, read_answers, verdict
from pad_cli.training.metrics import (
    HeadGeometry,
    LengthEffect,
    PairScores,
    Share,
    head_geometry,
    length_effect,
    margin_quantiles,
    outcomes,
    preference_labels,
    rows_by_label,
    score_pairs,
    share_of,
    summarise,
)
from pad_cli.training.pair_table import PairTable, TrainingData
from pad_cli.training.stages import StageRecord, TrainingRun

RECORD, MARKDOWN, PAGE = "report.json", "report.md", "report.html"
"""The files of a training report."""

_PREFERENCES = 64  # of a split that have a record each
_TRAIN_PAIRS = 1000  # of which accuracy is measured


@dataclass(frozen=True)
class BaselineRecord:
    """A baseline on one split: `length` or `bag_of_words`."""

    name: str
    pair_accuracy: Share
    verdict: Verdict  # does the reward model beat it?


@dataclass(frozen=True)
class PreferenceRecord:
    """The pairs of one preference of one split."""

    label: str  # as `Preference.describe` words it
    pair_accuracy: Share
    policy_accuracy: Share
    length: LengthEffect
    baselines: Mapping[str, float]  # name to pair accuracy


@dataclass(frozen=True)
class SplitRecord:
    """A validation split."""

    name: str  # its key in the recipe
    metrics: Mapping[str, int | float]  # as from `metrics.summarise`
    pair_accuracy: Share
    policy_accuracy: Share
    preferences: tuple[PreferenceRecord, ...]  # the most frequent ones first
    more_preferences: int  # further ones, without a record
    baselines: tuple[BaselineRecord, ...]  # at least one
    quantiles: tuple[float, ...]  # `metrics.QUANTILES` of the margins, nats
    length: LengthEffect


@dataclass(frozen=True)
class TrainingRecord:
    """A finished training run; `dataclasses.asdict` of it is the content of `report.json`."""

    name: str
    backbone: str  # as the recipe names it
    conditioning: str  # `heads`, or `prompt` for one dense head that reads the preference in the prompt
    principles: tuple[str, ...]  # names of the heads; empty with `prompt`
    rank: int  # of each head; 0 with `prompt`
    has_adapter: bool
    has_encoder: bool
    pairs: int  # for training
    preferences: Mapping[str, int]  # label to number of training pairs
    answers: int  # distinct ones, of training and validation
    cut_answers: int  # those that were truncated, for either reason
    max_answer_tokens: int
    stages: tuple[StageRecord, ...]
    calibration: tuple[float, ...]  # what guidance weight 1 multiplies rewards by: one factor, or one a principle
    train: Share | None  # pair accuracy on training pairs; None where it was not measured
    splits: tuple[SplitRecord, ...]
    heads: HeadGeometry | None = None  # None with `prompt`
    shuffled_labels: bool = False
    seed: int = 0
    cut_to_context: int = 0  # answers truncated only because the backbone cannot read that much
    context_length: int | None = None  # tokens of prompt and answer that it reads; None where nothing limits them
    # A `DataReport` as a mapping, and under `lengths` what `SequenceBook.lengths` gives; parts may be missing.
    data: Mapping[str, Any] = field(default_factory=dict)


def evaluate_run(
    recipe: TrainRecipe,
    report: DataReport,
    data: TrainingData,
    run: TrainingRun,
    model: PersonalizedRewardModel,
) -> TrainingRecord:
    """Measure the reward model of a finished run on training and validation pairs, beside the baselines."""
    lengths = data.lengths
    return TrainingRecord(
        name=Path(recipe.output).name,
        backbone=recipe.backbone.model,
        conditioning=model.conditioning,
        principles=model.principles,
        rank=run.heads.rank,
        has_adapter=run.adapter is not None,
        has_encoder=run.encoder is not None,
        pairs=len(data.train),
        preferences=dict(Counter(_labels(data.train))),
        answers=int(lengths["answers"]),
        cut_answers=int(lengths["answers_cut"]),
        max_answer_tokens=recipe.data.max_answer_tokens,
        cut_to_context=int(lengths["cut_to_context"]),
        context_length=data.backbone.context_length,
        stages=tuple(run.records),
        calibration=(model.calibration,),
        train=_train_accuracy(run),
        splits=_splits(data, run, model.calibration),
        heads=head_geometry(run.heads),
        shuffled_labels=recipe.data.shuffle_labels,
        seed=recipe.seed,
        data={**asdict(report), "lengths": lengths},
    )


def _splits(data: TrainingData, run: TrainingRun, calibration: float) -> tuple[SplitRecord, ...]:
    if not (splits := run.splits()):
        return ()
    with stage("Fitting the baselines"):
        lengths = np.array([float(len(answer)) for _, answer in data.sequences])
        texts = read_answers(data.backbone.tokenizer, data.sequences)
        baselines = fit_baselines(data.train, texts, lengths)
    records = []
    for name, table, weights in splits:
        title = f"Measuring pairs: {name}"
        scores = score_pairs(run.heads, run.rewards, table, weights, calibration, title=title)
        margins = {baseline: fitted(table) for baseline, fitted in baselines.items()}
        records.append(split_record(name, scores, _labels(table), margins))
    return tuple(records)


def _train_accuracy(run: TrainingRun) -> Share:
    drawn = torch.randperm(len(run.pairs), generator=torch.Generator().manual_seed(0))[:_TRAIN_PAIRS]
    pairs = run.pairs.rows(drawn.tolist())
    scores = score_pairs(
        run.heads, run.rewards, pairs, pairs.weights(run.principles), 1.0, title="Measuring training pairs"
    )
    return share_of(outcomes(scores.margins))


def _labels(table: PairTable) -> Sequence[str]:
    return preference_labels([{**names, **texts} for names, texts in zip(table.preferences, table.texts, strict=True)])


def split_record(
    name: str,
    scores: PairScores,
    labels: Sequence[str],
    baselines: Mapping[str, torch.Tensor],
) -> SplitRecord:
    """All figures of one split of N pairs.

    Args:
        labels: N preferences, as from `metrics.preference_labels`.
        baselines: name to the (N,) margins of a baseline on the same pairs, at least one.
    """
    won, guided = outcomes(scores.margins), outcomes(scores.guided_margins)
    theirs = {baseline: outcomes(margins) for baseline, margins in baselines.items()}
    groups = sorted(rows_by_label(labels).items(), key=lambda group: -len(group[1]))
    return SplitRecord(
        name=name,
        metrics=summarise(scores.margins, scores.guided_margins),
        pair_accuracy=share_of(won),
        policy_accuracy=share_of(guided),
        preferences=tuple(
            PreferenceRecord(
                label,
                share_of(won[rows]),
                share_of(guided[rows]),
                length_effect(scores.at(rows)),
                {baseline: share_of(other[rows]).value for baseline, other in theirs.items()},
            )
            for label, rows in groups[:_PREFERENCES]
        ),
        more_preferences=max(len(groups) - _PREFERENCES, 0),
        baselines=tuple(
            BaselineRecord(baseline, share_of(other), verdict(won, other)) for baseline, other in theirs.items()
        ),
        quantiles=margin_quantiles(scores.margins),
        length=length_effect(scores),
    )


def metrics_of(record: TrainingRecord) -> dict[str, dict[str, Any]]:
    """The content of `metrics.json`: split to its metrics, then intervals, baselines and preferences."""
    return {
        split.name: {
            **split.metrics,
            "pair_accuracy_interval": [split.pair_accuracy.low, split.pair_accuracy.high],
            "policy_accuracy_interval": [split.policy_accuracy.low, split.policy_accuracy.high],
            "length_correlation": split.length.correlation,
            "baselines": {each.name: _baseline_metrics(each) for each in split.baselines},
            "preferences": {each.label: _preference_metrics(each) for each in split.preferences},
        }
        for split in record.splits
    }


def _baseline_metrics(baseline: BaselineRecord) -> dict[str, Any]:
    accuracy, found = baseline.pair_accuracy.value, baseline.verdict
    return {"pair_accuracy": accuracy, "reward_model": found.words, "difference": found.difference, "p": found.p}


def _preference_metrics(preference: PreferenceRecord) -> dict[str, Any]:
    pair, policy = preference.pair_accuracy, preference.policy_accuracy
    return {
        "pairs": pair.n,
        "pair_accuracy": pair.value,
        "pair_accuracy_interval": [pair.low, pair.high],
        "policy_accuracy": policy.value,
        "policy_accuracy_interval": [policy.low, policy.high],
        "length_correlation": preference.length.correlation,
        "baselines": dict(preference.baselines),
    }


def write_training_report(directory: Path, record: TrainingRecord) -> None:
    """Write `report.json`, and `report.md` and `report.html` from it.

    Raises:
        StorageError: they cannot be written.
    """
    content = asdict(record)
    tables = describe(TypeAdapter(DataReport).validate_python(record.data))
    document = training_document(content, tables)
    write_json(directory / RECORD, content)
    write_whole(directory / MARKDOWN, markdown(document))
    write_whole(directory / PAGE, page(document))


def read_training_record(directory: Path) -> dict[str, Any]:
    """The content of a `report.json` that was written before.

    Raises:
        DataError: it is missing, or is not a training report.
    """
    path = directory / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return asdict(TypeAdapter(TrainingRecord).validate_python(content))
    except (OSError, ValueError, ValidationError) as error:
        raise DataError("no training report can be read here", path=path, hint="Train again to write it.") from error
