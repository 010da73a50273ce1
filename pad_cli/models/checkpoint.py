"""A reward model on disk: `pad_config.json`, `preference_heads.safetensors` (under `conditioning: prompt`
`value_head.safetensors`), and if it has them `preference_encoder.safetensors` and PEFT's `adapter_config.json` and
`adapter_model.safetensors`.

A directory without `pad_config.json` but with `value_head.safetensors` is one of the paper's authors; see
`prompt_reward_model.py`. Loading refuses what would silently be wrong: missing heads, another backbone or tokenizer, a
newer format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pad_cli.errors import CheckpointError
from pad_cli.models.adapter import Adapter
from pad_cli.models.encoder import PreferenceEncoder
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.hub import fetch_checkpoint
from pad_cli.models.language_model import LanguageModel, load_language_model, resolve_model
from pad_cli.models.prompt_reward_model import (
    PromptRewardModel,
    is_released_form,
    load_prompt_reward_model,
    read_prompt_head,
    save_prompt_head,
)
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.models.tensor_file import load_tensors, save_tensors
from pad_cli.recipe import ModelSettings
from pad_cli.runs import write_json

FORMAT_VERSION = 2
CONFIG = "pad_config.json"
HEADS = "preference_heads.safetensors"
ENCODER = "preference_encoder.safetensors"
_NEEDED: dict[str, type | tuple[type, ...]] = {
    "backbone": str,
    "backbone_revision": (str, type(None)),
    "backbone_fingerprint": str,
    "hidden_size": int,
    "tokenizer_hash": str,
    "principles": list,
    "rank": int,
    "encoder_width": (int, type(None)),
    "encoder_texts": (int, type(None)),
    "calibration": (int, float),
}


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
    model.backbone.tokenizer.save_pretrained(directory)
    write_json(
        directory / CONFIG,
        {
            **model.details,
            "format_version": FORMAT_VERSION,
            "backbone": settings.model,
            "backbone_revision": settings.revision,
            "backbone_quantization": settings.quantization,
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
        dtype: number format for a backbone that has to be loaded.
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
    if backbone is None or backbone.fingerprint != config["backbone_fingerprint"]:
        settings = ModelSettings.model_validate(
            {
                "model": config["backbone"],
                "revision": config["backbone_revision"],
                "quantization": config.get("backbone_quantization"),
                "dtype": dtype,
                "device": device,
            }
        )
        backbone = load_language_model(settings)
    _check_backbone(directory, config, backbone)
    adapter = Adapter.load(directory, backbone.model) if config.get("adapter") else None
    if config.get("conditioning") == "prompt":
        head = read_prompt_head(directory.as_posix(), config["hidden_size"]).to(backbone.device)
        return PromptRewardModel(backbone, head, config["calibration"], adapter, config)
    heads = PreferenceHeads(config["principles"], config["hidden_size"], config["rank"])
    _fill(heads, directory / HEADS)
    encoder = None
    if config["encoder_width"] is not None:
        encoder = PreferenceEncoder(
            config["hidden_size"],
            config["encoder_width"],
            len(config["principles"]),
            texts=config["encoder_texts"],
        )
        _fill(encoder, directory / ENCODER)
        encoder = encoder.eval().requires_grad_(False)
    heads = heads.to(backbone.device).eval().requires_grad_(False)
    return PersonalizedRewardModel(backbone, heads, encoder, config["calibration"], config, adapter)


def read_config(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise CheckpointError(f"No reward model at '{directory}'.", "Train one: pad train-rm RECIPE")
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"'{directory}' is no reward model: it has no {CONFIG}.", "Name the directory that pad train-rm wrote."
        ) from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"'{directory / CONFIG}' cannot be read: {error}", "Train or copy it again.") from error
    if not isinstance(config, dict) or type(config.get("format_version")) is not int:
        raise CheckpointError(f"'{directory / CONFIG}' has no format version.", "Train or copy the reward model again.")
    if config["format_version"] < FORMAT_VERSION:
        raise CheckpointError(
            f"'{directory}' has format {config['format_version']}, from before this program's first release.",
            "Train it again: pad train-rm RECIPE",
        )
    if config["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"'{directory}' has format {config['format_version']}; this program reads up to {FORMAT_VERSION}.",
            "Upgrade: pip install --upgrade pad-cli",
        )
    wrong = [key for key, kinds in _NEEDED.items() if key not in config or not isinstance(config[key], kinds)]
    if wrong:
        raise CheckpointError(
            f"'{directory / CONFIG}' lacks {', '.join(wrong)}, or holds something else there.",
            "Train or copy it again.",
        )
    return config


def _check_backbone(directory: Path, config: dict[str, Any], backbone: LanguageModel) -> None:
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
    if backbone.fingerprint != config["backbone_fingerprint"]:
        raise CheckpointError(f"{named}, but its weights have changed since.", "Put the original back, or train again.")


def _fill(module: torch.nn.Module, path: Path) -> None:
    """Load every tensor of a module from a file; none may be missing, extra, or of another shape."""
    try:
        module.load_state_dict(load_tensors(path)[0])
    except FileNotFoundError as error:
        raise CheckpointError(f"'{path.parent}' lacks {path.name}.", "Train or copy the reward model again.") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise CheckpointError(
            f"'{path}' is damaged or of another shape: {reason}", "Train or copy it again."
        ) from error
