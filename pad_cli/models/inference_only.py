"""Importing transformers' models without what only training and compiling need of torch: a third of the time.

Each of transformers' models imports `torch._dynamo`, and with it sympy, torch's sharding and torch's compiler, to mark
functions that a compiler is not to look into; torch's sharding once more, for models spread over processes; and scipy,
for losses of object detection. A process that only runs models uses none of it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pad_cli.models.language_model import LanguageModel

_COMPILER = "torch._dynamo"
_VMAP_MODE = "torch._dynamo._trace_wrapped_higher_order_op"
_SMALL = 2**22  # parameters
_ABSENT = ("is_scipy_available", "is_torch_distributed_available")  # transformers' own checks, which fail inside


@contextlib.contextmanager
def inference_only() -> Iterator[None]:
    """Import and load models inside, in a process that will not train, compile or shard them.

    To modules of transformers that are first imported inside, scipy and `torch.distributed` stay absent for the life
    of the process, and what they mark for torch's compiler stays unmarked. No garbage is collected inside, and what is
    there at the end is frozen (`gc.freeze`). Without effect where transformers' models or torch's compiler have been
    imported already. Not while other threads import modules.
    """
    if "transformers.modeling_utils" in sys.modules or _COMPILER in sys.modules:
        yield
        return
    with contextlib.ExitStack() as afterwards:
        if gc.isenabled():
            gc.disable()
            afterwards.callback(gc.enable)
            afterwards.callback(gc.freeze)
        import transformers

        for module in (transformers.utils, transformers.utils.import_utils):
            for question in _ABSENT:
                afterwards.callback(setattr, module, question, getattr(module, question))
                setattr(module, question, lambda: False)
        afterwards.callback(_withdraw)
        sys.modules.update({_COMPILER: _Later(_COMPILER, _MARKS), _VMAP_MODE: _Later(_VMAP_MODE, _VMAP)})
        yield


def spare_threads(model: LanguageModel) -> None:
    """Let a small model on a CPU run on one thread in this process: others take longer to wake than they save."""
    import torch

    if model.device.type == "cpu" and sum(weight.numel() for weight in model.model.parameters()) < _SMALL:
        torch.set_num_threads(1)


class _Later(types.ModuleType):
    """Stands for a module: has a few names of its own, and imports the module for any other."""

    def __init__(self, name: str, own: dict[str, Any]) -> None:
        super().__init__(name)
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # every module is asked, by `inspect` for one
            raise AttributeError(name)
        _withdraw()
        return getattr(importlib.import_module(self.__name__), name)


def _withdraw() -> None:
    """From here on `torch._dynamo` is the real one."""
    for name in (_COMPILER, _VMAP_MODE):
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator that leaves a function as it is; also called without one, for such a decorator."""
    return _unmarked if function is None else function


def _vmap_mode() -> Any:
    _withdraw()
    return importlib.import_module(_VMAP_MODE).TransformGetItemToIndex()


_MARKS = dict.fromkeys(("disable", "allow_in_graph", "assume_constant_result"), _unmarked)
_VMAP = {"TransformGetItemToIndex": _vmap_mode}
