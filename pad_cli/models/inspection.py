"""What a reward model's directory says of itself, read without loading any weights.

Of weights only the headers of their files are read: names and shapes, so that a damaged or exchanged file is noticed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pad_cli.models import checkpoint_files as files
from pad_cli.registry import resolve_model


@dataclass(frozen=True)
class Inspection:
    """What a reward model says of itself.

    Attributes:
        location: its directory, or its id on the hub.
        form: `pad`, or `released` for the form of the paper's authors.
        config: the content of `pad_config.json`; of the released form, what its files tell.
        metrics: measurements by validation split; empty when there are none.
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


class _Stage(BaseModel):
    name: str
    seconds: float


class _Data(BaseModel):
    """As `records.DataReport`; other keys are left alone."""

    model_config = ConfigDict(extra="allow")
    sources: list[dict[str, Any]] = []
    splits: list[dict[str, Any]] = []


class _Report(BaseModel):
    """The parts of `report.json` that are read here."""

    stages: list[_Stage] = []
    data: _Data = _Data()


def inspect_reward_model(location: str) -> Inspection:
    """Read what a reward model says of itself.

    Args:
        location: a directory, a registered source, or an id on the hub.

    Raises:
        CheckpointError: it is no reward model, damaged, or of a newer format.
    """
    resolved = files.fetch_checkpoint(resolve_model(location))
    directory = Path(resolved)
    if not (directory / files.CONFIG).exists() and (head := files.find_value_head(resolved)) is not None:
        return _inspect_released(location, resolved, head)
    header = files.read_header(directory)
    shapes = {}
    if header.conditioning == "heads":
        shapes[files.HEADS] = files.tensor_shapes(directory / files.HEADS, header.head_shapes)
        if header.encoder_width is not None:
            shapes[files.ENCODER] = files.tensor_shapes(directory / files.ENCODER)
    else:
        shapes[files.VALUE_HEAD] = files.tensor_shapes(directory / files.VALUE_HEAD)
    adapter = None
    if header.adapter:
        shapes[files.ADAPTER_WEIGHTS] = files.tensor_shapes(directory / files.ADAPTER_WEIGHTS)
        lora = files.read_json(directory / files.ADAPTER_CONFIG)
        modules = sum(name.endswith("lora_A.weight") for name in shapes[files.ADAPTER_WEIGHTS])
        adapter = {"rank": lora.get("r"), "alpha": lora.get("lora_alpha"), "modules": modules}
    path = directory / "report.json"
    report = files.validated(_Report, files.read_json(path, optional=True), path)
    present = [path for name in (files.CONFIG, files.ADAPTER_CONFIG, *shapes) if (path := directory / name).exists()]
    return Inspection(
        location,
        "pad",
        header.content,
        metrics=header.metrics or {},
        data=report.data.model_dump(exclude_unset=True),
        seconds={stage.name: stage.seconds for stage in report.stages},
        adapter=adapter,
        parameters={name: _count(tensors) for name, tensors in shapes.items()},
        bytes=sum(path.stat().st_size for path in present),
    )


def _inspect_released(location: str, resolved: str, head: Path) -> Inspection:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(resolved, trust_remote_code=False).get_text_config(decoder=True)
    except Exception as error:  # whatever transformers and the hub's client raise
        raise files.damaged(Path(resolved, "config.json"), error) from error
    content = {
        "conditioning": "prompt",
        "backbone": location,
        "backbone_revision": None,
        "hidden_size": config.hidden_size,
        "vocabulary_size": config.vocab_size,
        "calibration": 1.0,
    }
    parameters = {files.VALUE_HEAD: _count(files.tensor_shapes(head))}
    return Inspection(location, "released", content, parameters=parameters, bytes=head.stat().st_size)


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
