"""What a reward model's directory says of itself, read without loading any weights.

Of weights only the headers of their files are read: names and shapes, so that a damaged or exchanged file is noticed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
from pydantic import BaseModel, RootModel

from pad_cli.models.checkpoint_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    ENCODER,
    HEADS,
    VALUE_HEAD,
    damaged,
    fetch_checkpoint,
    find_value_head,
    read_header,
    read_json,
    read_tensors,
    tensor_shapes,
    validated,
)
from pad_cli.registry import resolve_model


@dataclass(frozen=True)
class Inspection:
    """What a reward model says of itself.

    Attributes:
        location: its directory, or its id on the hub.
        form: `pad`, or `released` for the form of the paper's authors.
        config: the content of `pad_config.json`; of the released form, what its files tell.
        metrics: measurements by validation split; empty when unknown.
        data: the report on its training data (see `records.DataReport`); empty when there is none.
        seconds: duration of each training stage; empty when unknown.
        adapter: rank, alpha and number of adapted modules; None without an adapter.
        parameters: trainable parameters, by file.
        bytes: size of its files on disk; of the released form, without the language model's.
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


class _Metrics(RootModel[dict[str, dict[str, Any]]]):
    """`metrics.json`."""


class _Named(BaseModel):
    name: str


class _Timed(_Named):
    seconds: float


class _Data(BaseModel):
    splits: list[_Named] | None = None


class _Report(BaseModel):
    """The parts of `report.json` that are read here."""

    stages: list[_Timed] | None = None
    data: _Data | None = None


def inspect_reward_model(location: str) -> Inspection:
    """Read what a reward model says of itself.

    Args:
        location: a directory, a registered source, or an id on the hub.

    Raises:
        CheckpointError: it is no reward model, damaged, or of a newer format.
    """
    resolved = fetch_checkpoint(resolve_model(location))
    directory = Path(resolved)
    if not (directory / CONFIG).exists() and (head := find_value_head(resolved)) is not None:
        return _inspect_released(location, resolved, head)
    header = read_header(directory)
    shapes = {}
    if header.conditioning == "heads":
        shapes[HEADS] = tensor_shapes(directory / HEADS, header.head_shapes)
        if header.encoder_width is not None:
            shapes[ENCODER] = tensor_shapes(directory / ENCODER)
    else:
        shapes[VALUE_HEAD] = tensor_shapes(directory / VALUE_HEAD)
    adapter = None
    if header.adapter:
        shapes[ADAPTER_WEIGHTS] = tensor_shapes(directory / ADAPTER_WEIGHTS)
        lora = read_json(directory / ADAPTER_CONFIG)
        modules = sum(name.endswith("lora_A.weight") for name in shapes[ADAPTER_WEIGHTS])
        adapter = {"rank": lora.get("r"), "alpha": lora.get("lora_alpha"), "modules": modules}
    metrics, report = (read_json(directory / name, optional=True) for name in ("metrics.json", "report.json"))
    validated(_Metrics, metrics, directory / "metrics.json")
    timings = validated(_Report, report, directory / "report.json").stages or []
    files = [path for name in (CONFIG, ADAPTER_CONFIG, *shapes) if (path := directory / name).exists()]
    return Inspection(
        location,
        "pad",
        header.content,
        metrics=metrics or header.metrics or {},
        data=report.get("data") or {},
        seconds={stage.name: stage.seconds for stage in timings},
        adapter=adapter,
        parameters={name: _count(tensors) for name, tensors in shapes.items()},
        bytes=sum(path.stat().st_size for path in files),
    )


def known_paraphrases(location: str) -> dict[str, int]:
    """How many paraphrases of each principle the preference encoder was trained on; empty without an encoder."""
    config = inspect_reward_model(location).config
    if config.get("encoder_width") is None:
        return {}
    path = Path(fetch_checkpoint(resolve_model(location))) / ENCODER
    tensors = read_tensors(path)
    if "owners" not in tensors:
        raise damaged(path, "it lacks owners")
    owners = Counter(tensors["owners"].flatten().tolist())
    return {name: owners[number] for number, name in enumerate(config["principles"])}


def _inspect_released(location: str, resolved: str, head: Path) -> Inspection:
    backbone = Path(resolved, "config.json")
    if not Path(resolved).is_dir():
        try:
            backbone = Path(huggingface_hub.hf_hub_download(resolved, "config.json"))
        except Exception as error:  # whatever the hub's client and its HTTP library raise
            raise damaged(Path(location), error) from error
    config = read_json(backbone)
    text = config.get("text_config", config)
    content = {
        "conditioning": "prompt",
        "backbone": location,
        "backbone_revision": None,
        "hidden_size": text.get("hidden_size"),
        "vocabulary_size": text.get("vocab_size"),
        "calibration": 1.0,
    }
    parameters = {VALUE_HEAD: _count(tensor_shapes(head))}
    return Inspection(location, "released", content, parameters=parameters, bytes=head.stat().st_size)


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
