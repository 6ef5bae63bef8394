"""How much memory a function's tensors take at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def measure_peak_memory(run: Callable[[], Any], device: str = "cpu") -> int:
    """The most bytes that tensors allocated during ``run()`` take at once, beyond what was allocated before.

    On the CPU torch's profiler tells each allocation, so that the number is the same each time; what libraries
    allocate for themselves (oneDNN's scratch space) is not in it. On CUDA it is the allocator's own count.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak
