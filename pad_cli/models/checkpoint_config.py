"""The files of a reward model's directory by name, and the content of its `pad_config.json`; read without torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pad_cli.errors import CheckpointError
from pad_cli.models.checkpoint_files import read_object

FORMAT_VERSION = 2
CONFIG = "pad_config.json"
HEADS = "preference_heads.safetensors"
ENCODER = "preference_encoder.safetensors"
SAMPLE = "backbone_sample.safetensors"
VALUE_HEAD = "value_head.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
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
_SIZES = {"hidden_size": 1, "rank": 0, "encoder_width": 1, "encoder_texts": 0}  # the least that each may be
_LARGEST = 2**31


def read_config(directory: Path) -> dict[str, Any]:
    """The content of `pad_config.json`, with every key that loading needs.

    Raises:
        CheckpointError: there is none, it is damaged, or it is of another format.
    """
    if not directory.is_dir():
        raise CheckpointError(f"No reward model at '{directory}'.", "Train one: pad train-rm RECIPE")
    if not (directory / CONFIG).exists():
        raise CheckpointError(
            f"'{directory}' is no reward model: it has no {CONFIG}.", "Name the directory that pad train-rm wrote."
        )
    config = read_object(directory / CONFIG)
    if type(config.get("format_version")) is not int:
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
    if wrong := sorted({key for key in _NEEDED if key not in config} | set(_odd(config))):
        raise CheckpointError(
            f"'{directory / CONFIG}' lacks {', '.join(wrong)}, or holds something else there.",
            "Train or copy it again.",
        )
    return config


def heads_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors that a configuration, as `read_config` gives it, says there are in `preference_heads.safetensors`."""
    count, rank, size = len(config["principles"]), config["rank"], config["hidden_size"]
    return {"down": (count, rank, size), "up": (count, size, rank)}


def _odd(config: Mapping[str, Any]) -> Iterator[str]:
    """Keys whose value can be none of ours."""
    for key, kinds in _NEEDED.items():
        value: Any = config.get(key)
        plausible = isinstance(value, kinds) and not isinstance(value, bool)
        if plausible and key in _SIZES and value is not None:
            plausible = _SIZES[key] <= value < _LARGEST
        if plausible and key == "calibration":
            plausible = abs(value) <= sys.float_info.max
        if plausible and key == "principles":
            plausible = all(isinstance(name, str) and name.strip() for name in value)
            plausible = plausible and len({name.lower() for name in value}) == len(value)
        if not plausible:
            yield key
    if config.get("conditioning", "heads") not in ("heads", "prompt"):
        yield "conditioning"
    if config.get("encoder_width") is not None:
        if config.get("encoder_texts") is None:
            yield "encoder_texts"
        if not config.get("principles"):
            yield "principles"
