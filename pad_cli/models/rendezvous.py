"""Waiting for each other, by accelerate; of no effect in a single process."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator

import torch
from accelerate import PartialState

from pad_cli.system.processes import processes

_PATIENCE = datetime.timedelta(days=7)  # shares of a long job end hours apart; a process that dies ends all of them


def wait_for_all() -> None:
    """Returns once every process has come here."""
    if processes().count > 1:
        _state().wait_for_everyone()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The block runs in the first process, and then in all others: they find what it has left."""
    if processes().count == 1:
        yield
        return
    with _state().main_process_first():
        yield


def _state() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
