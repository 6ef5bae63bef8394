"""One iteration of training."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from resnet_det.data.loading.loader import collect_skipped, seed_all
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)


class TrainingFailedError(InputError):
    """A step failed: says in which process, at which iteration and on which images."""


class TrainStep(TrainerBase):
    """Batches, their losses, backward passes and an optimizer step; in mixed precision on any device.

    What is random in a step depends on the seed, the iteration and the process alone. So a resumed run needs no random
    states, and evaluating in between changes nothing.

    Attributes:
        ema: the moving average of the weights, if there is one.
        skipped: images that could not be used, with what was wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        load_batches: Callable[[int], Iterator[list[dict]]],
        optimizer: torch.optim.Optimizer,
        *,
        amp_dtype: torch.dtype | None = None,
        accumulate: int = 1,
        clip_grad_norm: float = 0.0,
        ema_decay: float = 0.0,
        seed: int = 0,
        output_dir: str = "",
    ) -> None:
        """
        Args:
            load_batches: from the first iteration to its batches, ``accumulate`` for each iteration.
            amp_dtype: to compute in where it is safe; None: float32.
            clip_grad_norm: largest global norm of the gradients; 0: any.
            ema_decay: of the moving average (arXiv 1907.08610 has why); 0: none.
            output_dir: where a batch goes on which a step failed.
        """
        super().__init__()
        model.train()
        self.model, self.optimizer = model, optimizer
        self.load_batches = load_batches
        self.amp_dtype, self.accumulate, self.clip_grad_norm = amp_dtype, accumulate, clip_grad_norm
        self.seed, self.output_dir = seed, output_dir
        self.device_type = next(model.parameters()).device.type
        # Only float16 is so narrow that gradients vanish in it.
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=amp_dtype is torch.float16)
        self.ema = None
        if ema_decay:
            self.ema = AveragedModel(_unwrap(model), multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)
        self.skipped: dict[str, str] = {}
        self._batches: Iterator[list[dict]] | None = None

    def run_step(self) -> None:
        """
        Raises:
            TrainingFailedError: a loss is not finite, or anything else goes wrong; the batch is saved to a file.
        """
        if not self.model.training:
            raise RuntimeError("the model was changed to evaluation mode during training")
        if self._batches is None:
            self._batches = iter(self.load_batches(self.iter))
        self.optimizer.zero_grad()
        totals: dict[str, torch.Tensor] = {}
        data_time = 0.0
        for number in range(self.accumulate):
            start = time.perf_counter()
            batch = next(self._batches)
            data_time += time.perf_counter() - start
            self._note_skipped(batch)
            seed_all(self.seed, self.iter, number, comm.get_rank())
            try:
                losses = self._forward_and_backward(batch, is_last=number == self.accumulate - 1)
            except Exception as error:
                raise self._explain_failure(error, batch) from error
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0.0) + loss.detach() / self.accumulate
        self._write_metrics(totals, data_time)
        self._step_optimizer()

    def _forward_and_backward(self, batch: list[dict], *, is_last: bool) -> dict[str, torch.Tensor]:
        is_ddp = isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if is_ddp and not is_last else contextlib.nullcontext():
            with torch.autocast(self.device_type, self.amp_dtype, enabled=self.amp_dtype is not None):
                losses = self.model(batch)
            if isinstance(losses, torch.Tensor):
                losses = {"total_loss": losses}
            total = sum(losses.values()) / self.accumulate
            if not torch.isfinite(total):
                values = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
                raise FloatingPointError(f"the loss is not finite: {values}")
            self.grad_scaler.scale(total).backward()
        return losses

    def _step_optimizer(self) -> None:
        if self.clip_grad_norm:
            self.grad_scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.clip_grad_norm)
            get_event_storage().put_scalar("grad_norm", norm.item())
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(_unwrap(self.model))

    def _note_skipped(self, batch: list[dict]) -> None:
        for name, problem in collect_skipped(batch):
            if name not in self.skipped:
                logger.warning("skipped %s: %s", name, problem)
            self.skipped[name] = problem

    def _explain_failure(self, error: Exception, batch: list[dict]) -> TrainingFailedError:
        path = Path(self.output_dir, f"failed_batch_rank{comm.get_rank()}_iter{self.iter}.pth")
        torch.save(batch, path)
        images = ", ".join(str(sample.get("image_id", sample.get("file_name"))) for sample in batch)
        advice = ""
        if isinstance(error, FloatingPointError):
            advice = " Often the learning rate is too high for the batch size (SOLVER.BASE_LR, REFERENCE_BATCH_SIZE)."
        return TrainingFailedError(
            f"training stopped at iteration {self.iter} in process {comm.get_rank()}, on image ids {images}: "
            f"{type(error).__name__}: {error}.{advice} The batch was saved to {path}"
        )

    def _write_metrics(self, losses: dict[str, torch.Tensor], data_time: float) -> None:
        values = torch.stack([*(loss.float() for loss in losses.values()), torch.tensor(data_time).to(self._device)])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(values)
            values /= comm.get_world_size()
        if not comm.is_main_process():
            return
        *numbers, data_time = values.tolist()
        storage = get_event_storage()
        storage.put_scalar("data_time", data_time)
        storage.put_scalar("total_loss", sum(numbers))
        if len(numbers) > 1:
            storage.put_scalars(**dict(zip(losses, numbers, strict=True)))

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def state_mib(self) -> float:
        """How large a checkpoint gets: weights, the optimizer's averages of their gradients, the moving average."""
        copies = 2 + isinstance(self.optimizer, torch.optim.AdamW) + (self.ema is not None)
        return copies * sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, besides the model."""
        state = {
            **super().state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "seed": self.seed,
            "accumulate": self.accumulate,
            "skipped": self.skipped,
        }
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            InputError: the run had an average of weights and this one has not, or the reverse.
        """
        if (self.ema is not None) != ("ema" in state):
            raise InputError("RESNET_DET.TRAIN.EMA_DECAY: the run that is resumed had it on, or off; leave it so")
        super().load_state_dict(state)
        self.seed, self.skipped = state["seed"], dict(state["skipped"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.grad_scaler.load_state_dict(state["grad_scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self._batches = None


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model
