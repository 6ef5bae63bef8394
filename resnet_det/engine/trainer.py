"""Detectron2's DefaultTrainer with our training step, checkpoints, evaluators and results."""

from __future__ import annotations

import logging
import shutil
import weakref
from collections import OrderedDict
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, hooks
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from resnet_det.engine.checkpoint import Checkpointer
from resnet_det.engine.hooks import (
    CheckpointHook,
    EvaluationHook,
    ProgressHook,
    SignalHook,
    SkippedImagesHook,
    ValidationLossHook,
)
from resnet_det.engine.loaders import build_test_loader, build_train_loader, build_validation_loss_loader
from resnet_det.engine.precision import choose_amp_dtype
from resnet_det.engine.solver import build_lr_scheduler, build_optimizer
from resnet_det.engine.step import TrainStep
from resnet_det.engine.weights import load_initial_weights
from resnet_det.engine.writers import build_writers, shows_progress
from resnet_det.errors import InputError
from resnet_det.evaluation import build_evaluator, write_results
from resnet_det.modeling.missing_masks import ignore_missing_masks_

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains what a config describes. Its ``build_*`` class methods can be overridden as DefaultTrainer's can.

    Why not DefaultTrainer alone: it asserts CUDA for mixed precision, fails with several processes on the CPU, and a
    resumed run of it is not the run that was interrupted.
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        train = cfg.RESNET_DET.TRAIN
        if train.DETERMINISTIC:
            use_deterministic_algorithms()
        model = self.build_model(cfg)
        ignore_missing_masks_(model)
        if train.COMPILE:
            compile_backbone_(model)
        optimizer = self.build_optimizer(cfg, model)
        if comm.get_world_size() > 1:
            device_ids = [comm.get_local_rank()] if cfg.MODEL.DEVICE.startswith("cuda") else None
            model = DistributedDataParallel(model, device_ids=device_ids, forward_sync_buffers=False)
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self._trainer = TrainStep(
            model,
            lambda start_iter: self.build_train_loader(cfg, seed=self._trainer.seed, start_step=start_iter),
            optimizer,
            amp_dtype=choose_amp_dtype(cfg),
            accumulate=train.ACCUMULATE,
            clip_grad_norm=train.CLIP_GRAD_NORM,
            ema_decay=train.EMA_DECAY,
            seed=seed,
            output_dir=cfg.OUTPUT_DIR,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        if comm.is_main_process():
            self.checkpointer.check_space(self._trainer.state_mib())
        self._stop_reason = ""
        self.finished = False
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """With ``resume``, go on from the last checkpoint in OUTPUT_DIR; else, or without one, load MODEL.WEIGHTS.

        Raises:
            InputError: no checkpoint can be read, it was made with another Detectron2, or MODEL.WEIGHTS do not fit.
        """
        iteration = self.checkpointer.resume_last() if resume else None
        if iteration is None:
            load_initial_weights(self.cfg, self.checkpointer.model)
            if self.ema is not None:
                self.ema.module.load_state_dict(self.checkpointer.model.state_dict())
        else:
            self.start_iter = iteration + 1

    def train(self) -> OrderedDict[str, Any] | None:
        """Train to SOLVER.MAX_ITER, or until something says stop, and evaluate.

        Returns:
            The results of the last evaluation, 0 to 100, which are also written to OUTPUT_DIR/results.json; None in
            other processes than the first, or if there was none.
        """
        logger.info("Starting training from iteration %d", self.start_iter)
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < self.max_iter and not self._stop_reason:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
                self.finished = True
            finally:
                self.after_train()
        if self._stop_reason:
            logger.warning("Training stopped after iteration %d: %s", self.iter - 1, self._stop_reason)
        results = getattr(self, "_last_eval_results", None)
        if results is not None and comm.is_main_process():
            write_results(results, self.cfg.OUTPUT_DIR)
            verify_results(self.cfg, results)
            return results
        return None

    def stop(self, reason: str) -> None:
        """End training after this iteration. To be called in all processes."""
        self._stop_reason = reason

    @property
    def ema(self) -> nn.Module | None:
        return self._trainer.ema

    @property
    def evaluated_model(self) -> nn.Module:
        """The moving average of the weights if there is one, else the model."""
        return self.checkpointer.model if self.ema is None else self.ema.module

    @property
    def skipped(self) -> dict[str, str]:
        return self._trainer.skipped

    @property
    def device(self) -> torch.device:
        return next(self._trainer.model.parameters()).device

    def build_hooks(self) -> list[HookBase]:
        """Timing, learning rate, precise BN, evaluation, checkpoints, signals, and what is shown of it."""
        cfg, train = self.cfg, self.cfg.RESNET_DET.TRAIN
        period = cfg.TEST.EVAL_PERIOD
        built: list[HookBase] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self._trainer.model):
            loader = self.build_train_loader(cfg, seed=self._trainer.seed)
            built.append(hooks.PreciseBN(period, self._trainer.model, loader, cfg.TEST.PRECISE_BN.NUM_ITER))
        if cfg.RESNET_DET.TEST.VAL_LOSS and cfg.DATASETS.TEST:
            name = cfg.DATASETS.TEST[0]
            built.append(ValidationLossHook(period, lambda: build_validation_loss_loader(cfg, name)))
        if cfg.DATASETS.TEST:
            built.append(
                EvaluationHook(period, self._evaluate, best_metric=train.BEST_METRIC, patience=train.EARLY_STOPPING)
            )
        self.checkpoint_hook = CheckpointHook(cfg.SOLVER.CHECKPOINT_PERIOD, train.KEEP_CHECKPOINTS)
        built += [self.checkpoint_hook, SignalHook(), SkippedImagesHook(cfg.OUTPUT_DIR)]
        if comm.is_main_process():
            built.append(hooks.PeriodicWriter(self.build_writers(), period=20))
            if shows_progress():
                built.append(ProgressHook(cfg.SOLVER.IMS_PER_BATCH * train.ACCUMULATE))
        return built

    def _evaluate(self) -> OrderedDict[str, Any]:
        self._last_eval_results = self.test(self.cfg, self.evaluated_model)
        return self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        return build_writers(self.cfg, self.max_iter)

    def state_dict(self) -> dict[str, Any]:
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, *, seed: int = 0, start_step: int = 0) -> DataLoader:
        return build_train_loader(cfg, seed=seed, start_step=start_step)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name, output_folder)


def use_deterministic_algorithms() -> None:
    """Let the same run give the same numbers on a GPU too, at some cost; operators without such a form warn."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def compile_backbone_(model: nn.Module) -> None:
    """Compile the backbone, for images of any size. State names stay as they are.

    Raises:
        InputError: there is no C++ compiler, which compiling for the CPU needs.
    """
    if next(model.parameters()).device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        raise InputError("RESNET_DET.TRAIN.COMPILE on the CPU needs a C++ compiler (g++), and there is none")
    model.backbone.compile(dynamic=True)
