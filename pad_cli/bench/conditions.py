"""What is measured with: threads, the clock, forward passes, and a line that names the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig

from pad_cli.models.dtype import dtype_name
from pad_cli.models.language_model import LanguageModel

Clock = Callable[[], float]


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
    seen: list[None] = []
    bodies = {id(model.model.get_decoder()): model.model.get_decoder() for model in models}
    hooks = [body.register_forward_pre_hook(lambda *_: seen.append(None)) for body in bodies.values()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def clock_of(device: torch.device) -> Clock:
    """Seconds: of the process on one CPU thread, which other processes hardly disturb, else of the wall clock."""
    if _takes_cpu_time(device):
        return time.process_time

    def after_the_device() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()

    return after_the_device


def _takes_cpu_time(device: torch.device) -> bool:
    return device.type == "cpu" and torch.get_num_threads() == 1


def dtype_of(model: LanguageModel) -> str:
    """The dtype of its weights, as recipes write it."""
    return dtype_name(model.dtype)


def machine(policy: LanguageModel) -> str:
    """For example: AMD EPYC, 2 cores, threads 1 (CPU time), torch 2.13.0, float32."""
    name, cores = platform.processor() or platform.machine(), os.cpu_count()
    with contextlib.suppress(OSError):  # Linux alone has it
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        name = found[1].strip() if found else name
    if policy.device.type == "cuda":
        name = f"{torch.cuda.get_device_name(policy.device)}, {name}"
    time_kind = "CPU time" if _takes_cpu_time(policy.device) else "wall time"
    threads = f"threads {torch.get_num_threads()} ({time_kind})"
    return f"{name}, {cores} cores, {threads}, torch {torch.__version__}, {dtype_of(policy)}"
