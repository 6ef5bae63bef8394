"""What memory a training step takes, measured in a process of its own: nothing before it counts, nothing stays."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F

from resnet_det.benchmark.memory import measure_peak_memory
from resnet_det.explain.lab import SIZE_PX
from resnet_det.explain.nets import Net

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
NUM_CLASSES = 10


def measure_step(net: Net, batch: int, *, checkpointed: bool, device: str = "cpu") -> dict[str, float | None]:
    """What :func:`measure_step_here` finds, in a process of its own.

    Raises:
        RuntimeError: the process failed, or was killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = sender, torch.get_num_threads(), net, batch, checkpointed, device
    child = context.Process(target=_work, args=arguments)
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"the process that measures {net.name} was killed: too little memory?") from None
    finally:
        child.join()


def _work(sender: Connection, threads: int, net: Net, batch: int, checkpointed: bool, device: str) -> None:
    torch.set_num_threads(threads)
    sender.send(measure_step_here(net, batch, checkpointed=checkpointed, device=device))
    sender.close()


def measure_step_here(net: Net, batch: int, *, checkpointed: bool, device: str = "cpu") -> dict[str, float | None]:
    """One forward and backward pass of random images.

    Args:
        checkpointed: all stages compute their blocks again.

    Returns:
        "tensors": the most bytes that tensors take at once beyond the net and the images
        (:func:`resnet_det.benchmark.memory.measure_peak_memory`); "resident": how much larger the process gets, in
        bytes; None on a GPU and off Linux; "loss": which checkpointing leaves as it is.
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
    model.zero_grad(set_to_none=True)
    return {"tensors": float(measure_peak_memory(step, device)), "resident": resident, "loss": loss}


def _read_kib(key: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])
