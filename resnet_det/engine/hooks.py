"""What happens between iterations: checkpoints, evaluation, stopping, and the progress line."""

from __future__ import annotations

import json
import logging
import math
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import tqdm
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)

MIB = 2**20


class CheckpointHook(HookBase):
    """Saves every ``period`` iterations and at the end, and keeps the newest ``keep`` (0: all)."""

    def __init__(self, period: int, keep: int) -> None:
        self.period, self.keep = period, keep

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        is_last = done >= self.trainer.max_iter
        if (self.period > 0 and done % self.period == 0) or is_last:
            self.save(is_final=is_last)

    def save(self, *, is_final: bool = False) -> None:
        """Write a checkpoint of this moment."""
        checkpointer = self.trainer.checkpointer
        checkpointer.save("model_final" if is_final else f"model_{self.trainer.iter:07d}", iteration=self.trainer.iter)
        checkpointer.keep_last(self.keep)
        if is_final and self.trainer.ema is not None:
            checkpointer.save_weights("model_final_ema", self.trainer.ema.module)


class EvaluationHook(HookBase):
    """Evaluates every ``period`` iterations and at the end; keeps the best weights, and stops if they get no better.

    It runs before :class:`CheckpointHook`, so that a checkpoint knows the results of its iteration; if evaluation
    fails, a checkpoint is written first.
    """

    def __init__(
        self, period: int, evaluate: Callable[[], Mapping[str, Any] | None], *, best_metric: str = "", patience: int = 0
    ) -> None:
        """
        Args:
            evaluate: gives results, 0 to 100, in the first process.
            best_metric: such as "bbox/AP", by which model_best.pth is chosen; "": none is kept.
            patience: evaluations without a better one after which training stops; 0: never.
        """
        self.period, self.evaluate = period, evaluate
        self.best_metric, self.patience = best_metric, patience
        self.best_value, self.best_iter, self.num_worse = -math.inf, -1, 0

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done < self.trainer.max_iter and not (self.period > 0 and done % self.period == 0):
            return
        try:
            results = self.evaluate()
        except Exception:
            self.trainer.checkpoint_hook.save()
            raise
        if comm.is_main_process() and results:
            self.trainer.storage.put_scalars(smoothing_hint=False, **flatten(results))
        comm.synchronize()
        if self.best_metric:
            self._judge(results)

    def _judge(self, results: Mapping[str, Any] | None) -> None:
        found = flatten(results or {}).get(self.best_metric)
        value = comm.all_gather(found)[0]
        if value is None:
            names = ", ".join(flatten(results or {}))
            logger.warning("BEST_METRIC %s is not among the results: %s", self.best_metric, names)
        elif math.isfinite(value) and value > self.best_value:
            self.best_value, self.best_iter, self.num_worse = value, self.trainer.iter, 0
            info = {"iteration": self.trainer.iter, "metric": self.best_metric, "value": value}
            self.trainer.checkpointer.save_weights("model_best", self.trainer.evaluated_model, **info)
            logger.info("%s %.3f is the best so far: written to model_best.pth", self.best_metric, value)
            return
        self.num_worse += 1
        if self.patience and self.num_worse >= self.patience:
            self.trainer.stop(
                f"{self.best_metric} has not got better in {self.num_worse} evaluations; the best is "
                f"{self.best_value:.3f} at iteration {self.best_iter}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_iter": self.best_iter, "num_worse": self.num_worse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_value, self.best_iter, self.num_worse = state["best_value"], state["best_iter"], state["num_worse"]


def flatten(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{"bbox": {"AP": 1}} as {"bbox/AP": 1}."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = float(value)
    return flat


class ValidationLossHook(HookBase):
    """Writes the mean losses on the images of ``load`` every ``period`` iterations, as validation_..."""

    def __init__(self, period: int, load: Callable[[], DataLoader]) -> None:
        self.period, self.load = period, load

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self.period > 0 and done % self.period == 0):
            losses = mean_losses(self.trainer.evaluated_model, self.load())
            if comm.is_main_process():
                self.trainer.storage.put_scalars(
                    smoothing_hint=False, **{f"validation_{name}": value for name, value in losses.items()}
                )
                logger.info("Validation loss at iteration %d: %.4f", self.trainer.iter, losses["total_loss"])


@torch.no_grad()
def mean_losses(model: nn.Module, loader: DataLoader) -> dict[str, float]:
    """Mean losses per image over all processes. Norms use their running statistics, and keep them."""
    was_training = {module: module.training for module in model.modules()}
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    sums: dict[str, float] = {}
    count = 0
    try:
        for batch in loader:
            for name, loss in model(batch).items():
                sums[name] = sums.get(name, 0.0) + loss.item() * len(batch)
            count += len(batch)
    finally:
        for module, training in was_training.items():
            module.training = training
    gathered = comm.all_gather((sums, count))
    total = sum(number for _, number in gathered)
    losses = {name: sum(part.get(name, 0.0) for part, _ in gathered) / total for name in sums}
    return {"total_loss": sum(losses.values()), **losses}


class SignalHook(HookBase):
    """On SIGTERM (preemption, SLURM), saves and stops after the running iteration, in all processes together."""

    GRACE_S = 25  # a process that is stuck by then is ended

    def before_train(self) -> None:
        self.received = False
        self.previous = signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self.received = True
        signal.alarm(self.GRACE_S)

    def after_step(self) -> None:
        if self._any_received():
            signal.alarm(0)
            self.trainer.checkpoint_hook.save()
            self.trainer.stop("SIGTERM was received; go on with --resume")

    def _any_received(self) -> bool:
        if comm.get_world_size() == 1:
            return self.received
        flag = torch.tensor([int(self.received)], device=self.trainer.device)
        torch.distributed.all_reduce(flag)
        return bool(flag.item())

    def after_train(self) -> None:
        signal.signal(signal.SIGTERM, self.previous)


class SkippedImagesHook(HookBase):
    """Lists the images that could not be used, in OUTPUT_DIR/skipped_images.json, at the end of training."""

    def __init__(self, output_dir: str) -> None:
        self.path = Path(output_dir, "skipped_images.json")

    def after_train(self) -> None:
        merged: dict[str, str] = {}
        for skipped in comm.all_gather(self.trainer.skipped) if self.trainer.finished else [self.trainer.skipped]:
            merged |= skipped
        if merged and comm.is_main_process():
            self.path.write_text(json.dumps(merged, indent=2))
            logger.warning("%d images could not be used: they are listed in %s", len(merged), self.path)


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
                f"data {latest.get('data_time', math.nan) * 1e3:.0f} ms, {memory_mib():.0f} MiB"
            )

    def after_train(self) -> None:
        self.bar.close()


def memory_mib() -> float:
    """The most memory that was in use so far: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
