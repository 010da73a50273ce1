"""The record of a finished training run: `report.json`, which every form of its report is rendered from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from pad_cli.errors import DataError
from pad_cli.pairs import describe
from pad_cli.records import DataReport
from pad_cli.reports.document import markdown, page
from pad_cli.reports.training_report import training_document
from pad_cli.system.runs import write_json, write_whole
from pad_cli.training.baselines import Verdict, verdict
from pad_cli.training.metrics import (
    HeadGeometry,
    HistoryPoint,
    LengthEffect,
    PairScores,
    Reliability,
    Share,
    length_effect,
    margin_quantiles,
    outcomes,
    reliability,
    rows_by_label,
    share_of,
    summarise,
)

RECORD, MARKDOWN, PAGE = "report.json", "report.md", "report.html"
"""The files of a training report."""

_PREFERENCES = 64  # of a split that have a record each


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
    quantiles: tuple[float, ...]  # `diagnostics.QUANTILES` of the margins, nats
    reliability: Reliability
    length: LengthEffect


@dataclass(frozen=True)
class FinishedStage:
    """A finished stage: `heads`, `encoder`, `adapter` or `joint`."""

    name: str
    steps: int
    seconds: float  # of wall time
    history: tuple[HistoryPoint, ...] = ()


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
    stages: tuple[FinishedStage, ...]
    calibration: tuple[float, ...]  # what guidance weight 1 multiplies rewards by: one factor, or one a principle
    train: Share | None  # pair accuracy on training pairs; None where it was not measured
    splits: tuple[SplitRecord, ...]
    heads: HeadGeometry | None = None  # None with `prompt`
    shuffled_labels: bool = False
    seed: int = 0
    # Mean absolute difference of token rewards from those normalised over the whole vocabulary, nats; None where
    # training normalised over all of it.
    normaliser_error: float | None = None
    cut_to_context: int = 0  # answers truncated only because the backbone cannot read that much
    context_length: int | None = None  # tokens of prompt and answer that it reads; None where nothing limits them
    # A `DataReport` as a mapping, and under `lengths` what `SequenceBook.lengths` gives; parts may be missing.
    data: Mapping[str, Any] = field(default_factory=dict)


def split_record(
    name: str,
    scores: PairScores,
    labels: Sequence[str],
    baselines: Mapping[str, torch.Tensor],
    beta: float,
    *,
    trained: PairScores | None = None,
    length_normalised: bool = False,
) -> SplitRecord:
    """All figures of one split.

    Args:
        name: of the split.
        scores: of its N pairs.
        labels: N preferences, as from `metrics.preference_labels`.
        baselines: name to the (N,) margins of a baseline on the same pairs, at least one.
        beta: the loss temperature of the last stage that moved the rewards.
        trained: scores of the pairs as that stage's loss saw them, where heads were scaled afterwards.
        length_normalised: did its loss compare rewards per token?
    """
    won, guided = outcomes(scores.margins), outcomes(scores.guided_margins)
    theirs = {baseline: outcomes(margins) for baseline, margins in baselines.items()}
    groups = sorted(rows_by_label(labels).items(), key=lambda group: -len(group[1]))
    compared = trained or scores
    return SplitRecord(
        name=name,
        metrics=summarise(scores),
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
            BaselineRecord(baseline, share_of(other), verdict(won, baseline, other))
            for baseline, other in theirs.items()
        ),
        quantiles=margin_quantiles(scores.margins),
        reliability=reliability(compared.margins_per_token() if length_normalised else compared.margins, beta),
        length=length_effect(scores),
    )


def metrics_of(record: TrainingRecord) -> dict[str, dict[str, Any]]:
    """The content of `metrics.json`: split to its metrics, then intervals, baselines and preferences."""
    return {split.name: _split_metrics(split) for split in record.splits}


def _split_metrics(split: SplitRecord) -> dict[str, Any]:
    return {
        **split.metrics,
        "pair_accuracy_interval": [split.pair_accuracy.low, split.pair_accuracy.high],
        "policy_accuracy_interval": [split.policy_accuracy.low, split.policy_accuracy.high],
        "calibration_error": split.reliability.error,
        "length_correlation": split.length.correlation,
        "baselines": {
            baseline.name: {
                "pair_accuracy": baseline.pair_accuracy.value,
                "reward_model": baseline.verdict.words,
                "difference": baseline.verdict.difference,
                "p": baseline.verdict.p,
            }
            for baseline in split.baselines
        },
        "preferences": {
            preference.label: {
                "pairs": preference.pair_accuracy.n,
                "pair_accuracy": preference.pair_accuracy.value,
                "pair_accuracy_interval": [preference.pair_accuracy.low, preference.pair_accuracy.high],
                "policy_accuracy": preference.policy_accuracy.value,
                "policy_accuracy_interval": [preference.policy_accuracy.low, preference.policy_accuracy.high],
                "length_correlation": preference.length.correlation,
                "baselines": dict(preference.baselines),
            }
            for preference in split.preferences
        },
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
