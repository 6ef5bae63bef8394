"""A run of training that a config describes, whatever is trained."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from resnet_det.engine.hooks import (
    BestWeights,
    CheckpointHook,
    EvaluationHook,
    ProfileHook,
    ProgressHook,
    SignalHook,
    SkippedImagesHook,
    ThroughputHook,
)
from resnet_det.engine.initial_weights import load_initial_weights
from resnet_det.engine.life import TrainingRun
from resnet_det.engine.metrics import PERIOD
from resnet_det.engine.writers import build_writers, shows_progress


class ConfiguredRun(TrainingRun):
    """What follows from a config alone: hooks, writers, MODEL.WEIGHTS, and TEST.EXPECTED_RESULTS."""

    cfg: CfgNode

    def build_hooks(self) -> list[HookBase]:
        """What happens after each iteration, in this order; ``engine/hooks`` has why."""
        cfg, train = self.cfg, self.cfg.RESNET_DET.TRAIN
        images = cfg.SOLVER.IMS_PER_BATCH * train.ACCUMULATE
        self.signals = SignalHook(train.GRACE_SECONDS)
        self.checkpoint_hook = CheckpointHook(cfg.SOLVER.CHECKPOINT_PERIOD, train.KEEP_CHECKPOINTS)
        if train.BEST_METRIC:
            self.best = BestWeights(train.BEST_METRIC, patience=train.EARLY_STOPPING, direction=train.BEST_DIRECTION)
        built: list[HookBase] = [hooks.IterationTimer(), ThroughputHook(images), hooks.LRScheduler()]
        built += [*self.build_hooks_before_checkpoints(), self.checkpoint_hook, self.signals]
        if train.PROFILE and comm.is_main_process():
            built.append(ProfileHook(cfg.OUTPUT_DIR))
        if cfg.DATASETS.TEST:
            built.append(EvaluationHook(cfg.TEST.EVAL_PERIOD, self.evaluate_for_hook, self.best))
        built.append(SkippedImagesHook(cfg.OUTPUT_DIR))
        if comm.is_main_process():
            built.append(hooks.PeriodicWriter(self.build_writers(), period=PERIOD))
            if shows_progress():
                built.append(ProgressHook(images))
        return built

    def build_hooks_before_checkpoints(self) -> list[HookBase]:
        """Hooks that change the model, which a checkpoint then has."""
        return []

    def evaluate_for_hook(self) -> dict[str, Any]:
        """What an evaluation in between gives, for the log and BEST_METRIC."""
        return self.evaluate() or {}

    def build_writers(self) -> list[EventWriter]:
        return build_writers(self.cfg, self.max_iter)

    def load_initial_weights(self) -> None:
        load_initial_weights(self.cfg, self.checkpointer.model)

    def check_results(self, results: dict[str, Any]) -> None:
        verify_results(self.cfg, results)
