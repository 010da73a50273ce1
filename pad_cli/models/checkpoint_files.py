"""The files of a reward model: where they are, their names, the header `pad_config.json`, tensors with a checksum.

A reward model is a directory, or on the Hugging Face hub under an id `owner/name` or `owner/name@revision`. Only a
checkpoint's own files travel; its backbone stays where `pad_config.json` says.

Anybody may have written a checkpoint, so nothing in it is trusted: every file is whole and plausible, or a
CheckpointError. Only safetensors are read, never pickles, and shapes are read before tensors: a file cannot claim more
numbers than it has bytes, but a header beside it can. Nothing here imports torch before a tensor is read or written.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import huggingface_hub
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from pad_cli.errors import CheckpointError, closest
from pad_cli.registry import MODEL_SOURCES
from pad_cli.system.offline import hub_hint
from pad_cli.system.progress import stage

if TYPE_CHECKING:
    import torch

CONFIG = "pad_config.json"
HEADS = "preference_heads.safetensors"
ENCODER = "preference_encoder.safetensors"
SAMPLE = "backbone_sample.safetensors"
VALUE_HEAD = "value_head.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
CARD = "README.md"
OWN_FILES = (
    *(CARD, CONFIG, HEADS, ENCODER, VALUE_HEAD, SAMPLE, ADAPTER_CONFIG, ADAPTER_WEIGHTS),
    *("metrics.json", "recipe.json", "report.json", "report.md", "report.html"),
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "spiece.model", "chat_template.jinja"),
)
"""What a checkpoint may consist of; other files of its directory are never pushed nor fetched."""

FORMAT_VERSION = 2
_CHECKSUM = "crc32"
_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")

_Size = Annotated[int, Field(ge=1, lt=2**31)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Name = Annotated[str, StringConstraints(pattern=r"\S")]
Model = TypeVar("Model", bound=BaseModel)


class CheckpointHeader(BaseModel):
    """The content of `pad_config.json`: what loading needs, and whatever else training recorded."""

    model_config = ConfigDict(extra="allow", strict=True)
    backbone: str
    backbone_revision: str | None
    backbone_fingerprint: str
    backbone_quantization: str | None = None
    hidden_size: _Size
    tokenizer_hash: str
    conditioning: Literal["heads", "prompt"] = "heads"
    principles: list[_Name]
    rank: _Count
    adapter: bool = False
    encoder_width: _Size | None
    encoder_texts: _Count | None
    calibration: Annotated[float, Field(allow_inf_nan=False)]
    stages: list[dict[str, Any]] | None = None  # one training stage each
    environment: dict[str, Any] | None = None
    metrics: dict[str, dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> CheckpointHeader:
        if len({name.lower() for name in self.principles}) < len(self.principles):
            raise ValueError("a name is duplicated in principles")
        if self.encoder_width is not None and (self.encoder_texts is None or not self.principles):
            raise ValueError("encoder_width is set without encoder_texts or principles")
        return self

    @property
    def content(self) -> dict[str, Any]:
        """As it stands in the file."""
        return self.model_dump(exclude_unset=True)

    @property
    def head_shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors that `preference_heads.safetensors` has to hold."""
        count, rank, size = len(self.principles), self.rank, self.hidden_size
        return {"down": (count, rank, size), "up": (count, size, rank)}


def hub_id(location: str) -> tuple[str, str | None] | None:
    """`owner/name` of an id on the hub, and its revision; None for what is, or can only be, a directory.

    That is one without an owner, or whose parent exists. Without a revision it is the main branch.
    """
    match, path = _ID.fullmatch(location), Path(location)
    if match is None or location.startswith(".") or path.exists() or path.parent.is_dir():
        return None
    return match["repository"], match["revision"]


def fetch_checkpoint(location: str) -> str:
    """Where the files of a reward model are; a checkpoint on the hub is fetched if it changed.

    A directory stays as it is. A repository without `pad_config.json`, in the form that the paper's authors released,
    stays an id, so that the language model in it is found as any other.

    Raises:
        CheckpointError: the hub has no such reward model, or cannot be asked and nothing was fetched before.
    """
    target = hub_id(location)
    if target is None:
        return location
    repository, revision = target
    disable_progress_bars()
    try:
        with stage(f"Fetching {location}"):
            directory = huggingface_hub.snapshot_download(
                repository, revision=revision, allow_patterns=list(OWN_FILES), library_name="pad-cli"
            )
    except Exception as error:  # whatever the hub's client raises, and its HTTP library without a network
        similar = closest(location.partition("/")[0], MODEL_SOURCES.names())
        if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
            what = "revision" if isinstance(error, RevisionNotFoundError) else "repository that you may read"
            problem = f"the hub has no such {what}"
            hint = f"{similar} Check the name; a private or gated one needs: hf auth login".strip()
        else:
            problem = f"it cannot be fetched: {brief(error)}"
            hint = f"{similar} Check the name and the network; what was fetched once loads without one.".strip()
            hint = hub_hint(hint, f"hf download {repository}")
        raise CheckpointError(
            f"No reward model at '{location}': there is no such directory, and {problem}.", hint
        ) from error
    return directory if Path(directory, CONFIG).exists() else location


def find_value_head(location: str) -> Path | None:
    """The dense head of a reward model of the authors' form, fetched from the hub; None where there is none.

    Raises:
        CheckpointError: a directory has it as a pickle only.
    """
    target, path = hub_id(location), Path(location, VALUE_HEAD)
    if target is not None:
        with contextlib.suppress(Exception):  # no such file, no such repository, or no network
            return Path(huggingface_hub.hf_hub_download(target[0], VALUE_HEAD, revision=target[1]))
        return None
    pickled = path.with_suffix(".bin")
    if pickled.is_file() and not path.is_file():
        raise CheckpointError(
            f"'{location}' has {pickled.name} only: a pickle, which can run code when it is opened.",
            f"Where you trust that file, save its tensors as {VALUE_HEAD} (safetensors.torch.save_file).",
        )
    return path if path.is_file() else None


def brief(error: Exception) -> str:
    """The first two lines of an error of the hub's client."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def read_header(directory: Path) -> CheckpointHeader:
    """The content of `pad_config.json`; a CheckpointError if there is none, it is damaged, or of another format."""
    if not directory.is_dir():
        raise CheckpointError(f"No reward model at '{directory}'.", "Train one: pad train-rm RECIPE")
    path = directory / CONFIG
    if not path.exists():
        raise CheckpointError(
            f"'{directory}' is no reward model: it has no {CONFIG}.", "Name the directory that pad train-rm wrote."
        )
    content = read_json(path)
    version = content.get("format_version")
    if type(version) is not int:
        raise damaged(path, "it has no format version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"'{directory}' has format {version}; this program reads format {FORMAT_VERSION}.",
            "Upgrade pad (pip install --upgrade . in a newer checkout), or train again: pad train-rm RECIPE",
        )
    return validated(CheckpointHeader, content, path)


def damaged(path: Path, problem: object) -> CheckpointError:
    return CheckpointError(f"'{path}' is damaged: {problem}.", "Train or copy it again.")


def validated(model: type[Model], content: Any, path: Path) -> Model:
    """The content of a JSON file as a pydantic model; a CheckpointError names the keys that do not validate."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))} {each['msg']}".strip() for each in error.errors()[:4]]
        raise damaged(path, "; ".join(problems)) from error


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object in a file, or an empty one if the file is optional and missing."""
    if optional and not path.exists():
        return {}
    _check_is_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, "it holds no JSON object")
    return content


def tensor_shapes(path: Path, expected: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a file, from its header; a CheckpointError if they are not as expected."""
    _check_is_file(path)
    try:
        with safe_open(path, framework="np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # not iterable
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    if expected is not None and shapes != expected:
        wrong = sorted(name for name in {*shapes, *expected} if shapes.get(name) != expected.get(name))[:3]
        details = [f"{name} {shapes.get(name, 'missing')} for {expected.get(name, 'none')}" for name in wrong]
        raise damaged(path, f"it has another shape, {', '.join(details)}")
    return shapes


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, on the CPU; a CheckpointError if one is damaged or a number in it is not finite."""
    import torch

    _check_is_file(path)
    try:
        tensors, _ = load_tensors(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise damaged(path, error) from error
    for name, tensor in tensors.items():
        if tensor.is_complex() or not torch.isfinite(tensor.float()).all():
            raise damaged(path, f"numbers in '{name}' are not finite")
    return tensors


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors on the CPU, and their checksum among the metadata."""
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata={**(metadata or {}), _CHECKSUM: _checksum(tensors)})


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a file, mapped to memory, and its metadata; a file without a checksum is not checked.

    Raises:
        OSError, SafetensorError: it cannot be read, or is damaged.
    """
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not iterable
    expected = metadata.pop(_CHECKSUM, None)
    if expected is not None and expected != _checksum(tensors):
        raise SafetensorError("the checksum does not match")
    return tensors, metadata


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    import torch

    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].detach().reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


def _check_is_file(path: Path) -> None:
    """Reading a pipe would wait for ever."""
    if not path.exists():
        raise CheckpointError(f"'{path.parent}' lacks {path.name}.", "Train or copy it again.")
    if not path.is_file():
        raise damaged(path, "it is no file")
