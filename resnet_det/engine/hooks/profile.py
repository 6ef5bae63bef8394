"""A trace of some iterations."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from detectron2.engine import HookBase
from torch.profiler import ProfilerActivity, profile

logger = logging.getLogger(__name__)

FIRST, COUNT = 5, 5  # iterations of this start of the run; the first ones are not like the others


class ProfileHook(HookBase):
    """Writes what the CPU and the GPU do in a few iterations to OUTPUT_DIR, for https://ui.perfetto.dev."""

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir
        self._profile: profile | None = None

    def before_step(self) -> None:
        if self.trainer.iter != self.trainer.start_iter + min(
            FIRST, self.trainer.max_iter - self.trainer.start_iter - 1
        ):
            return
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        self._begin = self.trainer.iter
        self._profile = profile(activities=activities, record_shapes=True)
        self._profile.__enter__()

    def after_step(self) -> None:
        if self._profile is not None and self.trainer.iter + 1 >= self._begin + COUNT:
            self._write()

    def after_train(self) -> None:
        if self._profile is not None:
            self._write()

    def _write(self) -> None:
        trace, self._profile = self._profile, None
        trace.__exit__(None, None, None)
        path = Path(self.output_dir, f"profile_{self._begin:07d}.json")
        trace.export_chrome_trace(str(path))
        logger.info(
            "Trace of iterations %d to %d: %s, for https://ui.perfetto.dev", self._begin, self.trainer.iter, path
        )
