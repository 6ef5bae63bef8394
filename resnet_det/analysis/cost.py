"""What each part of a detector costs: parameters, multiply-adds, activations, time, and how large its tensors are."""

from __future__ import annotations

import logging
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import fvcore.nn
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils.analysis import FlopCountAnalysis
from torch import nn

# Modules of Detectron2's meta-architectures, and what their parts are called here.
_HEADS = {"proposal_generator": "RPN", "roi_heads": "ROI heads", "head": "head", "sem_seg_head": "semantic head"}
_TRUNK = re.compile(r"stem|res\d+")
_COUNTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
MIB = 2**20


@dataclass(frozen=True)
class PartCost:
    """The cost of one part of a detector for one image.

    Attributes:
        parameters: their number, frozen ones included.
        gmacs: multiply-adds of its convolutions, linear layers and norms, in 1e9 (fvcore's count).
        activations: numbers that its convolutions and linear layers put out (arXiv 2003.13678, section 2.3).
        latency_ms: median time; None if it was not measured.
        tensors_mib: its parameters and all its activations in float32. Not the peak of memory, as activations are freed
            on the way (:func:`resnet_det.benchmark.memory.measure_peak_memory` measures that).
    """

    name: str
    parameters: int
    gmacs: float
    activations: int
    latency_ms: float | None
    tensors_mib: float


def find_parts(model: nn.Module) -> dict[str, nn.Module]:
    """The parts of a detector by name. The module called FPN holds those of the ResNet, too."""
    backbone = model.backbone
    trunk = getattr(backbone, "bottom_up", backbone)
    parts = {"FPN": backbone} if trunk is not backbone else {}
    parts |= {name: part for name, part in trunk.named_children() if _TRUNK.fullmatch(name)}
    return parts | {title: getattr(model, name) for name, title in _HEADS.items() if hasattr(model, name)}


@torch.no_grad()
def analyze_model(model: nn.Module, image: torch.Tensor, *, repeats: int = 5) -> list[PartCost]:
    """The cost of each part of ``model``, and as the last of the whole.

    The costs of heads depend on what they are given. With random weights, call :func:`calibrate_norms_` first.

    Args:
        model: a Detectron2 detector; it is put into evaluation mode.
        image: (channels, H, W), as a data set mapper makes it.
        repeats: how often to measure the time; 0: not at all.
    """
    model.eval()
    inputs = [{"image": image, "height": image.shape[1], "width": image.shape[2]}]
    parts = find_parts(model)
    paths = {module: path for path, module in model.named_modules()}
    with _quiet():
        macs, activations = _count_macs_by_module(model, inputs), _count_activations(model, inputs)
    times = measure_latency(model, inputs, parts, repeats) if repeats else {}
    costs = [
        _part_cost(
            name,
            sum(p.numel() for p in part.parameters()),
            macs[paths[part]],
            activations[paths[part]],
            times.get(name),
        )
        for name, part in parts.items()
    ]
    parameters = sum(p.numel() for p in model.parameters())
    total = _part_cost("total", parameters, macs[""], activations[""], times.get("total"))
    return [*_without_trunk(costs), total]


@torch.no_grad()
def calibrate_norms_(model: nn.Module, image: torch.Tensor) -> None:
    """Give each FrozenBN the statistics of ``image``, as training would.

    With random weights a fresh FrozenBN, which is the identity, lets features grow until hardly a proposal is finite,
    and heads look cheaper than they are.
    """

    def calibrate(norm: FrozenBatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(calibrate) for norm in norms]
    try:
        model.eval()([{"image": image}])
    finally:
        for hook in hooks:
            hook.remove()


def _part_cost(name: str, parameters: int, macs: float, activations: float, seconds: float | None) -> PartCost:
    return PartCost(
        name=name,
        parameters=parameters,
        gmacs=macs / 1e9,
        activations=int(activations),
        latency_ms=None if seconds is None else seconds * 1e3,
        tensors_mib=4 * (parameters + activations) / MIB,
    )


def _without_trunk(costs: list[PartCost]) -> list[PartCost]:
    """The FPN's module holds the trunk: take the trunk's costs off, and put the FPN behind it."""
    if costs[0].name != "FPN":
        return costs
    trunk = [cost for cost in costs if _TRUNK.fullmatch(cost.name)]
    whole = costs[0]
    fpn = PartCost(
        name="FPN",
        parameters=whole.parameters - sum(cost.parameters for cost in trunk),
        gmacs=whole.gmacs - sum(cost.gmacs for cost in trunk),
        activations=whole.activations - sum(cost.activations for cost in trunk),
        latency_ms=None if whole.latency_ms is None else whole.latency_ms - sum(cost.latency_ms for cost in trunk),
        tensors_mib=whole.tensors_mib - sum(cost.tensors_mib for cost in trunk),
    )
    return [*trunk, fpn, *costs[1 + len(trunk) :]]


def count_macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-adds of ``module(*inputs)``: of its convolutions, linear layers and norms (fvcore's count)."""
    with _quiet():
        counted = fvcore.nn.FlopCountAnalysis(module, inputs)
        return counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def _count_macs_by_module(model: nn.Module, inputs: list[dict]) -> dict[str, float]:
    """By module path, without the wrapper that tracing needs."""
    counted = FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return defaultdict(float, {path.removeprefix("model").lstrip("."): n for path, n in counted.by_module().items()})


def _count_activations(model: nn.Module, inputs: list[dict]) -> dict[str, int]:
    """By module path: how many numbers convolutions and linear layers put out."""
    counts: dict[str, int] = defaultdict(int)

    def count(path: str, out: torch.Tensor) -> None:
        names = path.split(".")
        for length in range(len(names) + 1):
            counts[".".join(names[:length])] += out.numel()

    hooks = [
        module.register_forward_hook(lambda _, __, out, path=path: count(path, out))
        for path, module in model.named_modules()
        if isinstance(module, _COUNTED)
    ]
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return counts


def measure_latency(
    model: nn.Module, inputs: list[dict], parts: dict[str, nn.Module], repeats: int
) -> dict[str, float]:
    """Median time in seconds of each part and of the whole ("total"), after one run that is not counted."""
    started: dict[str, float] = {}
    times: dict[str, list[float]] = defaultdict(list)
    is_cuda = next(model.parameters()).is_cuda

    def now() -> float:
        if is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def start(name: str) -> None:
        started[name] = now()

    def stop(name: str) -> None:
        times[name].append(now() - started[name])

    hooks = []
    for name, part in parts.items():
        hooks.append(part.register_forward_pre_hook(lambda *_, name=name: start(name)))
        hooks.append(part.register_forward_hook(lambda *_, name=name: stop(name)))
    try:
        for _ in range(repeats + 1):
            start("total")
            model(inputs)
            stop("total")
    finally:
        for hook in hooks:
            hook.remove()
    return {name: statistics.median(measured[1:]) for name, measured in times.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without fvcore's lines on operators that it does not count."""
    loggers = [logging.getLogger(name) for name in ("fvcore", "fvcore.nn.jit_analysis")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
