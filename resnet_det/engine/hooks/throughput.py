"""How fast a run is, and how much memory it takes."""

from __future__ import annotations

import resource
import time

import torch
from detectron2.engine import HookBase

MIB = 2**20


class ThroughputHook(HookBase):
    """Writes images_per_second, of iterations alone, and memory_mib: the most that was in use so far."""

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step

    def before_step(self) -> None:
        self._start = time.perf_counter()

    def after_step(self) -> None:
        seconds = time.perf_counter() - self._start
        self.trainer.storage.put_scalars(
            images_per_second=self.images_per_step / seconds, memory_mib=memory_mib(self.trainer.device)
        )


def memory_mib(device: torch.device) -> float:
    """The most memory that was in use so far: of the GPU that the model is on, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
