"""What a reward model's directory says of itself, read without loading any weights.

Of weights only the headers of their files are read: names and shapes, so that a damaged or exchanged file is noticed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pad_cli.errors import CheckpointError
from pad_cli.models.checkpoint_config import (
    ADAPTER,
    ADAPTER_CONFIG,
    CONFIG,
    ENCODER,
    HEADS,
    VALUE_HEAD,
    heads_shapes,
    read_config,
)
from pad_cli.models.checkpoint_files import AGAIN, check_shapes, read_object, read_tensors, tensor_shapes
from pad_cli.models.hub import fetch_checkpoint
from pad_cli.registry import resolve_model


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
    if not (directory / CONFIG).exists():
        from pad_cli.models.prompt_reward_model import is_released_form  # it brings torch

        if is_released_form(place):
            return _inspect_released(location, place)
    config = read_config(directory)
    shapes = {}
    if config.get("conditioning", "heads") == "heads":
        shapes[HEADS] = tensor_shapes(directory / HEADS)
        check_shapes(directory / HEADS, shapes[HEADS], heads_shapes(config))
        if config["encoder_width"] is not None:
            shapes[ENCODER] = tensor_shapes(directory / ENCODER)
    else:
        shapes[VALUE_HEAD] = tensor_shapes(directory / VALUE_HEAD)
    adapter = None
    if config.get("adapter"):
        shapes[ADAPTER] = tensor_shapes(directory / ADAPTER)
        settings = read_object(directory / ADAPTER_CONFIG)
        modules = sum(name.endswith("lora_A.weight") for name in shapes[ADAPTER])
        adapter = {"rank": settings.get("r"), "alpha": settings.get("lora_alpha"), "modules": modules}
    names = [CONFIG, ADAPTER_CONFIG, *shapes]
    metrics, report = (read_object(directory / name, optional=True) for name in ("metrics.json", "report.json"))
    metrics, data, seconds = metrics or config.get("metrics") or {}, report.get("data") or {}, _seconds(report)
    stages, environment = config.get("stages") or [], config.get("environment") or {}
    splits = data.get("splits") or [] if isinstance(data, Mapping) else None
    told = {"metrics.json": _is_table(metrics), "report.json": _are_rows(splits, "name") and seconds is not None}
    told[CONFIG] = _are_rows(stages, "stage") and isinstance(environment, Mapping)
    if damaged := [name for name, good in told.items() if not good]:
        raise CheckpointError(f"'{directory}': {', '.join(damaged)} cannot be understood.", AGAIN)
    return Inspection(
        location,
        "pad",
        config,
        metrics=metrics,
        data=data,
        seconds=seconds or {},
        adapter=adapter,
        parameters={name: _count(tensors) for name, tensors in shapes.items()},
        bytes=sum(path.stat().st_size for path in (directory / name for name in names) if path.exists()),
    )


def _is_table(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(row, Mapping) for row in content.values())


def _are_rows(content: Any, key: str) -> bool:
    """Mappings, each with a text under the key."""
    return isinstance(content, list) and all(
        isinstance(row, Mapping) and isinstance(row.get(key), str) for row in content
    )


def _seconds(report: Mapping[str, Any]) -> dict[str, float] | None:
    """What each stage took; None when the report does not say it as a report does."""
    stages = report.get("stages") or []
    if _are_rows(stages, "name") and all(isinstance(stage.get("seconds"), int | float) for stage in stages):
        return {stage["name"]: stage["seconds"] for stage in stages}
    return None


def known_wordings(location: str) -> dict[str, int]:
    """How many wordings of each principle the preference encoder was trained on; empty without an encoder.

    Raises:
        CheckpointError: it is no reward model, damaged, or of a newer format.
    """
    config = inspect_reward_model(location).config
    if config.get("encoder_width") is None:
        return {}
    path = Path(fetch_checkpoint(resolve_model(location))) / ENCODER
    tensors = read_tensors(path)
    if "owners" not in tensors:
        raise CheckpointError(f"'{path}' lacks owners.", AGAIN)
    owners = Counter(tensors["owners"].flatten().tolist())
    return {name: owners[number] for number, name in enumerate(config["principles"])}


def _inspect_released(location: str, place: str) -> Inspection:
    from transformers.utils import cached_file

    path = Path(place)
    try:
        head = path / VALUE_HEAD if path.is_dir() else Path(cached_file(place, VALUE_HEAD))
        backbone = path / "config.json" if path.is_dir() else Path(cached_file(place, "config.json"))
    except OSError as error:
        raise CheckpointError(f"'{location}' lacks a file: {error}", AGAIN) from error
    shapes, config = tensor_shapes(head), read_object(backbone)
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
        parameters={VALUE_HEAD: _count(shapes)},
        bytes=head.stat().st_size,
    )


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    total = 0
    for shape in shapes.values():
        size = 1
        for side in shape:
            size *= side
        total += size
    return total
