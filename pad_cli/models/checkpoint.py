"""A reward model on disk: `pad_config.json`, `preference_heads.safetensors` (under `conditioning: prompt`
`value_head.safetensors`), `backbone_sample.safetensors`, by which its backbone is recognised in any dtype; where it has
them, `preference_encoder.safetensors` and PEFT's `adapter_config.json` and `adapter_model.safetensors`.

A directory without `pad_config.json` but with `value_head.safetensors` is one of the paper's authors; see
`prompt_reward_model.py`. Loading refuses what would silently be wrong: missing heads, another backbone or tokenizer, a
newer format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from pad_cli.errors import CheckpointError
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_config import CONFIG as CONFIG
from pad_cli.models.checkpoint_config import ENCODER as ENCODER
from pad_cli.models.checkpoint_config import FORMAT_VERSION, heads_shapes, read_config
from pad_cli.models.checkpoint_config import HEADS as HEADS
from pad_cli.models.checkpoint_config import SAMPLE as SAMPLE
from pad_cli.models.checkpoint_files import AGAIN, check_shapes, read_tensors, tensor_shapes
from pad_cli.models.dtype import dtype_name
from pad_cli.models.encoder import PreferenceEncoder
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.hub import fetch_checkpoint
from pad_cli.models.language_model import LanguageModel, load_language_model, resolve_model, same_model
from pad_cli.models.prompt_reward_model import (
    PromptRewardModel,
    is_released_form,
    load_prompt_reward_model,
    read_prompt_head,
    save_prompt_head,
)
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.models.tensor_file import save_tensors
from pad_cli.models.weight_sample import WeightSample, read_sample
from pad_cli.recipe import ModelSettings
from pad_cli.system.runs import write_json


def save_reward_model(
    model: PersonalizedRewardModel | PromptRewardModel, directory: Path, settings: ModelSettings
) -> None:
    """Write a reward model into an existing directory; `settings` is how its backbone is found again."""
    heads = model.heads if isinstance(model, PersonalizedRewardModel) else None
    encoder = model.encoder if isinstance(model, PersonalizedRewardModel) else None
    if isinstance(model, PromptRewardModel):
        save_prompt_head(model.head, directory)
    else:
        save_tensors({"down": model.heads.down.detach().cpu(), "up": model.heads.up.detach().cpu()}, directory / HEADS)
    if encoder is not None:
        save_tensors({k: v.cpu().contiguous() for k, v in encoder.state_dict().items()}, directory / ENCODER)
    if model.adapter is not None:
        model.adapter.save(directory)
    if model.backbone.sample is not None:
        model.backbone.sample.save(directory / SAMPLE)
    model.backbone.tokenizer.save_pretrained(directory)
    write_json(
        directory / CONFIG,
        {
            **model.details,
            "format_version": FORMAT_VERSION,
            "backbone": settings.model,
            "backbone_revision": settings.revision,
            "backbone_quantization": settings.quantization,
            "backbone_dtype": dtype_name(model.backbone.dtype),
            "backbone_fingerprint": model.backbone.fingerprint,
            "hidden_size": model.backbone.hidden_size,
            "vocabulary_size": model.backbone.vocabulary_size,
            "tokenizer_hash": model.backbone.vocabulary,
            "conditioning": "prompt" if heads is None else "heads",
            "principles": list(model.principles),
            "rank": 0 if heads is None else heads.rank,
            "adapter": model.adapter is not None,
            "encoder_width": None if encoder is None else encoder.network[1].out_features,
            "encoder_texts": None if encoder is None else len(encoder.known),
            "calibration": model.calibration,
        },
    )


def load_reward_model(
    location: str, *, backbone: LanguageModel | None = None, dtype: str = "auto", device: str = "auto"
) -> RewardModel:
    """Load a reward model.

    Args:
        location: its directory, a registered source (`embedded/reward-model`), or its id on the hub (`owner/name`,
            `owner/name@revision`), also of one in the form that the paper's authors released.
        backbone: an already loaded model to reuse when it is this reward model's backbone (usually the policy).
        dtype: of a backbone that has to be loaded; it need not be the one that it was trained with.
        device: device for it.

    Raises:
        CheckpointError: something is missing, damaged or does not fit.
        ModelLoadError: the backbone cannot be loaded.
    """
    location = fetch_checkpoint(resolve_model(location))
    directory = Path(location)
    if not (directory / CONFIG).exists() and is_released_form(location):
        return load_prompt_reward_model(location, dtype, device)
    config = read_config(directory)
    known = read_sample(directory / SAMPLE)
    if backbone is None or not _is_backbone(directory, config, known, backbone):
        backbone = load_language_model(_backbone_settings(directory, config, dtype, device))
        _check_backbone(directory, config, known, backbone)
    if backbone.fingerprint != config["backbone_fingerprint"]:  # rounded: what belongs to this reward model still does
        backbone = replace(backbone, fingerprint=config["backbone_fingerprint"], sample=known or backbone.sample)
    adapter = Adapter.load(directory, backbone.model) if config.get("adapter") else None
    if config.get("conditioning") == "prompt":
        head = read_prompt_head(directory.as_posix(), config["hidden_size"]).to(backbone.device)
        return PromptRewardModel(backbone, head, config["calibration"], adapter, config)
    heads = _read_heads(directory / HEADS, config)
    encoder = None if config["encoder_width"] is None else _read_encoder(directory / ENCODER, config)
    heads = heads.to(backbone.device).eval().requires_grad_(False)
    return PersonalizedRewardModel(backbone, heads, encoder, config["calibration"], config, adapter)


def _backbone_settings(directory: Path, config: Mapping[str, Any], dtype: str, device: str) -> ModelSettings:
    given = {
        "model": config["backbone"],
        "revision": config["backbone_revision"],
        "quantization": config.get("backbone_quantization"),
        "dtype": dtype,
        "device": device,
    }
    try:
        return ModelSettings.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise CheckpointError(
            f"'{directory / CONFIG}' names no backbone that can be loaded: {problem}", AGAIN
        ) from error


def _check_backbone(
    directory: Path, config: dict[str, Any], known: WeightSample | None, backbone: LanguageModel
) -> None:
    named = f"'{directory}' was trained on '{config['backbone']}'"
    if backbone.hidden_size != config["hidden_size"]:
        raise CheckpointError(
            f"{named} of hidden size {config['hidden_size']}, but the one found there now has {backbone.hidden_size}.",
            "Put the original backbone back, or train again.",
        )
    if backbone.vocabulary != config["tokenizer_hash"]:
        raise CheckpointError(
            f"{named}, whose tokenizer is not the one found there now.", "Put it back, or train again."
        )
    if not _is_backbone(directory, config, known, backbone):
        raise CheckpointError(f"{named}, but its weights have changed since.", "Put the original back, or train again.")


def _is_backbone(directory: Path, config: dict[str, Any], known: WeightSample | None, model: LanguageModel) -> bool:
    """Is this the model that a checkpoint was trained on, in whatever dtype?

    A checkpoint of version 0.1 has no sample, only a fingerprint of the weights in bfloat16. That cannot be computed
    from float16 weights, nor can that of float16 weights from bfloat16, so the backbone is then read again, as float32.
    """
    recorded: str = config["backbone_fingerprint"]
    if known is not None and model.sample is not None:
        return known.agrees(model.sample)
    if model.fingerprint == recorded or model.sample is None:
        return model.fingerprint == recorded
    if model.sample.to(torch.float16).fingerprint == recorded:  # trained in float16
        return True
    sizes = (model.hidden_size, model.vocabulary)
    if model.dtype == torch.float32 or sizes != (config["hidden_size"], config["tokenizer_hash"]):
        return False
    original = load_language_model(_backbone_settings(directory, config, "float32", "cpu"))
    if original.sample is None or not same_model(original, model):
        return False
    return recorded in (original.fingerprint, original.sample.to(torch.float16).fingerprint)


def _read_heads(path: Path, config: Mapping[str, Any]) -> PreferenceHeads:
    check_shapes(path, tensor_shapes(path), heads_shapes(config))
    heads = PreferenceHeads(config["principles"], config["hidden_size"], config["rank"])
    heads.load_state_dict(read_tensors(path))
    return heads


def _read_encoder(path: Path, config: Mapping[str, Any]) -> PreferenceEncoder:
    count, sizes = len(config["principles"]), (config["hidden_size"], config["encoder_width"])
    with torch.device("meta"):  # takes no memory, whatever the sizes
        claimed = PreferenceEncoder(*sizes, count, texts=config["encoder_texts"])
    check_shapes(path, tensor_shapes(path), {name: tuple(each.shape) for name, each in claimed.state_dict().items()})
    tensors = read_tensors(path)
    owners, spread = tensors["owners"], tensors["spread"]
    if not ((owners >= -1) & (owners < count)).all() or not (spread > 0).all():
        raise CheckpointError(f"'{path}' is damaged: it names principles that there are not, or no spread.", AGAIN)
    encoder = PreferenceEncoder(*sizes, count, texts=config["encoder_texts"])
    encoder.load_state_dict(tensors)
    return encoder.eval().requires_grad_(False)
