"""Several processes wait for each other."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator

import torch
from accelerate import PartialState

from pad_cli.system.processes import processes

_TIMEOUT = datetime.timedelta(days=7)  # shares of a long job end hours apart; a process that dies ends all of them


def wait_for_all() -> None:
    """Returns once every process has come here."""
    if processes().count > 1:
        _state().wait_for_everyone()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The block runs in the first process, and then in all others: they find what it has left."""
    with _state().main_process_first() if processes().count > 1 else contextlib.nullcontext():
        yield


def _state() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_TIMEOUT)
