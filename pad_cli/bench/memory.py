"""Peak memory between two moments: of tensors on CUDA, of the whole process elsewhere."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see proc(5)


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak, where that can be done: on CUDA, and on Linux. What is free goes back to the system first."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # Linux alone has it
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors since the reset on CUDA; of the whole process since the reset on Linux, elsewhere ever."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        if found := re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(encoding="utf-8"), re.MULTILINE):
            return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
