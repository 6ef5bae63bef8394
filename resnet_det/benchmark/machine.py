"""The machine that measures, and the most it can do."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import torch


def describe_machine(device: str = "cpu") -> dict[str, str | int]:
    """The processor, its cores, and the versions that matter."""
    described: dict[str, str | int] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.startswith("cuda"):
        described["gpu"] = torch.cuda.get_device_name(device)
    return described


def _processor() -> str:
    """As Linux names it, with the instructions that decide how fast matrices are multiplied."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in path.read_text().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    extensions = [name for name in ("avx2", "avx512f", "amx_bf16") if name in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", platform.machine()), *extensions])


MAX_PRODUCT_S = 0.2  # of one product; where a precision is emulated, that of large matrices takes minutes


def measure_matmul_flops(dtype: torch.dtype, device: str = "cpu", *, size: int = 2048, repeats: int = 7) -> float:
    """Floating point operations a second in the product of two square matrices: the best of ``repeats``.

    The best, as it stands for what the machine can do. A multiplication and an addition are two operations.
    """
    small = min(size, 256)
    small_s = min(_time_products(dtype, device, small, 2))
    while size > small and small_s * (size / small) ** 3 > MAX_PRODUCT_S:
        size //= 2
    return 2 * size**3 / min(_time_products(dtype, device, size, repeats))


def _time_products(dtype: torch.dtype, device: str, size: int, repeats: int) -> list[float]:
    """Seconds of each of ``repeats`` products, after one that does not count."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ b
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]
