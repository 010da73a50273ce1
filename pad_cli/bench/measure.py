"""What is measured and with what: the clock, forward passes, and whether two paths wrote the same."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig

from pad_cli.errors import PadError
from pad_cli.models.dtype import dtype_name
from pad_cli.models.language_model import LanguageModel

Clock = Callable[[], float]

_TOLERANCE = 0.5  # nats by which scores may differ between paths in half precision
_NEAR_TIE = 1e-3  # nats between two tokens that rounding in float32 may decide between


@contextlib.contextmanager
def conditions(policy: LanguageModel, threads: int | None) -> Iterator[None]:
    """Set the number of threads, and have `generate` search greedily to the full length; restore both afterwards."""
    threads_before, configured = torch.get_num_threads(), policy.model.generation_config
    try:
        torch.set_num_threads(threads or threads_before)
        policy.model.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=policy.tokenizer.pad_token_id)
        yield
    finally:
        policy.model.generation_config = configured
        torch.set_num_threads(threads_before)


@contextlib.contextmanager
def count_forwards(*models: LanguageModel) -> Iterator[list[None]]:
    """A list that grows by one with each forward pass of a model's body."""
    passes: list[None] = []
    bodies = {id(model.model.get_decoder()): model.model.get_decoder() for model in models}
    with contextlib.ExitStack() as stack:
        for body in bodies.values():
            hook = body.register_forward_pre_hook(lambda *_: passes.append(None))
            stack.callback(hook.remove)
        yield passes


def _takes_cpu_time(device: torch.device) -> bool:
    return device.type == "cpu" and torch.get_num_threads() == 1


def clock_of(device: torch.device) -> Clock:
    """Seconds: of the process on one CPU thread, which other processes hardly disturb, else of the wall clock."""
    if _takes_cpu_time(device):
        return time.process_time

    def after_the_device() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()

    return after_the_device


def machine(policy: LanguageModel) -> str:
    """For example: AMD EPYC, 2 cores, threads 1 (CPU time), torch 2.13.0, float32."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # Linux alone has it
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        name = match[1].strip() if match else name
    if policy.device.type == "cuda":
        name = f"{torch.cuda.get_device_name(policy.device)}, {name}"
    threads = f"threads {torch.get_num_threads()} ({'CPU' if _takes_cpu_time(policy.device) else 'wall'} time)"
    return f"{name}, {os.cpu_count()} cores, {threads}, torch {torch.__version__}, {dtype_name(policy.dtype)}"


@dataclass(frozen=True)
class Written:
    """What a path wrote: (B, T) tokens, and at each step the two best log-probabilities (B, T, 2), see `top_two`."""

    path: str
    tokens: torch.Tensor
    top: torch.Tensor


def top_two(scores: torch.Tensor, count: int) -> torch.Tensor:
    """(B, C or V) scores up to a constant to (B, 2): the two best log-probabilities among the top N, in nats.

    Where there is one candidate only, the second is minus infinity.
    """
    top = scores.float().topk(min(count, scores.shape[-1]), dim=-1).values.log_softmax(-1)
    return torch.nn.functional.pad(top, (0, 1), value=-torch.inf)[:, :2].cpu()


def check_agreement(first: Written, second: Written, *, exact: bool) -> None:
    """Refuse two paths that wrote different answers (PadError): their times cannot be compared.

    With `exact` tokens are compared, as float32 allows, in each row up to the first near tie, which may fall either
    way. Else near ties are frequent: scores are compared within half a nat, as far as both have read the same.
    """
    same = first.tokens == second.tokens
    alike = torch.cat([torch.ones_like(same[:, :1]), same[:, :-1]], dim=1).cumprod(1).bool()  # have read the same
    if exact:
        gaps = torch.minimum(*(written.top[..., 0] - written.top[..., 1] for written in (first, second)))
        wrong = (alike & ~same & ~(gaps <= _NEAR_TIE)).nonzero().tolist()
        if not wrong:
            return
        problem = f"token {wrong[0][1] + 1} of answer {wrong[0][0] + 1} differs"
    else:
        gap = float(((first.top[..., 0] - second.top[..., 0]).abs() * alike).max())
        if gap <= _TOLERANCE:
            return
        problem = f"scores differ by {gap:.2g} nats"
    raise PadError(
        f"The paths '{first.path}' and '{second.path}' do not agree: {problem}.",
        "Their times cannot be compared. To rule out rounding, use policy.dtype=float32.",
    )
