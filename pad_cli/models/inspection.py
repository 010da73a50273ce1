"""What a reward model's directory says of itself, read without loading any weights.

Of weights only the headers of their files are read: names and shapes, so that a damaged or exchanged file is noticed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

from pad_cli.errors import CheckpointError
from pad_cli.models.adapter import CONFIG as ADAPTER_CONFIG
from pad_cli.models.adapter import WEIGHTS as ADAPTER
from pad_cli.models.checkpoint import CONFIG, ENCODER, HEADS, read_config
from pad_cli.models.hub import fetch_checkpoint
from pad_cli.models.language_model import resolve_model
from pad_cli.models.prompt_reward_model import HEAD, is_released_form

_AGAIN = "Train or copy it again."


@dataclass(frozen=True)
class Inspection:
    """A reward model's own account.

    Attributes:
        location: its directory, or its id on the hub.
        form: `pad`, or `released` for the form of the paper's authors.
        config: the content of `pad_config.json`; of the released form what its files tell.
        metrics: what it measured on its validation splits, by split; empty when unknown.
        data: the report on its training data (see `records.DataReport`); empty when there is none.
        seconds: that each stage took; empty when unknown.
        adapter: rank, alpha and number of adapted modules; None without an adapter.
        parameters: trained numbers, by file.
        bytes: of its files on the disk; of the released form without the language model's.
    """

    location: str
    form: Literal["pad", "released"]
    config: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    adapter: Mapping[str, Any] | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0


def inspect_reward_model(location: str) -> Inspection:
    """Read what a reward model says of itself.

    Args:
        location: a directory, a registered source, or an id on the hub.

    Raises:
        CheckpointError: it is no reward model, damaged, or of a newer format.
    """
    place = fetch_checkpoint(resolve_model(location))
    directory = Path(place)
    if not (directory / CONFIG).exists() and is_released_form(place):
        return _inspect_released(location, place)
    config = read_config(directory)
    shapes = {}
    if config.get("conditioning", "heads") == "heads":
        shapes[HEADS] = _shapes(directory / HEADS)
        _check_heads(directory / HEADS, shapes[HEADS], config)
        if config["encoder_width"] is not None:
            shapes[ENCODER] = _shapes(directory / ENCODER)
    else:
        shapes[HEAD] = _shapes(directory / HEAD)
    adapter = None
    if config.get("adapter"):
        shapes[ADAPTER] = _shapes(directory / ADAPTER)
        settings = _json(directory / ADAPTER_CONFIG)
        modules = sum(name.endswith("lora_A.weight") for name in shapes[ADAPTER])
        adapter = {"rank": settings.get("r"), "alpha": settings.get("lora_alpha"), "modules": modules}
    names = [CONFIG, ADAPTER_CONFIG, *shapes]
    report = _json(directory / "report.json", optional=True)
    return Inspection(
        location,
        "pad",
        config,
        metrics=_json(directory / "metrics.json", optional=True) or config.get("metrics") or {},
        data=report.get("data") or {},
        seconds={stage["name"]: stage["seconds"] for stage in report.get("stages") or ()},
        adapter=adapter,
        parameters={name: _count(tensors) for name, tensors in shapes.items()},
        bytes=sum(path.stat().st_size for path in (directory / name for name in names) if path.exists()),
    )


def known_wordings(location: str) -> dict[str, int]:
    """How many wordings of each principle the preference encoder was trained on; empty without an encoder.

    Raises:
        CheckpointError: it is no reward model, damaged, or of a newer format.
    """
    config = inspect_reward_model(location).config
    if config.get("encoder_width") is None:
        return {}
    path = Path(fetch_checkpoint(resolve_model(location))) / ENCODER
    with safe_open(path, framework="pt") as file:
        owners = Counter(file.get_tensor("owners").tolist())
    return {name: owners[number] for number, name in enumerate(config["principles"])}


def _inspect_released(location: str, place: str) -> Inspection:
    path = Path(place)
    try:
        head = path / HEAD if path.is_dir() else Path(cached_file(place, HEAD))
        backbone = path / "config.json" if path.is_dir() else Path(cached_file(place, "config.json"))
    except OSError as error:
        raise CheckpointError(f"'{location}' lacks a file: {error}", _AGAIN) from error
    shapes, config = _shapes(head), _json(backbone)
    text = config.get("text_config", config)
    return Inspection(
        location,
        "released",
        {
            "conditioning": "prompt",
            "backbone": location,
            "backbone_revision": None,
            "hidden_size": text.get("hidden_size"),
            "vocabulary_size": text.get("vocab_size"),
            "calibration": 1.0,
        },
        parameters={HEAD: _count(shapes)},
        bytes=head.stat().st_size,
    )


def _check_heads(path: Path, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
    count, rank, size = len(config["principles"]), config["rank"], config["hidden_size"]
    wanted = {"down": (count, rank, size), "up": (count, size, rank)}
    if dict(shapes) != wanted:
        raise CheckpointError(f"'{path}' holds {dict(shapes)}, but {CONFIG} says {wanted}.", _AGAIN)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, from its header."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    except FileNotFoundError as error:
        raise CheckpointError(f"'{path.parent}' lacks {path.name}.", _AGAIN) from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' is damaged: {error}", _AGAIN) from error


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    total = 0
    for shape in shapes.values():
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def _json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if optional:
            return {}
        raise CheckpointError(f"'{path.parent}' lacks {path.name}.", _AGAIN) from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}", _AGAIN) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' holds no JSON object.", _AGAIN)
    return content
