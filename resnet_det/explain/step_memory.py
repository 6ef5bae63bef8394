"""What memory a training step takes, measured in a process of its own: nothing before it counts, nothing stays."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from resnet_det.benchmark.memory import measure_peak_memory
from resnet_det.explain.nets import Net
from resnet_det.explain.recipe import SIZE_PX
from resnet_det.processes import end_with_parent

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
NUM_CLASSES = 10


@dataclass(frozen=True)
class StepCost:
    """What a forward and backward pass takes, and gives.

    Attributes:
        tensors: the most bytes that tensors take at once beyond the net and the images
            (:func:`resnet_det.benchmark.memory.measure_peak_memory`).
        resident: how much larger the process gets, in bytes; None on a GPU and off Linux.
        loss: of the images.
        gradient: of the loss by all weights, (P,) float32.
    """

    tensors: float
    resident: float | None
    loss: float
    gradient: np.ndarray


def measure_step(net: Net, batch: int, *, checkpointed: bool, device: str = "cpu") -> StepCost:
    """What :func:`measure_step_here` finds, in a process of its own.

    Raises:
        RuntimeError: the process was killed. What it raises itself comes with its traceback.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, initializer=_start, initargs=(torch.get_num_threads(),))
    with pool:
        try:
            return pool.submit(measure_step_here, net, batch, checkpointed=checkpointed, device=device).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"the process that measures the memory of {net.name} ended before it was done; the kernel kills a "
                f"process where memory runs out ({error})"
            ) from error


def _start(threads: int) -> None:
    end_with_parent()
    torch.set_num_threads(threads)


def measure_step_here(net: Net, batch: int, *, checkpointed: bool, device: str = "cpu") -> StepCost:
    """One forward and backward pass of random images.

    Args:
        checkpointed: all stages compute their blocks again. That leaves loss and gradient as they are.
    """
    torch.manual_seed(0)
    model = net.build(NUM_CLASSES, checkpoint_stages=(checkpointed,) * 3).to(device).train()
    images = torch.randn(batch, 3, SIZE_PX, SIZE_PX, device=device)
    labels = torch.arange(batch, device=device) % NUM_CLASSES

    def step() -> float:
        model.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images)["linear"], labels)
        loss.backward()
        return loss.item()

    resident = None
    if sys.platform == "linux" and device == "cpu":
        _CLEAR.write_text("5")  # the greatest size so far is forgotten
        before = _read_kib("VmRSS")
        loss = step()
        resident = 1024.0 * (_read_kib("VmHWM") - before)
    else:
        loss = step()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).cpu().numpy()
    model.zero_grad(set_to_none=True)
    return StepCost(float(measure_peak_memory(step, device)), resident, loss, gradient)


def _read_kib(key: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])
