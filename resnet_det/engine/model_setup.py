"""What is done to a model, and to torch, before training."""

from __future__ import annotations

import inspect
import os
import shutil

import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from resnet_det.errors import InputError


def share_among_processes(model: nn.Module) -> nn.Module:
    """``model`` for training in several processes, if there are several."""
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    # Buffers are either frozen or each process's own; torch before 2.13 has no word for the first forward pass alone.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = {"forward_sync_buffers": False} if "forward_sync_buffers" in known else {"broadcast_buffers": False}
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None, **buffers)


def use_deterministic_algorithms() -> None:
    """Let the same run give the same numbers on a GPU too, at some cost; operators without such a form warn.

    cuBLAS needs a workspace of fixed size for it, and reads its size from the environment when it is first used.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
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
