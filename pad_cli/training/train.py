"""`train_reward_model`: a recipe to a checkpoint.

Each finished stage is kept in the run's directory, and hidden states in `PAD_HOME`, so that an interrupted run
continues where it was.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pad_cli.errors import DataError
from pad_cli.models.checkpoint import CONFIG, ENCODER, HEADS, save_reward_model
from pad_cli.models.encoder import PreferenceEncoder, text_states
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel, LogitHead, load_language_model
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.pairs import load_pairs
from pad_cli.progress import note
from pad_cli.recipe import HeadsStage, TrainRecipe
from pad_cli.records import PairData, PairSplit
from pad_cli.runs import environment, fingerprint, home, storage_errors, whole_files, write_json
from pad_cli.training.calibration import calibrate
from pad_cli.training.hidden_cache import build_hidden_cache
from pad_cli.training.metrics import measure
from pad_cli.training.pair_table import PairTable, SequenceBook, tabulate
from pad_cli.training.stages import train_encoder, train_heads
from pad_cli.training.token_rewards import TokenRewards

METRICS = "metrics.json"
_WORK = ".work"  # finished stages of an unfinished run


@dataclass(frozen=True)
class _Prepared:
    """Everything a stage needs, tabulated and cached."""

    rewards: TokenRewards
    train: PairTable
    validation: list[tuple[PairSplit, PairTable]]
    head: LogitHead


def train_reward_model(recipe: TrainRecipe) -> Path:
    """Train (or continue, or find finished) the reward model of a recipe.

    Returns:
        Its directory, `recipe.output`, which `load_reward_model` and `--reward-model` take.

    Raises:
        DataError, ModelLoadError, RecipeError, StorageError, TrainingError: see `pad_cli.errors`.
    """
    output = Path(recipe.output)
    with storage_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    backbone = load_language_model(recipe.backbone)
    data = load_pairs(recipe.data, recipe.seed)
    key = fingerprint([recipe.model_dump(exclude={"output"}), backbone.fingerprint, asdict(data)])
    if _is_finished(output, key):
        note(f"{output} is finished; nothing to do.")
        return output
    principles = _principles(recipe, data)
    prepared = _prepare(recipe, data, backbone)
    work = output / _WORK / key
    heads = PreferenceHeads(principles, backbone.hidden_size, recipe.heads.rank, recipe.seed)
    encoder: PreferenceEncoder | None = None
    for stage in recipe.stages:
        saved = work / f"{stage.stage}.safetensors"
        if isinstance(stage, HeadsStage):
            if not _restore(heads, saved):
                train_heads(stage, heads, prepared.rewards, prepared.train, recipe.seed)
                _keep(heads, saved)
        else:
            encoder = PreferenceEncoder(backbone.hidden_size, stage.hidden_size, len(principles))
            if not _restore(encoder, saved):
                encoder = train_encoder(
                    stage, heads, backbone, prepared.rewards, prepared.train, data.texts, recipe.seed
                )
                _keep(encoder, saved)
            encoder.eval().requires_grad_(False)
    calibration = calibrate(heads, prepared.head, prepared.rewards.cache, recipe.seed)
    model = PersonalizedRewardModel(backbone, heads.requires_grad_(False), encoder, calibration)
    metrics = _metrics(model, prepared)
    model.details = {
        "stages": [stage.model_dump() for stage in recipe.stages],
        "run": key,
        "environment": environment(),
        "metrics": metrics,
    }
    return _write(model, recipe, metrics, output)


def _prepare(recipe: TrainRecipe, data: PairData, backbone: LanguageModel) -> _Prepared:
    book = SequenceBook(backbone.tokenizer, recipe.data.max_prompt_tokens, recipe.data.max_answer_tokens)
    train = tabulate(data.train, book, recipe.seed if recipe.data.shuffle_labels else None)
    validation = [(split, tabulate(split.pairs, book)) for split in data.validation]
    note(
        f"{len(train)} training pairs, {sum(len(table) for _, table in validation)} validation pairs, "
        f"{len(book.sequences)} distinct answers ({book.cut_answers} cut at {recipe.data.max_answer_tokens} tokens)"
    )
    dtype = getattr(torch, recipe.cache_dtype)
    cache = build_hidden_cache(backbone, book.sequences, home() / "hidden-states", dtype)
    weight, bias = backbone.head.weight.float().cpu(), backbone.head.bias
    head = LogitHead(weight, None if bias is None else bias.float().cpu(), backbone.head.scale, backbone.head.cap)
    exact = backbone.vocabulary_size <= recipe.exact_vocabulary
    rewards = TokenRewards(cache, head, None if exact else recipe.normaliser_tokens)
    return _Prepared(rewards, train, validation, head)


def _principles(recipe: TrainRecipe, data: PairData) -> list[str]:
    found = sorted({name for pair in data.train for name in pair.preference})
    names = recipe.heads.principles or found
    used = set(found) | {name for split in data.validation for pair in split.pairs for name in pair.preference}
    unknown = sorted(used - set(names))
    if unknown:
        raise DataError(
            f"preferences without a head: {', '.join(unknown)}",
            hint="Add them to heads.principles, or drop those rows; a validation preference must occur in training.",
        )
    return names


def _metrics(model: PersonalizedRewardModel, prepared: _Prepared) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for split, table in prepared.validation:
        if not split.texts:
            weights = table.weights(model.principles)
        elif model.encoder is not None:
            weights = _worded(model, split, table)
        else:
            continue
        result[split.name] = measure(model.heads, prepared.rewards, table, weights, model.calibration)
    return result


def _worded(model: PersonalizedRewardModel, split: PairSplit, table: PairTable) -> torch.Tensor:
    """Weights of a split whose preferences are given in words; pairs take a principle's wordings in turn."""
    assert model.encoder is not None
    clauses = [
        (row, split.texts[name][row % len(split.texts[name])], weight)
        for row, preference in enumerate(table.preferences)
        for name, weight in preference.items()
    ]
    with torch.inference_mode():
        encoded = model.encoder(text_states(model.backbone, [text for _, text, _ in clauses]))
        signed = encoded * torch.tensor([weight for _, _, weight in clauses])[:, None]
        rows = torch.tensor([row for row, _, _ in clauses])
        return torch.zeros(len(table), len(model.principles)).index_add(0, rows, signed)


def _restore(module: torch.nn.Module, path: Path) -> bool:
    """Load a finished stage; False when there is none that fits."""
    try:
        module.load_state_dict(load_file(path))
    except (FileNotFoundError, SafetensorError, RuntimeError):
        return False
    return True


def _keep(module: torch.nn.Module, path: Path) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".part")
        save_file({key: value.contiguous() for key, value in module.state_dict().items()}, scratch)
        scratch.replace(path)


def _is_finished(output: Path, key: str) -> bool:
    try:
        config = json.loads((output / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(config, dict) or config.get("run") != key:
        return False
    needed = [HEADS, METRICS] if config.get("encoder_width") is None else [HEADS, ENCODER, METRICS]
    return all((output / name).exists() for name in needed)


def _write(model: PersonalizedRewardModel, recipe: TrainRecipe, metrics: dict[str, Any], output: Path) -> Path:
    with whole_files(output, last=CONFIG) as scratch:
        save_reward_model(model, scratch, recipe.backbone)
        write_json(scratch / METRICS, metrics)
        write_json(scratch / "recipe.json", recipe.model_dump())
    shutil.rmtree(output / _WORK, ignore_errors=True)
    return output
