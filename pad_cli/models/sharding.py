"""A backbone that no single device holds: the blocks of its frozen body, divided among processes by FSDP.

Every process keeps 1 / P of each block and the whole of what stands outside of blocks (embeddings, final norm). To
read, all processes gather one block after the other (ZeRO stage 3: Rajbhandari et al. 2020, arXiv 1910.02054; torch's
`fully_shard`). So a forward pass needs all of them: either each reads its own batch, in step, as in the training of
LoRA weights; or one reads and the others lend it their parts (`main_reads_first`).

LoRA weights come later, are small, and belong to no block: every process has them whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import PartialState
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from pad_cli.errors import ModelLoadError
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.models.loading import chosen_device
from pad_cli.models.rendezvous import main_first, wait_for_all
from pad_cli.recipe import ModelSettings
from pad_cli.system.processes import processes

_READING, _DONE = 1, 0  # what the first process tells the others


def load_sharded(settings: ModelSettings) -> LanguageModel:
    """Load a backbone, and keep this process' part of it; whole where there is one process.

    It is loaded into the machine's memory, by one process of each machine at a time, and moved block by block.

    Raises:
        ModelLoadError: see `load_language_model`; or transformers does not say what its blocks are, or its decoder is
            not read by itself.
    """
    if processes().count == 1:
        return load_language_model(settings)
    device = chosen_device(settings.device)
    wait_for_all()  # and everybody is in the process group
    mesh = init_device_mesh(device.type, (processes().count,), mesh_dim_names=("fsdp",))  # which PEFT looks for
    for turn in range(processes().count):
        if turn == processes().local_rank:
            backbone = load_language_model(settings.model_copy(update={"device": "cpu"}), computes_on=device)
            if backbone.reading.whole:
                raise ModelLoadError(
                    f"'{backbone.name}' is not read through a decoder alone, so it cannot be divided.",
                    "Leave shard_backbone out.",
                )
            _divide(backbone, mesh, device)
        wait_for_all()
    _lend(backbone.model)  # torch keeps what it gathers into: made in inference mode, it could not be trained through
    return backbone


def is_sharded(model: torch.nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


@contextlib.contextmanager
def main_reads_first(model: Any) -> Iterator[None]:
    """As `main_first`, for blocks in which the first process reads a model that may be sharded.

    The others take part in each of its forward passes, and then run their own block, in which they must not read.
    """
    if not is_sharded(model):
        with main_first():
            yield
        return
    if not processes().main:
        while _told() == _READING:
            _lend(model)
        wait_for_all()
        yield
        return
    hook = model.get_decoder().register_forward_pre_hook(lambda *_: _tell(_READING))
    try:
        yield
    finally:
        hook.remove()
        _tell(_DONE)
    wait_for_all()


def _divide(backbone: LanguageModel, mesh: Any, device: torch.device) -> None:
    model = backbone.model
    kinds = set(model._no_split_modules or ())
    blocks = [module for module in model.get_decoder().modules() if type(module).__name__ in kinds]
    if not blocks:
        raise ModelLoadError(
            f"transformers does not say which blocks '{backbone.name}' consists of, so it cannot be divided.",
            "Leave shard_backbone out.",
        )
    for block in reversed(blocks):  # inner ones first
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            if not isinstance(tensor, DTensor):
                tensor.data = tensor.data.to(device)


def _tell(word: int) -> None:
    torch.distributed.broadcast(torch.tensor(word, device=PartialState().device), src=0)


def _told() -> int:
    word = torch.tensor(_DONE, device=PartialState().device)
    torch.distributed.broadcast(word, src=0)
    return int(word)


@torch.no_grad()
def _lend(model: Any) -> None:
    """A forward pass over one token: what matters is that this process' parts are gathered with those of the others."""
    device = model.get_input_embeddings().weight.device
    model.get_decoder()(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
