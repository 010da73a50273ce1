"""Dtypes: which one `dtype: auto` stands for on a device. Imports torch alone, for `pad doctor`."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
_FIRST_MACOS = (14, 0)  # that has bfloat16 on its GPUs


class DtypeChoice(NamedTuple):
    """What `dtype: auto` stands for, and the reason if it is not the checkpoint's own dtype."""

    dtype: torch.dtype
    reason: str = ""


def choose_dtype(own: torch.dtype, device: torch.device) -> DtypeChoice:
    """The checkpoint's own dtype where the device computes fast in it, else a wider one.

    Measured on one thread of an AMD EPYC with AVX-512 BF16, 256 x 576 by 576 x 1536, in GFLOP/s: float32 105, bfloat16
    501, float16 18. Without these instructions (`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`): float32 105,
    bfloat16 20, float16 21.
    """
    if own not in (torch.bfloat16, torch.float16):
        return DtypeChoice(own)
    if device.type == "cpu" and own == torch.float16:
        return DtypeChoice(torch.float32, "float16 is emulated on CPUs")
    if device.type == "cpu" and not _cpu_has_bfloat16():
        return DtypeChoice(torch.float32, "this CPU has no bfloat16 instructions, or is not to use them")
    if device.type != "cpu" and own == torch.bfloat16 and not _gpu_has_bfloat16(device):
        return DtypeChoice(torch.float16, "this GPU has no bfloat16; values above 65504 do not fit into float16")
    return DtypeChoice(own)


def choices() -> dict[str, dict[str, dict[str, str]]]:
    """By device and dtype of a checkpoint: the dtype that is chosen here, and the reason if it is another one."""
    names = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    names += ["mps"] if torch.backends.mps.is_available() else []
    return {
        name: {
            dtype_name(own): {"dtype": dtype_name(choice.dtype), "reason": choice.reason}
            for own in (torch.float32, torch.bfloat16, torch.float16)
            for choice in [choose_dtype(own, torch.device(name))]
        }
        for name in names
    }


def gpus() -> dict[str, str]:
    """What each GPU that torch can use is, by device."""
    cards = {f"cuda:{number}": torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())}
    found = {device: f"{card.name}, {card.total_memory / 1e9:.1f} GB" for device, card in cards.items()}
    return found or ({"mps": "Apple"} if torch.backends.mps.is_available() else {})


def built_for() -> str:
    """What this torch computes on, for example `CUDA 12.8`."""
    version = torch.version.cuda or torch.version.hip
    return f"CUDA {version}" if version else "the CPU alone"


def dtype_name(dtype: torch.dtype) -> str:
    """As recipes write it: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def _cpu_has_bfloat16() -> bool:
    """Does it multiply bfloat16 matrices faster than float32 ones? oneDNN and torch may be held to an older CPU."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    has = torch.cpu.get_capabilities()
    native = has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16")  # the last one: ARM
    if not native or not torch.backends.mkldnn.is_available() or limit.upper() in _WITHOUT_BFLOAT16:
        return False
    return has.get("architecture") != "x86_64" or torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")


def _gpu_has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type != "mps" or bool(torch.backends.mps.is_macos_or_newer(*_FIRST_MACOS))
