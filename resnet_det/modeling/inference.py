"""Making a trained detector fast: norms folded for good, channels-last, fewer bits."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d as Detectron2Conv2d
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import nn

from resnet_det.modeling.blocks import BasicBlock, BottleneckBlock, ResidualBlock
from resnet_det.modeling.fast_poolers import use_fast_roi_align
from resnet_det.modeling.fused import conv_sum_relu
from resnet_det.modeling.layers import AvgDownShortcut, DeformConv
from resnet_det.modeling.norms import read_affine

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@torch.no_grad()
def prepare_for_inference(
    model: nn.Module, *, dtype: torch.dtype = torch.float32, compile_backbone: bool = False
) -> nn.Module:
    """A copy of ``model`` that detects the same, faster. It cannot be trained, and its state is not the model's.

    FrozenBN and BatchNorm are folded into Detectron2's convolutions before them, throughout the model (FPN and heads
    included), sums and ReLUs of residual blocks are done inside the convolutions, weights and features lie
    channels-last. What is not exactly such a layer, or has hooks, is left as it is.

    Args:
        model: any Detectron2 model with our backbone, or the backbone itself.
        dtype: of convolutions and linear layers. With bfloat16 or float16 the model runs under autocast, its box
            predictors in float32: they are cheap, and scores and boxes come out of them.
        compile_backbone: the first images then take minutes.

    Raises:
        ValueError: another dtype; a weight is NaN or infinite, which a prepared model would hide.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype}; choose one of {', '.join(map(str, DTYPES))}")
    broken = [
        n for n, tensor in model.state_dict().items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        raise ValueError(f"{len(broken)} tensors of the model hold NaN or infinity, the first is {broken[0]}")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    use_fast_roi_align(model)
    predictors = [module for module in model.modules() if isinstance(module, FastRCNNOutputLayers)]
    in_float32 = {part for predictor in predictors for part in predictor.modules()}
    for module in model.modules():
        if _is_ordinary_conv(module):
            _fold_(module)
        has_low_precision = not isinstance(module, DeformConv) and module not in in_float32
        if has_low_precision and isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        if type(module) in _FUSED and _is_fusible(module):
            module.__class__ = _FUSED[type(module)]
    model.to(memory_format=torch.channels_last)
    if hasattr(model, "roi_heads"):
        model.roi_heads.register_forward_pre_hook(_lay_channels_first)
    if compile_backbone:
        getattr(model, "backbone", model).compile(dynamic=True)
    if dtype != torch.float32:
        for predictor in predictors:
            _run_in_float32_(predictor)
        _run_under_autocast_(model, dtype)
    return model


class ConvReLU(Detectron2Conv2d):
    """Detectron2's convolution with a ReLU, in one pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return conv_sum_relu(self, x)


class FusedBlock(ResidualBlock):
    """A residual block whose convolutions add and clip."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *names, last = self.conv_names
        out = x
        for name in names:
            out = conv_sum_relu(getattr(self, name), out)
        if not self.adds_input:
            return conv_sum_relu(getattr(self, last), out)
        summand = x if self.shortcut is None else self.shortcut(x)
        return conv_sum_relu(getattr(self, last), out, summand, overwrite=self.shortcut is not None)


class FusedBasicBlock(FusedBlock, BasicBlock):
    """Two convolutions and the sum."""


class FusedBottleneckBlock(FusedBlock, BottleneckBlock):
    """Three convolutions and the sum."""


_FUSED = {BasicBlock: FusedBasicBlock, BottleneckBlock: FusedBottleneckBlock}


def _is_ordinary_conv(module: nn.Module) -> bool:
    """Whether it is Detectron2's convolution as it is made: nobody listens, no other weight or forward was put in."""
    return (
        type(module) in (Detectron2Conv2d, AvgDownShortcut)
        and not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
        and "weight" in module._parameters
        and all(isinstance(value, tuple) for value in (module.stride, module.padding, module.dilation))
    )


def _is_fusible(block: ResidualBlock) -> bool:
    convs = [module for name, module in block.named_children() if name != "drop"]
    plain = all(_is_ordinary_conv(conv) and conv.norm is None and conv.activation is None for conv in convs)
    return plain and "forward" not in vars(block)


def _fold_(conv: Detectron2Conv2d) -> None:
    """Make a fixed norm part of weight and bias, and the ReLU of a head part of the convolution."""
    affine = read_affine(conv.norm)
    if affine is not None:
        scale, shift = affine
        bias = shift if conv.bias is None else shift + conv.bias * scale
        conv.weight, conv.bias = (
            nn.Parameter(part, requires_grad=False) for part in (conv.weight * scale[:, None, None, None], bias)
        )
        conv.norm = None
    is_relu = conv.activation in (F.relu, F.relu_) or type(conv.activation) is nn.ReLU
    if type(conv) is Detectron2Conv2d and is_relu and conv.norm is None:
        conv.__class__ = ConvReLU  # not another module: heads keep theirs in lists besides


def _lay_channels_first(module: nn.Module, args: tuple) -> tuple:
    """Features as ROIAlign takes them, in float32 and channels-first, once for the poolers of all heads."""
    images, features, *rest = args
    pooled = set(getattr(module, "box_in_features", None) or getattr(module, "in_features", features))
    laid = {name: value.float().contiguous() if name in pooled else value for name, value in features.items()}
    return images, laid, *rest


def _run_in_float32_(module: nn.Module) -> None:
    plain_forward = module.forward

    def forward(x: torch.Tensor) -> object:
        with torch.autocast(x.device.type, enabled=False):
            return plain_forward(x.float())

    module.forward = forward


def _run_under_autocast_(model: nn.Module, dtype: torch.dtype) -> None:
    plain_forward = model.forward

    def forward(*args: object, **kwargs: object) -> object:
        device_type = next(model.parameters()).device.type
        with torch.autocast(device_type, dtype, cache_enabled=False):
            return plain_forward(*args, **kwargs)

    model.forward = forward
