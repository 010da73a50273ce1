"""How fast devices compute: this machine's, measured, and GPUs for comparison, from their makers' data sheets."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

_UTILISATION = 0.4


@dataclass(frozen=True)
class Device:
    """What computes.

    Attributes:
        name: as people call it.
        rate: operations per second that training reaches.
        bandwidth: bytes per second between its memory and its cores.
        memory: bytes; None when it does not matter here.
    """

    name: str
    rate: float
    bandwidth: float
    memory: float | None = None


GPUS = tuple(
    Device(name, _UTILISATION * peak * 1e12, bandwidth * 1e9, memory * 1e9)
    for name, peak, bandwidth, memory in (
        ("RTX 4090 24 GB", 165.2, 1008, 24),
        ("A100 80 GB", 312, 2039, 80),
        ("H100 SXM 80 GB", 989.4, 3352, 80),
    )
)
"""Dense bfloat16 tensor peaks and bandwidths as NVIDIA publishes them (Ada architecture white paper; data sheets of the
A100 80GB SXM and H100 SXM); 0.4 of a peak is taken as reached (PaLM's training reports 0.46, arXiv 2204.02311)."""


def measure_machine() -> tuple[Device, Device]:
    """This machine's fastest device and its CPU: a matrix product and a copy, about a second each."""
    cpu = _measure("this machine's CPU", torch.device("cpu"), torch.float32, size=1536, numbers=2**25)
    if not torch.cuda.is_available():
        return cpu, cpu
    properties = torch.cuda.get_device_properties(0)
    gpu = _measure(f"this {properties.name}", torch.device("cuda"), torch.bfloat16, size=8192, numbers=2**28)
    return Device(gpu.name, _UTILISATION * gpu.rate, gpu.bandwidth, float(properties.total_memory)), cpu


def _measure(name: str, device: torch.device, dtype: torch.dtype, size: int, numbers: int) -> Device:
    left = torch.ones(size, size, device=device, dtype=dtype)
    source, target = (torch.ones(numbers, device=device) for _ in range(2))
    product = _fastest(lambda: left @ left, device)
    copy = _fastest(lambda: target.copy_(source), device)
    return Device(name, 2 * size**3 / product, 2 * 4 * numbers / copy)


def _fastest(work: Any, device: torch.device) -> float:
    """Seconds of one call, the shortest of those that one second allows."""
    shortest, end = math.inf, time.perf_counter() + 1
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
