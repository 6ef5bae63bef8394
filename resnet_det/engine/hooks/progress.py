"""The progress line."""

from __future__ import annotations

import math
import sys

import tqdm
from detectron2.engine import HookBase

from resnet_det.engine.hooks.throughput import memory_mib


class ProgressHook(HookBase):
    """A line on the terminal that moves: iterations, time left, losses, images per second, memory."""

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step

    def before_train(self) -> None:
        self.bar = tqdm.tqdm(
            total=self.trainer.max_iter, initial=self.trainer.start_iter, unit="it", desc="train", file=sys.stderr
        )

    def after_step(self) -> None:
        self.bar.update(1)
        if self.trainer.iter % 10 == 0:
            latest = {name: value for name, (value, _) in self.trainer.storage.latest().items()}
            speed = self.bar.format_dict["rate"]
            self.bar.set_postfix_str(
                f"loss {latest.get('total_loss', math.nan):.3f}, {(speed or 0) * self.images_per_step:.1f} img/s, "
                f"data {latest.get('data_time', math.nan) * 1e3:.0f} ms, {memory_mib(self.trainer.device):.0f} MiB"
            )

    def after_train(self) -> None:
        self.bar.close()
