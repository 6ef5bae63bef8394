"""Making a trained detector fast: norms folded for good, channels-last, fewer bits or fewer multiplications."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d as Detectron2Conv2d
from detectron2.layers import ROIAlign
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import nn

from resnet_det.modeling.layers import ConvNormAct, DeformConvNormAct, NormActConv, make_unit
from resnet_det.modeling.roi_align import ThreadedROIAlign

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@torch.no_grad()
def prepare_for_inference(
    model: nn.Module, *, dtype: torch.dtype = torch.float32, compile_backbone: bool = False
) -> nn.Module:
    """A copy of ``model`` that detects the same, faster. It cannot be trained, and its state is not the model's.

    FrozenBN and BatchNorm are folded into the convolutions before them, throughout the model (FPN and heads included);
    weights and features lie channels-last. In float32 on a CPU, wide 3x3 convolutions are computed by Winograd's
    algorithm: features differ from the model's by some 1e-5 of the largest.

    Args:
        model: any Detectron2 model with our backbone, or the backbone itself.
        dtype: of convolutions and linear layers. With bfloat16 or float16 the model runs under autocast, its box
            predictors in float32: they are cheap, and scores and boxes come out of them.
        compile_backbone: the first images then take minutes.

    Raises:
        ValueError: another dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype}; choose one of {', '.join(map(str, DTYPES))}")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    _replace_convs_(model)
    _replace_roi_align_(model)
    predictors = [module for module in model.modules() if isinstance(module, FastRCNNOutputLayers)]
    in_float32 = {part for predictor in predictors for part in predictor.modules()}
    for module in model.modules():
        if isinstance(module, ConvNormAct) and not isinstance(module, NormActConv):
            module.fold_()
            if dtype == torch.float32:
                module.use_winograd(keep_weight=True)
        has_low_precision = not isinstance(module, DeformConvNormAct) and module not in in_float32
        if has_low_precision and isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
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


def _replace_convs_(model: nn.Module) -> None:
    """Put our unit in the place of each of torch's and Detectron2's convolutions that it can stand for.

    Heads and pyramids look their convolutions up by name, and in lists that they keep besides.
    """
    units: dict[nn.Module, ConvNormAct] = {}
    for parent in list(model.modules()):
        for name, conv in list(parent.named_children()):
            if _is_replaceable(conv):
                units[conv] = units.get(conv) or make_unit(conv, activation=_unify_relu(conv))
                setattr(parent, name, units[conv])
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, list):
                setattr(
                    module, name, [units.get(each, each) if isinstance(each, nn.Module) else each for each in value]
                )


def _replace_roi_align_(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is ROIAlign:
                options = (module.output_size, module.spatial_scale, module.sampling_ratio, module.aligned)
                setattr(parent, name, ThreadedROIAlign(*options))


def _is_replaceable(conv: nn.Module) -> bool:
    """Whether our unit computes the same: the padding keeps the resolution, and nobody listens (hooks)."""
    if type(conv) not in (nn.Conv2d, Detectron2Conv2d) or conv._forward_hooks or conv._forward_pre_hooks:
        return False
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    same = (conv.kernel_size, conv.dilation) == ((kernel, kernel), (dilation, dilation))
    return same and conv.padding == (dilation * (kernel // 2),) * 2 and conv.padding_mode == "zeros"


def _unify_relu(conv: nn.Module):
    activation = getattr(conv, "activation", None)
    return F.relu_ if activation is F.relu or type(activation) is nn.ReLU else activation


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
