"""`pad train-rm`: trains a reward model from a recipe. This module runs all the steps, in this order:

    read preference pairs           `pairs.load_pairs`
    load the backbone               `models.language_model`
    tokenise the answers            `pair_table.gather_training_data`
    train each stage                `stages.TrainingRun`, which caches hidden states first (`hidden_cache`);
                                    `stages` or `lora` score pairs, and `loop.fit` trains
    calibrate                       `token_rewards.reward_scales`
    measure                         `record.evaluate_run`
    write checkpoint and report     `models.checkpoint`, `record`

Each finished stage is saved in the run's directory, and hidden states in `PAD_HOME`, so that an interrupted run
continues where it was. Several processes go through the stages together; what comes after, the first one does.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.checkpoint_files import ADAPTER_CONFIG, CONFIG, ENCODER, HEADS, OWN_FILES
from pad_cli.models.distributed import main_first
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.models.publishing import model_card
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.pairs import describe, load_pairs
from pad_cli.principles import instructions_of, read_library
from pad_cli.recipe import DistilStage, EncoderStage, TrainRecipe
from pad_cli.records import PairData
from pad_cli.reports.document import plain_lines
from pad_cli.system import progress
from pad_cli.system.processes import processes
from pad_cli.system.runs import (
    RECIPE,
    check_output,
    environment,
    fingerprint,
    only_here,
    recipe_kind,
    storage_errors,
    whole_files,
    write_json,
    write_whole,
)
from pad_cli.training.metrics import pair_moments
from pad_cli.training.pair_table import gather_training_data
from pad_cli.training.record import evaluate_run, metrics_of, read_training_record, write_training_report
from pad_cli.training.stages import TrainingRun
from pad_cli.training.token_rewards import global_scale, reward_scales

METRICS = "metrics.json"
_SHOWN_PREFERENCES = 5  # of each split, before training; the report has more
_WORK = ".work"  # stages of an unfinished run


@dataclass(frozen=True)
class TrainedRewardModel(os.PathLike[str]):
    """A finished run; as a path it is the directory, which `load_reward_model` and `--reward-model` take."""

    path: Path
    _report: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)  # of a run that ended just now

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of `report.json`; a DataError where it cannot be read."""
        return read_training_record(self.path) if self._report is None else self._report

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The content of `metrics.json`: validation split to its metrics."""
        metrics: dict[str, dict[str, Any]] = json.loads((self.path / METRICS).read_text(encoding="utf-8"))
        return metrics


def train_reward_model(recipe: TrainRecipe, *, data_table: bool = True, overwrite: bool = False) -> TrainedRewardModel:
    """Train (or continue, or find finished) the reward model of a recipe.

    `data_table` shows first what the data hold, which the report has in any case; `overwrite` lets files in
    `recipe.output` be replaced that no training wrote.

    Raises:
        DataError, ModelLoadError, RecipeError, StorageError, TrainingError, UsageError: see `pad_cli.errors`.
    """
    output = Path(recipe.output)
    with only_here(output):
        if processes().main:
            check_output(output, "reward model of pad train-rm", _is_own, writes=OWN_FILES, overwrite=overwrite)
        with storage_errors(output):
            output.mkdir(parents=True, exist_ok=True)
        return _train(recipe, output, data_table)


def _train(recipe: TrainRecipe, output: Path, data_table: bool) -> TrainedRewardModel:
    load_backbone = functools.cache(lambda: load_language_model(recipe.backbone))
    with progress.stage("Reading preference pairs"):
        pairs, names = read_pairs(recipe, load_backbone)
    backbone = load_backbone()
    instructions = stage_instructions(recipe, names)
    content = {name: value for name, value in asdict(pairs).items() if name != "left_out"}  # says nothing more
    asked = recipe.model_dump(exclude={"output", "compare"})
    key = fingerprint([asked, backbone.fingerprint, content, *instructions.items()])
    if _is_finished(output, key):
        shutil.rmtree(output / _WORK, ignore_errors=True)  # if the run was killed just before it did so
        progress.note(f"{output} is finished; nothing to do.")
        return TrainedRewardModel(output)

    for line in plain_lines(describe(pairs.report, most=_SHOWN_PREFERENCES)) if data_table else ():
        progress.note(line)
    with progress.stage("Tokenising answers"):
        data = gather_training_data(recipe, pairs, backbone)

    heads = PreferenceHeads(names, backbone.hidden_size, recipe.heads.rank, recipe.seed)
    run = TrainingRun(data, heads, pairs.texts, output / _WORK / key, instructions)
    for stage in recipe.stages:
        run.train(stage)

    with main_first():
        if not processes().main:
            return TrainedRewardModel(output)
        scale = global_scale(reward_scales(heads, run.rewards, title="Calibrating"))
        model = PersonalizedRewardModel(backbone, heads, run.encoder, scale, {}, run.adapter)
        record = evaluate_run(recipe, pairs.report, data, run, model)
        metrics = metrics_of(record)
        model.details = {
            "seed": recipe.seed,
            "source": {"name": recipe.data.source, **recipe.data.options} if recipe.data.source else None,
            "stages": [stage.model_dump() for stage in recipe.stages],
            "run": key,
            "environment": environment(),
            "metrics": metrics,
            "pair_moments": pair_moments(heads, run.rewards, run.pairs),
        }
        with whole_files(output, last=CONFIG) as scratch:
            write_training_report(scratch, record)
            save_reward_model(model, scratch, recipe.backbone)
            write_json(scratch / METRICS, metrics)
            write_json(scratch / RECIPE, recipe.model_dump())
            config = json.loads((scratch / CONFIG).read_text(encoding="utf-8"))
            write_whole(scratch / "README.md", model_card(config, metrics, record["data"]))
        shutil.rmtree(output / _WORK, ignore_errors=True)
        return TrainedRewardModel(output, record)


def read_pairs(
    recipe: TrainRecipe, load_backbone: Callable[[], LanguageModel] | None = None
) -> tuple[PairData, list[str]]:
    """The pairs of a recipe, and the names of the preference heads; `load_backbone` is for a source that writes them.

    Raises:
        DataError, RecipeError, UsageError: as `load_pairs`; a preference has no head, or there is none to train.
    """
    data = load_pairs(recipe.data, recipe.seed, recipe.heads.principles, load_backbone)
    for name, why in data.left_out.items():
        progress.note(f"Left out: {name}. {why}.")
    named = sorted({name for pair in data.train for name in pair.preference})
    names = [name for name in recipe.heads.principles or named if name not in data.left_out]
    used = set(named) | {name for split in data.validation for pair in split.pairs for name in pair.preference}
    unknown = sorted(used - set(names))
    if unknown:
        raise DataError(
            f"preferences without a head: {', '.join(unknown)}",
            hint="Add them to heads.principles, or drop those rows; a validation preference must occur in training.",
        )
    if not names:
        raise DataError(
            "no training pair names a principle, so there is nothing to train heads for",
            hint="Name principles in the data.",
        )
    texts = sorted({text for pair in data.train for text in pair.texts})
    if texts and not any(isinstance(each, EncoderStage) for each in recipe.stages):
        raise DataError(
            f"preferences without a head: {', '.join(texts[:5])}{', ...' if len(texts) > 5 else ''}",
            hint="Add them to heads.principles. Free text needs an `encoder` stage.",
        )
    return data, names


def stage_instructions(recipe: TrainRecipe, names: Sequence[str]) -> dict[str, str]:
    """What asks for each principle, where a stage learns from that."""
    distils = any(isinstance(stage, DistilStage) for stage in recipe.stages)
    return instructions_of(names, read_library()) if distils else {}


def _is_own(output: Path) -> bool:
    """Was this written by a training, finished or not? (A directory of `pad learn --new-principle` was not.)"""
    return (output / _WORK).is_dir() or ((output / CONFIG).is_file() and recipe_kind(output) == "train-rm")


def _is_finished(output: Path, key: str) -> bool:
    """Is everything there that a run with this key writes?"""
    try:
        config = json.loads((output / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(config, dict) or config.get("run") != key:
        return False
    files = [METRICS, HEADS]
    if config.get("encoder_width") is not None:
        files.append(ENCODER)
    if config.get("adapter"):
        files.append(ADAPTER_CONFIG)
    return all((output / name).exists() for name in files)
