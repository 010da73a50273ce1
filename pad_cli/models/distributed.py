"""Several processes: waiting for each other, and a backbone that no single device holds, divided among them by FSDP.

Every process keeps 1 / P of each block of the frozen body, and the whole of what stands outside of blocks (embeddings,
final norm). To read, all processes gather one block after the other (ZeRO stage 3: Rajbhandari et al. 2020, arXiv
1910.02054; torch's `fully_shard`). So a forward pass needs all of them: either each reads its own batch, in step, as in
the training of LoRA weights; or one reads and the others lend it their parts (`main_reads_first`).

LoRA weights come later, are small, and belong to no block: every process has them whole.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import PartialState

from pad_cli.errors import ModelLoadError
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.models.loading import chosen_device
from pad_cli.recipe import ModelSettings
from pad_cli.system.processes import processes

_TIMEOUT = datetime.timedelta(days=7)  # shares of a long job end hours apart; a process that dies ends all of them
_READING, _DONE = 1, 0  # what the first process broadcasts to the others


def wait_for_all() -> None:
    """Returns once every process has come here."""
    if processes().count > 1:
        _state().wait_for_everyone()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The block runs in the first process, and then in all others: they find what it has left."""
    with _state().main_process_first() if processes().count > 1 else contextlib.nullcontext():
        yield


def load_sharded(settings: ModelSettings) -> LanguageModel:
    """Load a backbone, and keep this process' part of it; the whole where there is one process.

    It is loaded into the machine's memory, by one process of each machine at a time, and moved block by block. A
    ModelLoadError if its blocks are unknown, or its decoder is not run by itself.
    """
    if processes().count == 1:
        return load_language_model(settings)
    from torch.distributed.device_mesh import init_device_mesh

    device = chosen_device(settings.device)
    wait_for_all()  # and everybody is in the process group
    mesh = init_device_mesh(device.type, (processes().count,), mesh_dim_names=("fsdp",))  # which PEFT looks for
    for turn in range(processes().count):
        if turn == processes().local_rank:
            backbone = load_language_model(settings.model_copy(update={"device": "cpu"}), computes_on=device)
            _shard(backbone, mesh, device)
        wait_for_all()
    _lend(backbone.model)  # torch keeps what it gathers into: made in inference mode, it could not be trained through
    return backbone


def is_sharded(model: torch.nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule

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
        while _broadcast(_DONE) == _READING:
            _lend(model)
        wait_for_all()
        yield
        return

    def announce(*_: Any) -> None:
        _broadcast(_READING)

    hook = model.get_decoder().register_forward_pre_hook(announce)
    try:
        yield
    finally:
        hook.remove()
        _broadcast(_DONE)
    wait_for_all()


def _shard(backbone: LanguageModel, mesh: Any, device: torch.device) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    model = backbone.model
    kinds = set(model._no_split_modules or ())
    blocks = [module for module in model.get_decoder().modules() if type(module).__name__ in kinds]
    if not blocks or backbone.forward_mode.full_model:
        raise ModelLoadError(
            f"'{backbone.name}' is not read through a decoder of known blocks alone, so it cannot be divided.",
            "Leave shard_backbone out.",
        )
    for block in reversed(blocks):  # inner ones first
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            if not isinstance(tensor, DTensor):
                tensor.data = tensor.data.to(device)


def _broadcast(message: int) -> int:
    """The first process' message, in every process; the others' own is ignored."""
    tensor = torch.tensor(message, device=_state().device)
    torch.distributed.broadcast(tensor, src=0)
    return int(tensor)


@torch.no_grad()
def _lend(model: Any) -> None:
    """A forward pass over one token: what matters is that this process' parts are gathered with those of the others."""
    device = model.get_input_embeddings().weight.device
    model.get_decoder()(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)


def _state() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_TIMEOUT)
