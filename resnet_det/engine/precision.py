"""Which type to compute in: automatic mixed precision, and prepared models."""

from __future__ import annotations

import contextlib
import functools
import logging
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import nn

from resnet_det.data import build_mapper
from resnet_det.data.loading.dicts import choose_evenly, load_dataset_dicts
from resnet_det.engine.agreement import decide_once
from resnet_det.errors import InputError
from resnet_det.modeling import prepare_for_inference

logger = logging.getLogger(__name__)

MIN_SPEED_UP = 1.1


def choose_amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The type for autocast that SOLVER.AMP and RESNET_DET.TRAIN.AMP_DTYPE ask for; None for float32 throughout."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    name = cfg.RESNET_DET.TRAIN.AMP_DTYPE if "RESNET_DET" in cfg else "float16"
    if name != "auto":
        return getattr(torch, name)
    device = torch.device(cfg.MODEL.DEVICE)
    return torch.bfloat16 if decide_once(lambda: is_bfloat16_worthwhile(device)) else None


def autocast_for_tests(cfg: CfgNode, amp_dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Where RESNET_DET.TEST.AMP evaluates: in ``amp_dtype``, that of training."""
    if amp_dtype is None or not cfg.RESNET_DET.TEST.AMP:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(cfg.MODEL.DEVICE).type, amp_dtype)


def is_bfloat16_worthwhile(device: torch.device) -> bool:
    """Whether ``device`` is faster in bfloat16: GPUs from compute capability 8.0 (A100) on are; a CPU is timed.

    Why a GPU is not timed: a convolution that is small enough to be quick is bound by its launch there, and float32 is
    TF32.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        is_worthwhile, why = capability >= (8, 0), f"compute capability {capability[0]}.{capability[1]}"
    else:
        speed_up = measure_bfloat16_speed_up(device)
        is_worthwhile, why = speed_up >= MIN_SPEED_UP, f"bfloat16 takes {1 / speed_up:.2f} times as long"
    logger.info("AMP_DTYPE auto: %s on %s (%s)", "bfloat16" if is_worthwhile else "float32", device, why)
    return is_worthwhile


def prepare_as_configured(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """``model``, or what RESNET_DET.TEST.PREPARE makes of it (:func:`resnet_det.prepare_for_inference`).

    Raises:
        InputError: what it needs is not installed, or there are no images for int8.
    """
    name = cfg.RESNET_DET.TEST.PREPARE if "RESNET_DET" in cfg else ""
    if not name:
        return model
    backend, _, dtype = name.rpartition("-")
    calibration = load_calibration(cfg) if dtype == "int8" else ()
    options = {"dtype": getattr(torch, dtype), "backend": backend or "torch", "calibration": calibration}
    return prepare_as_asked(model, f"RESNET_DET.TEST.PREPARE {name}", **options)


def prepare_as_asked(model: nn.Module, asked: str, **options: Any) -> nn.Module:
    """:func:`resnet_det.prepare_for_inference` with ``options`` that a user has chosen by what ``asked`` says.

    Raises:
        InputError: what they need is not installed, or they do not go together.
    """
    try:
        return prepare_for_inference(model, **options)
    except (ImportError, ValueError) as error:
        raise InputError(f"{asked}: {error}") from error


def load_calibration(cfg: CfgNode) -> list[dict[str, Any]]:
    """Images from all over the first of DATASETS.TRAIN, as the model takes them in a test; the same in each process."""
    if not cfg.DATASETS.TRAIN:
        raise InputError("RESNET_DET.TEST.PREPARE openvino-int8 takes images of DATASETS.TRAIN, which is empty")
    dicts, mapper = load_dataset_dicts(cfg.DATASETS.TRAIN[0], filter_empty=False, tasks=()), build_mapper(cfg, False)
    chosen = choose_evenly(dicts, cfg.RESNET_DET.TEST.CALIBRATION_IMAGES)
    logger.info("int8: the ranges of features are those of %d images of %s", len(chosen), cfg.DATASETS.TRAIN[0])
    return [mapper(entry) for entry in chosen]


@functools.cache
def measure_bfloat16_speed_up(device: torch.device, repeats: int = 5) -> float:
    """Time of a convolution and its backward pass in float32 over that in bfloat16: the median of ``repeats`` pairs.

    It is measured once in a process. Where the first pair, which warms up, takes ten times as long in bfloat16, the
    processor has no instructions for it, and a pair takes a second: one is enough to know.
    """
    x = torch.randn(2, 64, 96, 96, device=device)
    weight = torch.randn(64, 64, 3, 3, device=device, requires_grad=True)

    def seconds(enabled: bool) -> float:
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            out = F.conv2d(x, weight, padding=1)
        out.sum().backward()
        return time.perf_counter() - start

    first = seconds(False) / seconds(True)
    if first < 0.1:
        return first
    return statistics.median(seconds(False) / seconds(True) for _ in range(repeats))
