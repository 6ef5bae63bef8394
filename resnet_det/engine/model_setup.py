"""What is done to a model, and to torch, before training."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from resnet_det.errors import InputError


def share_among_processes(model: nn.Module, **options: Any) -> nn.Module:
    """``model`` for training in several processes, if there are several.

    Args:
        options: of torch's DistributedDataParallel, and Detectron2's fp16_compression: gradients are sent as float16.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    # Buffers are either frozen or each process's own; torch before 2.13 has no word for the first forward pass alone.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = {"forward_sync_buffers": False} if "forward_sync_buffers" in known else {"broadcast_buffers": False}
    compresses = options.pop("fp16_compression", False)
    if "broadcast_buffers" in options:
        buffers = {}
    device_ids = [device.index] if device.type == "cuda" else None
    shared = DistributedDataParallel(model, device_ids=device_ids, **buffers, **options)
    if compresses:
        shared.register_comm_hook(state=None, hook=default_hooks.fp16_compress_hook)
    return shared


def share_statistics(models: Iterable[nn.Module]) -> None:
    """Let the norms of all processes have the running statistics of the first one, as checkpoints have them.

    Each process has its own meanwhile; without this they would evaluate different models.
    """
    if comm.get_world_size() == 1:
        return
    for model in models:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                for buffer in module.buffers(recurse=False):
                    dist.broadcast(buffer, 0)


def set_up_torch(cfg: CfgNode) -> None:
    """What RESNET_DET.TRAIN says of the whole process: MATMUL_PRECISION and DETERMINISTIC."""
    train = cfg.RESNET_DET.TRAIN
    if train.MATMUL_PRECISION:
        torch.set_float32_matmul_precision(train.MATMUL_PRECISION)
    if train.DETERMINISTIC:
        use_deterministic_algorithms()


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
