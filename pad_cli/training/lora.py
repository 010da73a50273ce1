"""LoRA weights while they are trained: which layers get them, their files, and a backbone that stays as it was."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.pytorch_utils import Conv1D

from pad_cli.errors import CheckpointError, RecipeError, did_you_mean
from pad_cli.models.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_tensors, save_tensors

HEAD = "preference_head.safetensors"
_STATE = "trainer_state.json"
# Fused kernels of these read the layer's weight and not the layer, so PEFT refuses it.
_STATE_SPACE, _PAST_THE_LAYER = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"), ("out_proj",)
_ARCHIVES, _RANDOM = ("optimizer.pt", "scheduler.pt"), "rng_state*.pth"  # a random state each process


def linear_layers(model: Any, wanted: Sequence[str] | Literal["all-linear"]) -> list[str]:
    """Paths of the linear layers of a causal language model's body that a recipe asks for; never the unembedding.

    Layers that LoRA cannot adapt count as none: a router, the output of a state-space layer.

    Args:
        model: a transformers causal language model.
        wanted: last parts of paths (`q_proj`), or all of them.

    Raises:
        RecipeError: a name is that of no linear layer in the body.
    """
    body = {id(module) for module in model.get_decoder().modules()} - {id(model.get_output_embeddings())}
    barred = _PAST_THE_LAYER if model.config.model_type in _STATE_SPACE else ()
    found = [
        path
        for path, module in model.named_modules()
        if id(module) in body and _is_linear(module) and path.rpartition(".")[2] not in barred
    ]
    if wanted == "all-linear":
        return found
    for name in wanted:
        if not any(_is_called(path, name) for path in found):
            near = did_you_mean(name, {path.rpartition(".")[2] for path in found})
            raise RecipeError(f"target_modules: the backbone's body has no linear layer '{name}'.", near)
    return [path for path in found if any(_is_called(path, name) for name in wanted)]


def _is_linear(module: nn.Module) -> bool:
    """Is it a linear layer and no more? Some routers are one that gives several tensors (Llama 4)."""
    of_a_model = type(module).__module__.startswith("transformers.models.")  # others are packed ones
    return isinstance(module, Conv1D) or (
        isinstance(module, nn.Linear) and (not of_a_model or type(module).forward is nn.Linear.forward)
    )


def _is_called(path: str, name: str) -> bool:
    return f".{path}".endswith(f".{name}")


def lora_parameters(model: Any) -> dict[str, nn.Parameter]:
    """The LoRA weights of a PeftModel with one adapter, by their names in PEFT's file."""
    return {
        name.replace(".default.", "."): parameter for name, parameter in model.named_parameters() if ".lora_" in name
    }


def write_weights(model: Any, head: nn.Module | None, directory: Path) -> None:
    """PEFT's two files and the head's, into an existing directory."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in lora_parameters(model).items()}
    save_tensors(tensors, directory / ADAPTER_WEIGHTS, {"format": "pt"})
    model.peft_config["default"].save_pretrained(str(directory))
    if head is not None:
        save_tensors({name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}, directory / HEAD)


@torch.no_grad()
def read_weights(model: Any, head: nn.Module | None, directory: Path) -> None:
    """Take over weights that `write_weights` wrote.

    Args:
        model: a PeftModel with the same layers and ranks.
        head: takes over the head's; None to leave those.
        directory: where they are.

    Raises:
        CheckpointError: a file is missing or damaged.
        RecipeError: the adapter there has other layers, ranks or scaling.
    """
    from peft import PeftConfig

    try:
        tensors, _ = load_tensors(directory / ADAPTER_WEIGHTS)
        there = PeftConfig.from_pretrained(str(directory))
        if head is not None:
            head.load_state_dict(load_tensors(directory / HEAD)[0])
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"'{directory}' holds no whole adapter: {error}", "Train it again.") from error
    own, here = lora_parameters(model), model.peft_config["default"]
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in tensors.items()} or (
        here.lora_alpha != there.lora_alpha
    ):
        raise RecipeError(
            f"The adapter in '{directory / ADAPTER_CONFIG}' has other LoRA weights than the stage that continues it.",
            "Give both stages the same lora_rank, lora_alpha and target_modules.",
        )
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


@contextmanager
def unchanged(*objects: Any) -> Iterator[None]:
    """Inside, anything may happen to the attributes of some objects; afterwards they are what they were.

    Dictionaries among them (a module's children, parameters, hooks) get their entries back, and stay the same object.
    """
    before = [
        (vars(one), dict(vars(one)), [(table, table.copy()) for table in vars(one).values() if isinstance(table, dict)])
        for one in {id(one): one for one in objects}.values()
    ]
    try:
        yield
    finally:
        for attributes, kept, tables in before:
            attributes.clear()
            attributes.update(kept)
            for table, entries in tables:
                table.clear()
                table.update(entries)


def newest_whole(directory: Path, *, with_head: bool) -> Path | None:
    """The last checkpoint that is not damaged; those after it are deleted."""
    for checkpoint in reversed(_checkpoints(directory)):
        if _is_whole(checkpoint, with_head):
            return checkpoint
        shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def keep_last(directory: Path, count: int) -> None:
    """Delete all checkpoints but the last ones by their steps: clocks, and so the times of files, may be wrong."""
    for checkpoint in _checkpoints(directory)[:-count]:
        shutil.rmtree(checkpoint, ignore_errors=True)


def _checkpoints(directory: Path) -> list[Path]:
    """By their steps, the last one last."""
    numbered = [path for path in directory.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]))


def _is_whole(checkpoint: Path, with_head: bool) -> bool:
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        for name in (ADAPTER_WEIGHTS, HEAD) if with_head else (ADAPTER_WEIGHTS,):
            load_tensors(checkpoint / name)
        random = list(checkpoint.glob(_RANDOM))
        for path in [*(checkpoint / name for name in _ARCHIVES), *random]:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    return False
        return bool(random)
    except (OSError, ValueError, RecursionError, SafetensorError, zipfile.BadZipFile):
        return False
