"""`train_reward_model`: a recipe to a checkpoint.

Each finished stage is kept in the run's directory, and hidden states in `PAD_HOME`, so that an interrupted run
continues where it was. Several processes go through the stages together (`TrainingRun.stage`); what comes after, the
first one does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError
from pad_cli.models.adapter import CONFIG as ADAPTER
from pad_cli.models.card import model_card
from pad_cli.models.checkpoint import CONFIG, ENCODER, HEADS, save_reward_model
from pad_cli.models.hub import OWN_FILES
from pad_cli.models.language_model import load_language_model
from pad_cli.models.prompt_reward_model import HEAD, PromptRewardModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.models.sharding import load_sharded, main_reads_first
from pad_cli.pairs import as_lines, describe, load_pairs
from pad_cli.recipe import EncoderStage, TrainRecipe
from pad_cli.records import PairData
from pad_cli.system.processes import processes
from pad_cli.system.progress import note, stage
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
from pad_cli.training.conclusion import conclude
from pad_cli.training.facts import TrainingFacts, metrics_of
from pad_cli.training.material import gather_material
from pad_cli.training.report import write_training_report
from pad_cli.training.run import TrainingRun

METRICS = "metrics.json"
_TOLD = 5  # preferences of each split that are described before training; the report has more
_WORK = ".work"  # stages of an unfinished run


def train_reward_model(recipe: TrainRecipe, *, data_table: bool = True, overwrite: bool = False) -> Path:
    """Train (or continue, or find finished) the reward model of a recipe.

    Args:
        recipe: what to do.
        data_table: whether to show first what the data hold; the report has it in any case.
        overwrite: whether files in `recipe.output` may be replaced that no training wrote.

    Returns:
        Its directory, `recipe.output`, which `load_reward_model` and `--reward-model` take.

    Raises:
        DataError, ModelLoadError, RecipeError, StorageError, TrainingError, UsageError: see `pad_cli.errors`.
    """
    output = Path(recipe.output)
    with only_here(output):
        if processes().main:
            check_output(output, "reward model of pad train-rm", _is_own, writes=OWN_FILES, overwrite=overwrite)
        return _train(recipe, output, data_table)


def _train(recipe: TrainRecipe, output: Path, data_table: bool) -> Path:
    with storage_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    in_prompt = recipe.conditioning == "prompt"
    with stage("Reading preference pairs"):
        data = load_pairs(recipe.data, recipe.seed, [] if in_prompt else recipe.heads.principles)
    principles = _principles(recipe, data)
    backbone = load_sharded(recipe.backbone) if recipe.shard_backbone else load_language_model(recipe.backbone)
    key = fingerprint([recipe.model_dump(exclude={"output"}), backbone.fingerprint, asdict(data)])
    if _is_finished(output, key):
        shutil.rmtree(output / _WORK, ignore_errors=True)  # if the run was killed just before it did so
        note(f"{output} is finished; nothing to do.")
        return output
    for line in as_lines(describe(data.report, most=_TOLD)) if data_table else ():
        note(line)
    with stage("Tokenising answers"):
        material = gather_material(recipe, data, backbone)
    run = TrainingRun(material, principles, data.texts, output / _WORK / key)
    for settings in recipe.stages:
        run.stage(settings)
    with main_reads_first(backbone.model):
        if processes().main:
            model = run.finish()
            facts = conclude(recipe, data, material, run, model)
            model.details = {
                "stages": [settings.model_dump() for settings in recipe.stages],
                "run": key,
                "environment": environment(),
                "metrics": metrics_of(facts),
                **run.moments(),
            }
            _write(model, recipe, facts, output)
    return output


def _principles(recipe: TrainRecipe, data: PairData) -> list[str]:
    """Names of the heads; none when the preference is in the prompt."""
    if recipe.conditioning == "prompt":
        return []
    found = sorted({name for pair in data.train for name in pair.preference})
    names = recipe.heads.principles or found
    used = set(found) | {name for split in data.validation for pair in split.pairs for name in pair.preference}
    unknown = sorted(used - set(names))
    if unknown:
        raise DataError(
            f"preferences without a head: {', '.join(unknown)}",
            hint="Add them to heads.principles, or drop those rows; a validation preference must occur in training.",
        )
    if not names:
        raise DataError(
            "no training pair names a principle, so there is nothing to train heads for",
            hint="Name principles in the data, or set conditioning: prompt.",
        )
    texts = sorted({text for pair in data.train for text in pair.texts})
    if texts and not any(isinstance(each, EncoderStage) for each in recipe.stages):
        raise DataError(
            f"preferences without a head: {', '.join(texts[:5])}{', ...' if len(texts) > 5 else ''}",
            hint="Add them to heads.principles. Free text needs an `encoder` stage, or conditioning: prompt.",
        )
    return names


def _is_own(output: Path) -> bool:
    """Was this written by a training, finished or not? (A directory of `pad learn --new-principle` was not.)"""
    return (output / _WORK).is_dir() or ((output / CONFIG).is_file() and recipe_kind(output) == "train-rm")


def _is_finished(output: Path, key: str) -> bool:
    try:
        config = json.loads((output / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(config, dict) or config.get("run") != key:
        return False
    return all((output / name).exists() for name in _files(config))


def _files(config: Mapping[str, Any]) -> list[str]:
    """What a finished run has written, by what its reward model consists of."""
    head = HEAD if config.get("conditioning") == "prompt" else HEADS
    encoder = [] if config.get("encoder_width") is None else [ENCODER]
    return [head, *encoder, *([ADAPTER] if config.get("adapter") else []), METRICS]


def _write(
    model: PersonalizedRewardModel | PromptRewardModel, recipe: TrainRecipe, facts: TrainingFacts, output: Path
) -> None:
    with whole_files(output, last=CONFIG) as scratch:
        save_reward_model(model, scratch, recipe.backbone)
        write_json(scratch / METRICS, metrics_of(facts))
        write_json(scratch / RECIPE, recipe.model_dump())
        write_training_report(scratch, facts)
        config = json.loads((scratch / CONFIG).read_text(encoding="utf-8"))
        write_whole(scratch / "README.md", model_card(config, metrics_of(facts), facts.data))
    shutil.rmtree(output / _WORK, ignore_errors=True)
