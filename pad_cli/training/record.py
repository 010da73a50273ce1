"""The record of a finished training run: its measurements, and `report.json`, which every report is rendered from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from pad_cli.errors import DataError
from pad_cli.models.prompts import decode_answers
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.pairs import describe
from pad_cli.recipe import TrainRecipe
from pad_cli.records import DataReport
from pad_cli.reports.document import markdown, page
from pad_cli.reports.training_report import training_document
from pad_cli.system.progress import stage
from pad_cli.system.runs import write_json, write_whole
from pad_cli.training.baselines import Margins, fit_baselines
from pad_cli.training.metrics import (
    Share,
    head_geometry,
    outcomes,
    preference_labels,
    score_pairs,
    share_of,
    split_figures,
)
from pad_cli.training.pair_table import TrainingData
from pad_cli.training.stages import TrainingRun

RECORD, MARKDOWN, PAGE = "report.json", "report.md", "report.html"
"""The files of a training report."""

_TRAIN_PAIRS = 1000  # of which accuracy is measured

_KEYS = {
    *("name", "backbone", "conditioning", "principles", "rank", "has_adapter", "has_encoder", "pairs", "preferences"),
    *("answers", "cut_answers", "max_answer_tokens", "stages", "calibration", "train", "splits", "heads", "data"),
    *("shuffled_labels", "seed", "cut_to_context", "context_length"),
}

Record = dict[str, Any]
"""What `report.json` holds, or a part of it: mappings, lists, texts and numbers."""


def evaluate_run(
    recipe: TrainRecipe, report: DataReport, data: TrainingData, run: TrainingRun, model: PersonalizedRewardModel
) -> Record:
    """Measure the reward model of a finished run on training and validation pairs, beside the baselines.

    A share is a mapping of its `value`, `n`, `low` and `high`; see `metrics.Share`.
    """
    splits, lengths = run.splits(), data.lengths
    baselines: Mapping[str, Margins] = {}
    if splits:
        with stage("Fitting the baselines"):
            texts = decode_answers(data.backbone.tokenizer, (answer for _, answer in data.sequences))
            sizes = np.array([float(len(answer)) for _, answer in data.sequences])
            baselines = fit_baselines(data.train, texts, sizes)
    figures = []
    for name, table, weights in splits:
        title = f"Measuring pairs: {name}"
        scores = score_pairs(run.heads, run.rewards, table, weights, model.calibration, title=title)
        margins = {baseline: margins_of(table) for baseline, margins_of in baselines.items()}
        figures.append(split_figures(name, scores, preference_labels(table), margins))
    content = {
        "name": Path(recipe.output).name,
        "backbone": recipe.backbone.model,
        "conditioning": model.conditioning,
        "principles": model.principles,
        "rank": run.heads.rank,
        "has_adapter": run.adapter is not None,
        "has_encoder": run.encoder is not None,
        "pairs": len(data.train),
        "preferences": Counter(preference_labels(data.train)),  # label to number of training pairs
        "answers": lengths["answers"],  # distinct ones, of training and validation
        "cut_answers": lengths["answers_cut"],  # for either reason
        "max_answer_tokens": recipe.data.max_answer_tokens,
        "stages": run.records,  # see `stages.StageRecord`
        "calibration": [model.calibration],  # what guidance weight 1 multiplies rewards by
        "train": _train_accuracy(run),  # share of training pairs
        "splits": figures,  # see `metrics.split_figures`
        "heads": head_geometry(run.heads),
        "shuffled_labels": recipe.data.shuffle_labels,
        "seed": recipe.seed,
        "cut_to_context": lengths["cut_to_context"],  # answers cut only because the backbone reads no more
        "context_length": data.backbone.context_length,  # tokens of prompt and answer; None: nothing limits them
        "data": {**asdict(report), "lengths": lengths},
    }
    record: Record = json.loads(json.dumps(content, default=asdict))  # dataclasses become mappings, tuples lists
    return record


def _train_accuracy(run: TrainingRun) -> Share:
    drawn = torch.randperm(len(run.pairs), generator=torch.Generator().manual_seed(0))[:_TRAIN_PAIRS]
    pairs = run.pairs.rows(drawn.tolist())
    weights = pairs.weights(run.principles)
    scores = score_pairs(run.heads, run.rewards, pairs, weights, 1.0, title="Measuring training pairs")
    return share_of(outcomes(scores.margins))


def metrics_of(record: Record) -> dict[str, Record]:
    """The content of `metrics.json`: split to its metrics, then intervals, baselines and preferences."""
    return {
        split["name"]: {
            **split["metrics"],
            **_intervals(split),
            "length_correlation": split["length"]["correlation"],
            "baselines": {each["name"]: _baseline_metrics(each) for each in split["baselines"]},
            "preferences": {each["label"]: _preference_metrics(each) for each in split["preferences"]},
        }
        for split in record["splits"]
    }


def _intervals(record: Record) -> Record:
    names = ("pair_accuracy", "policy_accuracy")
    return {f"{name}_interval": [record[name]["low"], record[name]["high"]] for name in names}


def _baseline_metrics(baseline: Record) -> Record:
    found = baseline["verdict"]
    return {
        "pair_accuracy": baseline["pair_accuracy"]["value"],
        "reward_model": found["words"],
        "difference": found["difference"],
        "p": found["p"],
    }


def _preference_metrics(preference: Record) -> Record:
    return {
        "pairs": preference["pair_accuracy"]["n"],
        "pair_accuracy": preference["pair_accuracy"]["value"],
        "policy_accuracy": preference["policy_accuracy"]["value"],
        **_intervals(preference),
        "length_correlation": preference["length"]["correlation"],
        "baselines": preference["baselines"],
    }


def write_training_report(directory: Path, record: Record) -> None:
    """Write `report.json`, and `report.md` and `report.html` from it.

    Raises:
        StorageError: they cannot be written.
    """
    tables = describe(TypeAdapter(DataReport).validate_python(record["data"]))
    document = training_document(record, tables)
    texts = {MARKDOWN: markdown(document), PAGE: page(document)}
    write_json(directory / RECORD, record)
    for name, text in texts.items():
        write_whole(directory / name, text)


def read_training_record(directory: Path) -> Record:
    """The content of a `report.json` that was written before.

    Raises:
        DataError: it is missing, or is not a training report.
    """
    path = directory / RECORD
    try:
        content: Record = json.loads(path.read_text(encoding="utf-8"))
        if missing := _KEYS - content.keys():
            raise ValueError(f"it has no {min(missing)}")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"no training report can be read here: {error}", path=path, hint="Train again to write it."
        ) from error
    return content
