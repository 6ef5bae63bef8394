"""One iteration of training."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from resnet_det.data.loading.bad_images import collect_skipped
from resnet_det.data.loading.loader import seed_all
from resnet_det.engine.failures import StepRecord, TrainingFailedError, add_context, explain_failure, make_failure
from resnet_det.engine.kept_numbers import average_numbers, find_changes, read_numbers, write_numbers
from resnet_det.engine.metrics import MetricLog
from resnet_det.engine.model_setup import share_among_processes, share_statistics
from resnet_det.engine.moving_average import MovingAverage
from resnet_det.engine.precision import choose_amp_dtype
from resnet_det.engine.updates import apply_step, clip_and_measure, load_optimizer_state
from resnet_det.errors import InputError

__all__ = ["TrainStep", "TrainingFailedError"]

logger = logging.getLogger(__name__)

MAX_SKIPPED_STEPS = 30  # of float16 in a row: by then the scale has gone from 65536 to nothing


class TrainStep(TrainerBase):
    """Batches, their losses, backward passes and an optimizer step; in mixed precision on any device.

    What is random in a step depends on the seed, the iteration and the process alone. So a resumed run needs no random
    states, and evaluating in between changes nothing.

    A step whose losses or gradients are not finite changes no weights. On a GPU that is read one step later, so that
    the CPU need not wait; :meth:`settle` reads it now.

    Attributes:
        ema: the moving average of the weights, if there is one.
        skipped: images that could not be used, with what was wrong: those of this process, and since the last
            ``prepare_to_save`` those of all.
        signalled: whether this process has been asked to stop; set from outside.
        stop_agreed: whether any process was, as all know after the same step.
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
            ema_decay: of the moving average; 0: none.
            output_dir: where a batch goes on which a step failed.
        """
        super().__init__()
        model.train()
        self.model, self.optimizer = model, optimizer
        self.load_batches = load_batches
        self.amp_dtype, self.accumulate, self.clip_grad_norm = amp_dtype, accumulate, clip_grad_norm
        self.seed, self.output_dir = seed, output_dir
        self.device = next(model.parameters()).device
        # Only float16 is so narrow that gradients vanish in it.
        self.grad_scaler = torch.amp.GradScaler(self.device.type, enabled=amp_dtype is torch.float16)
        self.ema = MovingAverage(unwrap(model), ema_decay) if ema_decay else None
        self.skipped: dict[str, str] = {}
        self.signalled = self.stop_agreed = False
        self.metrics = MetricLog(self.device)
        self._batches: Iterator[list[dict]] | None = None
        self._first_numbers = read_numbers(unwrap(model))
        self._numbers_of_all: list[Any] | None = None
        self._unread: StepRecord | None = None
        self._skipped_steps = 0

    @classmethod
    def from_cfg(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        load_batches: Callable[[int], Iterator[list[dict]]],
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
    ) -> TrainStep:
        """With RESNET_DET.TRAIN and OUTPUT_DIR of ``cfg``; ``model`` is shared among the processes."""
        train = cfg.RESNET_DET.TRAIN
        return cls(
            share_among_processes(model),
            load_batches,
            optimizer,
            amp_dtype=choose_amp_dtype(cfg),
            accumulate=train.ACCUMULATE,
            clip_grad_norm=train.CLIP_GRAD_NORM,
            ema_decay=train.EMA_DECAY,
            seed=seed,
            output_dir=cfg.OUTPUT_DIR,
        )

    def run_step(self) -> None:
        """
        Raises:
            TrainingFailedError: a loss or gradient is not finite; the batch is saved to a file.
        """
        if not self.model.training:
            raise RuntimeError("the model was changed to evaluation mode during training")
        if self._batches is None:
            self._batches = iter(self.load_batches(self.iter))
        self._numbers_of_all = None
        self.optimizer.zero_grad()
        record, data_time = self._accumulate_gradients()
        norm = clip_and_measure(self.optimizer, self.grad_scaler, self.clip_grad_norm)
        record.set_flags(norm, self.signalled)
        apply_step(self.optimizer, self.grad_scaler, record.is_bad)
        if self.ema is not None:
            self.ema.update(unwrap(self.model))
        self.metrics.add(self.iter, {**record.mean_losses(), "grad_norm": norm}, data_time)
        previous, self._unread = self._unread, record
        if self.device.type != "cuda":
            self.settle()
        elif previous is not None:
            self._judge(previous)
        self.metrics.flush_if_due(self.iter)

    def let_go_of_data(self) -> None:
        """End the workers that read batches; another step would start them anew.

        Why: what is collected as garbage later, as part of a cycle, waits five seconds for each worker (torch 2.14: the
        queues are closed before the workers are told to end).
        """
        self._batches = None

    def _accumulate_gradients(self) -> tuple[StepRecord, float]:
        """Forward and backward passes of one step, and the seconds that were spent waiting for data."""
        record, data_time = StepRecord(self.iter, self.device), 0.0
        model = unwrap(self.model)
        # Each pass starts from the same numbers, and their mean stays: as one pass over all images would have it.
        before = read_numbers(model) if self.accumulate > 1 else None
        after = []
        for number in range(self.accumulate):
            start = time.perf_counter()
            batch = self._next_batch()
            data_time += time.perf_counter() - start
            seed_all(self.seed, self.iter, number, comm.get_rank())
            if before is not None:
                write_numbers(model, before)
            try:
                losses = self._forward_and_backward(batch, is_last=number == self.accumulate - 1)
            except FloatingPointError as error:  # Detectron2's own, of boxes that are not finite
                raise make_failure(self.iter, batch, str(error), self.output_dir) from error
            except Exception as error:
                add_context(error, self.iter, batch, self.output_dir)
                raise
            record.add(batch, losses)
            if before is not None:
                after.append(read_numbers(model))
        if after:
            write_numbers(model, average_numbers(after))
        return record, data_time

    def _next_batch(self) -> list[dict]:
        try:
            batch = next(self._batches)
            notes = collect_skipped(batch)
        except InputError:
            raise
        except Exception as error:  # of a mapper
            add_context(error, self.iter, [], self.output_dir)
            raise
        for name, problem in notes:
            if name not in self.skipped:
                logger.warning("skipped %s: %s", name, problem)
            self.skipped[name] = problem
        return batch

    def _forward_and_backward(self, batch: list[dict], *, is_last: bool) -> dict[str, torch.Tensor]:
        is_ddp = isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if is_ddp and not is_last else contextlib.nullcontext():
            # TorchScript (RetinaNet's focal loss) optimises itself in its first calls, and computes later ones
            # otherwise: a run that is resumed would not have the gradients of one that goes on.
            with (
                torch.jit.optimized_execution(False),
                torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None),
            ):
                losses = self.model(send_images(batch, self.device))
            if isinstance(losses, torch.Tensor):
                losses = {"total_loss": losses}
            total = sum(losses.values()) / self.accumulate
            self.grad_scaler.scale(total).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def settle(self) -> None:
        """Wait for the last step, and write its numbers. In all processes together.

        Raises:
            TrainingFailedError: a loss or gradient of it was not finite.
        """
        record, self._unread = self._unread, None
        if record is not None:
            self._judge(record)
        self.metrics.flush()

    def _judge(self, record: StepRecord) -> None:
        bad_loss, bad_gradient, stop = record.read_flags()
        self.stop_agreed |= stop
        if bad_gradient and not bad_loss and self.grad_scaler.is_enabled():
            self._skipped_steps += 1  # the scaler has left the weights as they were, and scales by less
            if self._skipped_steps <= MAX_SKIPPED_STEPS:
                return
        elif not (bad_loss or bad_gradient):
            self._skipped_steps = 0
            return
        raise explain_failure(record, self._skipped_steps, self.output_dir)

    def prepare_to_save(self) -> None:
        """What a checkpoint needs of all processes. In all of them together; then one can save alone."""
        self.settle()
        share_statistics([unwrap(self.model), *([] if self.ema is None else [self.ema.module])])
        self._numbers_of_all = comm.all_gather(self._changed_numbers())
        for skipped in comm.all_gather(self.skipped):
            self.skipped |= skipped

    def _changed_numbers(self) -> dict[str, Any]:
        changes = find_changes(self._first_numbers, read_numbers(unwrap(self.model)))
        return {f"{name}:{key}": value for (name, key), value in changes.items()}

    def state_mib(self) -> float:
        """How large a checkpoint gets: weights, the optimizer's averages of their gradients, the moving average."""
        copies = 2 + (not isinstance(self.optimizer, torch.optim.SGD)) + (self.ema is not None)
        return copies * sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, besides the model."""
        state = {
            **super().state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "seed": self.seed,
            "skipped": self.skipped,
            "skipped_steps": self._skipped_steps,
            "numbers": self._numbers_of_all or [self._changed_numbers()],
        }
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            InputError: the run had an average of weights and this one has not, or the reverse; or its optimizer had
                other parameters.
        """
        if (self.ema is not None) != ("ema" in state):
            was, now = ("on", "off") if "ema" in state else ("off", "on")
            raise InputError(f"--resume: the run had its moving average (EMA_DECAY) {was}, and now it is {now}")
        super().load_state_dict(state)
        self.seed, self._skipped_steps = state["seed"], state["skipped_steps"]
        self.skipped |= state["skipped"]  # what was found before, as the images were loaded, stays
        load_optimizer_state(self.optimizer, state["optimizer"])
        if self.grad_scaler.is_enabled() and state["grad_scaler"]:  # float32 has none
            self.grad_scaler.load_state_dict(state["grad_scaler"])
        of_all = [{tuple(place.rsplit(":", 1)): value for place, value in one.items()} for one in state["numbers"]]
        mine = of_all[comm.get_rank()] if len(of_all) == comm.get_world_size() else average_numbers(of_all)
        write_numbers(unwrap(self.model), self._first_numbers | mine)
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self._batches = self._numbers_of_all = None


def send_images(batch: list[dict], device: torch.device) -> list[dict]:
    """The batch with its images on ``device``, ahead of the model. From pinned memory they get there while the CPU goes
    on, which Detectron2's own copy, finding them there, would wait for."""
    if device.type == "cpu":
        return batch
    return [
        {**entry, "image": entry["image"].to(device, non_blocking=True)}
        if isinstance(entry, dict) and isinstance(entry.get("image"), torch.Tensor)
        else entry
        for entry in batch
    ]


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, without what shares it among processes."""
    return model.module if isinstance(model, DistributedDataParallel) else model
