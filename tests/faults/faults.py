"""What can go wrong in a process: each is called in it before its command begins."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_BACK = 3600.0  # seconds
_SPARED = ("forward_check.py", "dpo_trainer.py")  # what is left its memory


def _on_change(directory: Path, act: Any) -> None:
    """Call `act` before each change that Python makes to the files below a directory."""
    below = f"{directory.resolve()}{os.sep}"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            path = arguments[0]
            if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(below):  # noqa: PTH100  # pathlib leaves .. in
                act()

    sys.addaudithook(hook)


@dataclass(frozen=True)
class CountChanges:
    """No fault: writes down how many times the process has changed a file below its working directory."""

    into: Path

    def __call__(self) -> None:
        count = 0

        def one_more() -> None:
            nonlocal count
            count += 1
            self.into.write_text(str(count), encoding="utf-8")

        _on_change(Path.cwd(), one_more)


@dataclass(frozen=True)
class SignalAtChange:
    """A signal just before the process changes a file for the n-th time.

    Attributes:
        number: n, from 1.
        signal: which one.
        group: to all that the process has started, too.
    """

    number: int
    signal: signal.Signals = signal.SIGKILL
    group: bool = True

    def __call__(self) -> None:
        left = self.number

        def one_less() -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(0 if self.group else os.getpid(), self.signal)

        _on_change(Path.cwd(), one_less)


@dataclass(frozen=True)
class LargestFile:
    """No file grows beyond so many bytes: what is written there is torn, and the process killed, or told so.

    Attributes:
        size: bytes.
        deadly: kill it in the middle of the write; else the write fails.
    """

    size: int
    deadly: bool

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if self.deadly else signal.SIG_IGN)
        if self.deadly:  # what it says is no file that may end it
            for number in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


@dataclass(frozen=True)
class ClockGoesBack:
    """Each time that somebody asks what time it is, it is an hour earlier."""

    def __call__(self) -> None:
        now = time.time()

        def earlier() -> float:
            nonlocal now
            now -= _BACK
            return now

        time.time = earlier
        time.time_ns = lambda: int(earlier() * 1e9)


@dataclass(frozen=True)
class SmallMemory:
    """A model's body that reads more than so many rows at once asks the allocator for more than there is.

    Training is left alone: its batches are the recipe's. So are the reference of TRL's training, and the check of a
    model, which reads a few tokens.
    """

    rows: int

    def __call__(self) -> None:
        import torch
        from transformers import LlamaModel

        plain = LlamaModel.forward

        def forward(model: LlamaModel, input_ids: torch.Tensor, **named: Any) -> Any:
            spared = any(frame.filename.endswith(_SPARED) for frame in traceback.extract_stack())
            if len(input_ids) > self.rows and not torch.is_grad_enabled() and not spared:
                torch.empty(2**50)
            return plain(model, input_ids=input_ids, **named)

        LlamaModel.forward = forward


@dataclass(frozen=True)
class NotANumber:
    """The loss of the n-th batch is not a number, once, as a faulty machine may compute it."""

    number: int

    def __call__(self) -> None:
        import torch

        from pad_cli import equation
        from pad_cli.training import loop

        plain, left = equation.preference_loss, self.number

        def loss(*arguments: Any, **named: Any) -> torch.Tensor:
            nonlocal left
            left -= 1
            found: torch.Tensor = plain(*arguments, **named)
            return found if left else found * torch.nan

        loop.preference_loss = loss
