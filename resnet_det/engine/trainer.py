"""Detectron2's DefaultTrainer with our training step, checkpoints, evaluators and results."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.engine.train_loop import HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.utils.data import DataLoader

from resnet_det.data.loading.loader import seed_all
from resnet_det.engine.augmented_tests import evaluate_with_augmentation
from resnet_det.engine.configured_run import ConfiguredRun
from resnet_det.engine.hooks import PreciseNormsHook, validation_losses
from resnet_det.engine.loaders import build_test_loader, build_train_loader, build_validation_loss_loader
from resnet_det.engine.model_setup import compile_backbone_, set_up_torch
from resnet_det.engine.precision import autocast_for_tests
from resnet_det.engine.resuming import read_fixed_settings
from resnet_det.engine.slicing import slice_as_configured
from resnet_det.engine.solver import build_lr_scheduler, build_optimizer
from resnet_det.engine.step import TrainStep
from resnet_det.evaluation import build_evaluator, describe_use
from resnet_det.modeling import speed_up_on_cpus_
from resnet_det.modeling.missing_masks import ignore_missing_masks_

logger = logging.getLogger(__name__)


class Trainer(ConfiguredRun, DefaultTrainer):
    """Trains what a config describes. Its ``build_*`` class methods can be overridden as DefaultTrainer's can.

    Why not DefaultTrainer alone: it asserts CUDA for mixed precision, fails with several processes on the CPU, and a
    resumed run of it is not the run that was interrupted.
    """

    def __init__(self, cfg: CfgNode) -> None:
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        train = cfg.RESNET_DET.TRAIN
        set_up_torch(cfg)
        model = self.build_model(cfg)
        ignore_missing_masks_(model)
        if train.COMPILE:
            compile_backbone_(model)
        optimizer = self.build_optimizer(cfg, model)
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        step = TrainStep.from_cfg(
            cfg,
            model,
            lambda start_iter: self.build_train_loader(cfg, seed=self.seed, start_step=start_iter),
            optimizer,
            seed=seed,
        )
        scheduler = self.build_lr_scheduler(cfg, optimizer)
        super().__init__(step, scheduler, cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER, fixed_settings=read_fixed_settings(cfg))
        self.register_hooks(self.build_hooks())

    def describe_data(self) -> dict[str, Any]:
        return describe_use(self.cfg.DATASETS.TRAIN, self.cfg.DATASETS.TEST)

    def build_hooks_before_checkpoints(self) -> list[HookBase]:
        cfg = self.cfg
        if not (cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self._trainer.model)):
            return []
        return [
            PreciseNormsHook(
                cfg.TEST.EVAL_PERIOD,
                lambda: self.build_train_loader(cfg, seed=self._trainer.seed),
                cfg.TEST.PRECISE_BN.NUM_ITER,
            )
        ]

    def evaluate_for_hook(self) -> dict[str, Any]:
        """Results of the evaluated model, and its losses on the test images if the config asks for them."""
        losses = {}
        if self.cfg.RESNET_DET.TEST.VAL_LOSS:
            seed_all(self.seed, self.iter)
            loader = build_validation_loss_loader(self.cfg, self.cfg.DATASETS.TEST[0])
            with autocast_for_tests(self.cfg, self._trainer.amp_dtype):
                losses = validation_losses(self.evaluated_model, self.checkpointer.model, loader)
            logger.info("Validation loss at iteration %d: %.4f", self.iter, losses["validation_total_loss"])
        return {**(self.evaluate() or {}), **losses}

    def evaluate(self) -> OrderedDict[str, Any]:
        with autocast_for_tests(self.cfg, self._trainer.amp_dtype):
            self._last_eval_results = self.test(self.cfg, self.evaluated_model)
        return self._last_eval_results

    def evaluate_at_the_end(self) -> None:
        """With TEST.AUG, evaluate with augmentation, too."""
        with autocast_for_tests(self.cfg, self._trainer.amp_dtype):
            found = evaluate_with_augmentation(type(self), self.cfg, self.evaluated_model)
        self._last_eval_results.update(found)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Detectron2's, made faster on CPUs."""
        model = super().build_model(cfg)
        speed_up_on_cpus_(model)
        return model

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
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: Sequence[DatasetEvaluator] | None = None
    ) -> OrderedDict[str, Any]:
        """DefaultTrainer's; with RESNET_DET.TEST.SLICE large images go through the model in slices."""
        return super().test(cfg, slice_as_configured(cfg, model), evaluators)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name, output_folder)
