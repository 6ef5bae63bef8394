"""Detectron2's DefaultTrainer with our training step, evaluators and results."""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, SimpleTrainer
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from resnet_det.engine.precision import choose_amp_dtype
from resnet_det.engine.solver import build_optimizer
from resnet_det.engine.weights import load_initial_weights
from resnet_det.evaluation import build_evaluator, write_results


class TrainStep(SimpleTrainer):
    """One iteration: a batch, its losses, a backward pass and an optimizer step; in mixed precision on any device."""

    def __init__(
        self, model: nn.Module, data_loader: Any, optimizer: torch.optim.Optimizer, amp_dtype: torch.dtype | None
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.amp_dtype = amp_dtype
        self.device_type = next(model.parameters()).device.type
        # Only float16 is so narrow that gradients vanish in it.
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=amp_dtype is torch.float16)

    def run_step(self) -> None:
        if not self.model.training:
            raise RuntimeError("the model was changed to evaluation mode during training")
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast(self.device_type, self.amp_dtype, enabled=self.amp_dtype is not None):
            losses = self.model(data)
        if isinstance(losses, torch.Tensor):
            losses = {"total_loss": losses}
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self._write_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


class Trainer(DefaultTrainer):
    """Trains what a config describes. Its ``build_*`` class methods can be overridden as DefaultTrainer's can.

    Why not DefaultTrainer alone: it asserts CUDA for mixed precision and fails with several processes on the CPU.
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        if comm.get_world_size() > 1:
            device_ids = [comm.get_local_rank()] if cfg.MODEL.DEVICE.startswith("cuda") else None
            model = DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)
        self._trainer = TrainStep(model, data_loader, optimizer, choose_amp_dtype(cfg))
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """With ``resume``, go on from the last checkpoint in OUTPUT_DIR; else, or without one, load MODEL.WEIGHTS.

        Raises:
            InputError: MODEL.WEIGHTS do not fit the backbone.
        """
        if resume and self.checkpointer.has_checkpoint():
            super().resume_or_load(resume=True)
        else:
            load_initial_weights(self.cfg, self.checkpointer.model)

    def train(self) -> OrderedDict[str, Any] | None:
        """Train to SOLVER.MAX_ITER and evaluate.

        Returns:
            The results of the last evaluation, 0 to 100, which are also written to OUTPUT_DIR/results.json; None in
            other processes than the first.
        """
        TrainerBase.train(self, self.start_iter, self.max_iter)
        results = getattr(self, "_last_eval_results", None)
        if results is not None and comm.is_main_process():
            write_results(results, self.cfg.OUTPUT_DIR)
            verify_results(self.cfg, results)
            return results
        return None

    def state_dict(self) -> dict[str, Any]:
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name, output_folder)
