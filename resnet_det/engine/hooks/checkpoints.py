"""When checkpoints are written, and how many stay."""

from __future__ import annotations

from detectron2.engine import HookBase

from resnet_det.engine.hooks.periods import is_due


class CheckpointHook(HookBase):
    """Saves every ``period`` iterations and at the end, and keeps the newest ``keep`` (0: all).

    Attributes:
        saved_iter: the iteration of the last checkpoint that was written here, or resumed from.
    """

    def __init__(self, period: int, keep: int) -> None:
        self.period, self.keep = period, keep
        self.saved_iter, self.is_final = -1, False

    def after_step(self) -> None:
        if is_due(self.trainer.iter, self.period, self.trainer.max_iter):
            self.save(is_final=self.trainer.iter + 1 >= self.trainer.max_iter)

    def save(self, *, is_final: bool = False) -> None:
        """Write a checkpoint of this moment. In all processes together."""
        self.trainer.prepare_to_save()
        self.write(is_final=is_final)

    def write(self, *, is_final: bool = False) -> None:
        """Write it, of what ``prepare_to_save`` has collected; asks no other process for anything."""
        checkpointer = self.trainer.checkpointer
        if is_final and self.trainer.ema is not None:  # first, so that a run that has a model_final has both
            checkpointer.save_weights("model_final_ema", self.trainer.ema.module)
        name = "model_final" if is_final else f"model_{self.trainer.iter:07d}"
        checkpointer.save(name, iteration=self.trainer.iter)
        self.saved_iter, self.is_final = self.trainer.iter, is_final
        checkpointer.keep_last(self.keep)

    def save_unless_saved(self, *, is_final: bool = False) -> None:
        """Write a checkpoint of this moment if there is none. In all processes together."""
        if self.saved_iter != self.trainer.iter or (is_final and not self.is_final):
            self.save(is_final=is_final)
