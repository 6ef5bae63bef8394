"""Detectron2's DefaultTrainer with our training step, checkpoints, evaluators and results."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
from torch.utils.data import DataLoader

from resnet_det.data.loader import seed_all
from resnet_det.engine.augmented_tests import evaluate_with_augmentation
from resnet_det.engine.checkpoint import Checkpointer
from resnet_det.engine.hooks import (
    BestWeights,
    CheckpointHook,
    EvaluationHook,
    Interrupted,
    PreciseNormsHook,
    ProfileHook,
    ProgressHook,
    SignalHook,
    SkippedImagesHook,
    ThroughputHook,
    validation_losses,
)
from resnet_det.engine.loaders import build_test_loader, build_train_loader, build_validation_loss_loader
from resnet_det.engine.metrics import PERIOD
from resnet_det.engine.model_setup import compile_backbone_, share_among_processes, use_deterministic_algorithms
from resnet_det.engine.moving_average import MovingAverage
from resnet_det.engine.precision import autocast_for_tests, choose_amp_dtype
from resnet_det.engine.resuming import check_fixed_settings, read_fixed_settings, set_schedule_to
from resnet_det.engine.run_folder import read_record, write_record
from resnet_det.engine.solver import build_lr_scheduler, build_optimizer
from resnet_det.engine.step import TrainStep
from resnet_det.engine.weights import load_initial_weights
from resnet_det.engine.writers import build_writers, shows_progress
from resnet_det.evaluation import build_evaluator, write_results

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains what a config describes. Its ``build_*`` class methods can be overridden as DefaultTrainer's can.

    Why not DefaultTrainer alone: it asserts CUDA for mixed precision, fails with several processes on the CPU, and a
    resumed run of it is not the run that was interrupted.

    Attributes:
        finished: whether the run has come to its end.
        is_interrupted: whether it was ended by a signal, before its end.
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        train = cfg.RESNET_DET.TRAIN
        if train.MATMUL_PRECISION:
            torch.set_float32_matmul_precision(train.MATMUL_PRECISION)
        if train.DETERMINISTIC:
            use_deterministic_algorithms()
        model = self.build_model(cfg)
        if train.COMPILE:
            compile_backbone_(model)
        optimizer = self.build_optimizer(cfg, model)
        model = share_among_processes(model)
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
        self.finished = self.is_interrupted = False
        self._last_eval_results: dict[str, Any] | None = None
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
            self.checkpointer.begin()
        else:
            self.start_iter = iteration + 1
            self.checkpoint_hook.saved_iter = iteration
            self.checkpoint_hook.is_final = self.checkpointer.resumed_from == "model_final.pth"

    def train(self) -> OrderedDict[str, Any] | None:
        """Train to SOLVER.MAX_ITER, or until something says stop, and evaluate.

        A run that is resumed after its last iteration does what was left of it.

        Returns:
            The results of the weights that the run ends with, 0 to 100, which are also written to
            OUTPUT_DIR/results.json: of model_best.pth after early stopping, else of model_final.pth or
            model_final_ema.pth. None in other processes than the first, without a test set, or after a signal.

        Raises:
            Interrupted: a signal has ended an evaluation; there is a checkpoint. Only with several processes, which are
                not in step any more.
        """
        if not self.checkpointer.run_id:
            self.checkpointer.begin()
        logger.info("Starting training from iteration %d", self.start_iter)
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage, self._hooks_around():
            self._loop()
        if self.is_interrupted:
            return None
        if self._last_eval_results is None or not comm.is_main_process():
            return None
        write_results(self._last_eval_results, self.cfg.OUTPUT_DIR)
        write_record(self.cfg.OUTPUT_DIR, {**read_record(self.cfg.OUTPUT_DIR), "evaluated": self.evaluated_file.name})
        verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def _loop(self) -> None:
        try:
            self.before_train()
            self.iter = self.start_iter
            while self.iter < self.max_iter and not self._stop_reason:
                self.before_step()
                self.run_step()
                self.after_step()
                self.iter += 1
            self.iter -= 1  # of the last iteration that was made
            if self._stop_reason:
                logger.warning("Training stopped after iteration %d: %s", self.iter, self._stop_reason)
            if not self.is_interrupted:
                self._finish()
            self.iter += 1  # by which Detectron2's hooks tell that training has ended
        except Interrupted:
            self.is_interrupted = True
            logger.warning("A signal to end was received in an evaluation; go on with --resume")
            if comm.get_world_size() > 1:
                raise

    def _finish(self) -> None:
        """What a run has in the end, however it came there: model_final, and results of what it is judged by."""
        if self.iter >= 0:
            self.checkpoint_hook.save_unless_saved(is_final=True)
        if self._evaluates_best:
            logger.info("Evaluating model_best.pth, of iteration %d", self.best.iteration)
            with self.signals.may_interrupt(), weights_of(self.evaluated_model, self.evaluated_file):
                self._evaluate()
                self._evaluate_augmented()
        elif self._last_eval_results is not None:
            with self.signals.may_interrupt():
                self._evaluate_augmented()
        self.finished = True

    @contextmanager
    def _hooks_around(self) -> Iterator[None]:
        """After what is done here, hooks end; an error of theirs does not hide one from before."""
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.storage.iter = self.iter
            for hook in self._begun:
                try:
                    hook.after_train()
                except Exception:
                    if error is None:
                        raise
                    logger.exception("After that error, %s failed, too", type(hook).__name__)

    def before_train(self) -> None:
        self._begun: list[HookBase] = []
        for hook in self._hooks:
            self._begun.append(hook)
            hook.before_train()

    def stop(self, reason: str, *, interrupted: bool = False) -> None:
        """End training after this iteration. To be called in all processes.

        Args:
            interrupted: whether the run is to be resumed, so that nothing is evaluated.
        """
        self._stop_reason = reason
        self.is_interrupted |= interrupted

    @property
    def is_stopped(self) -> bool:
        return bool(self._stop_reason)

    def prepare_to_save(self) -> None:
        """What a checkpoint needs of all processes. In all of them together; then one can save alone."""
        self._trainer.prepare_to_save()

    @property
    def ema(self) -> MovingAverage | None:
        return self._trainer.ema

    @property
    def evaluated_model(self) -> nn.Module:
        """The moving average of the weights if there is one, else the model."""
        return self.checkpointer.model if self.ema is None else self.ema.module

    @property
    def evaluated_file(self) -> Path:
        """The weights that results.json is about."""
        final = "model_final.pth" if self.ema is None else "model_final_ema.pth"
        return Path(self.cfg.OUTPUT_DIR, "model_best.pth" if self._evaluates_best else final)

    @property
    def _evaluates_best(self) -> bool:
        return self.best is not None and self.best.wants_to_stop and self.best.iteration >= 0

    @property
    def skipped(self) -> dict[str, str]:
        return self._trainer.skipped

    @property
    def seed(self) -> int:
        return self._trainer.seed

    @property
    def signalled(self) -> bool:
        return self._trainer.signalled

    @signalled.setter
    def signalled(self, value: bool) -> None:
        self._trainer.signalled = value

    @property
    def stop_agreed(self) -> bool:
        return self._trainer.stop_agreed

    @property
    def device(self) -> torch.device:
        return self._trainer.device

    def build_hooks(self) -> list[HookBase]:
        """What happens after each iteration, in this order; ``engine/hooks`` has why."""
        cfg, train = self.cfg, self.cfg.RESNET_DET.TRAIN
        images = cfg.SOLVER.IMS_PER_BATCH * train.ACCUMULATE
        self.signals = SignalHook(train.GRACE_SECONDS)
        self.checkpoint_hook = CheckpointHook(cfg.SOLVER.CHECKPOINT_PERIOD, train.KEEP_CHECKPOINTS)
        self.best = None
        if train.BEST_METRIC:
            self.best = BestWeights(train.BEST_METRIC, patience=train.EARLY_STOPPING, direction=train.BEST_DIRECTION)
        built: list[HookBase] = [hooks.IterationTimer(), ThroughputHook(images), hooks.LRScheduler()]
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self._trainer.model):
            built.append(
                PreciseNormsHook(
                    cfg.TEST.EVAL_PERIOD,
                    lambda: self.build_train_loader(cfg, seed=self._trainer.seed),
                    cfg.TEST.PRECISE_BN.NUM_ITER,
                )
            )
        built += [self.checkpoint_hook, self.signals]
        if train.PROFILE:
            built.append(ProfileHook(cfg.OUTPUT_DIR))
        if cfg.DATASETS.TEST:
            built.append(EvaluationHook(cfg.TEST.EVAL_PERIOD, self._evaluate_all, self.best))
        built.append(SkippedImagesHook(cfg.OUTPUT_DIR))
        if comm.is_main_process():
            built.append(hooks.PeriodicWriter(self.build_writers(), period=PERIOD))
            if shows_progress():
                built.append(ProgressHook(images))
        return built

    def _evaluate_all(self) -> dict[str, Any]:
        """Results of the evaluated model, and its losses on the test images if the config asks for them."""
        losses = {}
        if self.cfg.RESNET_DET.TEST.VAL_LOSS:
            seed_all(self.seed, self.iter)
            loader = build_validation_loss_loader(self.cfg, self.cfg.DATASETS.TEST[0])
            losses = validation_losses(self.evaluated_model, self.checkpointer.model, loader)
            logger.info("Validation loss at iteration %d: %.4f", self.iter, losses["validation_total_loss"])
        return {**(self._evaluate() or {}), **losses}

    def _evaluate(self) -> OrderedDict[str, Any]:
        with autocast_for_tests(self.cfg, self._trainer.amp_dtype):
            self._last_eval_results = self.test(self.cfg, self.evaluated_model)
        return self._last_eval_results

    def _evaluate_augmented(self) -> None:
        """With TEST.AUG, evaluate with augmentation, too."""
        with autocast_for_tests(self.cfg, self._trainer.amp_dtype):
            found = evaluate_with_augmentation(type(self), self.cfg, self.evaluated_model)
        self._last_eval_results.update(found)

    def build_writers(self) -> list[EventWriter]:
        return build_writers(self.cfg, self.max_iter)

    def state_dict(self) -> dict[str, Any]:
        return {
            **TrainerBase.state_dict(self),
            "_trainer": self._trainer.state_dict(),
            "fixed": read_fixed_settings(self.cfg),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Raises:
            InputError: a key that cannot change on the way has changed.
        """
        check_fixed_settings(self.cfg, state_dict["fixed"])
        of_hooks = dict(state_dict.get("hooks", {}))
        schedule = of_hooks.pop("LRScheduler", {})
        TrainerBase.load_state_dict(self, {**state_dict, "hooks": of_hooks})
        self._trainer.load_state_dict(state_dict["_trainer"])
        set_schedule_to(self.scheduler, state_dict["iteration"] + 1, schedule)

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


@contextmanager
def weights_of(model: nn.Module, path: Path) -> Iterator[None]:
    """Meanwhile, ``model`` has the weights of a checkpoint."""
    before = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
        yield
    finally:
        model.load_state_dict(before)
