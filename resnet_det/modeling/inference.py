"""Making a trained detector fast: norms folded for good, channels-last, fewer bits."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d as Detectron2Conv2d
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import nn

from resnet_det.modeling.blocks import BasicBlock, BottleneckBlock, ResidualBlock
from resnet_det.modeling.fast_poolers import use_fast_roi_align
from resnet_det.modeling.fused import conv_sum_relu
from resnet_det.modeling.layers import AvgDownShortcut, DeformConv, PadShortcut
from resnet_det.modeling.norms import read_affine
from resnet_det.modeling.openvino_backbone import OpenVinoBackbone
from resnet_det.modeling.openvino_network import OPENVINO_DTYPES, OpenVinoNetwork
from resnet_det.modeling.openvino_parts import use_openvino_
from resnet_det.modeling.prepared import (
    Float32Part,
    PreparedModel,
    PreparedPart,
    cast_input_,
    change_class_,
    pool_in_float32_,
    refuse_other_states_,
)

BACKENDS = {"torch": (torch.float32, torch.bfloat16, torch.float16), "openvino": OPENVINO_DTYPES}


@torch.no_grad()
def prepare_for_inference(
    model: nn.Module,
    *,
    dtype: torch.dtype = torch.float32,
    compile_backbone: bool = False,
    backend: str = "torch",
    calibration: Iterable[Any] = (),
) -> nn.Module:
    """A copy of ``model`` that detects the same, faster. It cannot be trained.

    FrozenBN and BatchNorm are folded into Detectron2's convolutions before them, throughout the model (FPN and heads
    included), sums and ReLUs of residual blocks are done inside the convolutions, weights and features lie
    channels-last, and ROIAlign sums rows (:func:`resnet_det.use_fast_roi_align`). What is not exactly such a layer, or
    has hooks, is left as it is.

    The copy is a model of the same class, by ``isinstance``: it can be called part by part, deep-copied, pickled and
    moved. It has weights of its own: delete ``model`` where memory counts. It loads states of models prepared alike,
    and refuses others where norms were folded.

    Args:
        model: any Detectron2 model with our backbone, or the backbone itself.
        dtype: of convolutions and linear layers. With bfloat16 or float16 the model runs under autocast, its box
            predictors in float32: they are cheap, and scores and boxes come out of them.
        compile_backbone: the first images then take minutes. Copies of the model are not compiled.
        backend: "openvino": the backbone with its FPN, the head of the RPN or RetinaNet, and the heads of boxes, masks
            and keypoints are computed by OpenVINO, which is not part of the plain set-up
            (``pip install resnet_det[openvino]``), on the CPU. Hooks in them do not run any more.
        calibration: for int8, some tens of images of the kind that will be looked at, as the model takes them
            ({"image": (C, H, W)}, or tensors (N, C, H, W) if ``model`` is a backbone). What OpenVINO computes is in
            int8, except for the last layers of heads; the rest is in float32.

    Raises:
        ValueError: another dtype or backend; no calibration for int8; a layer that OpenVINO does not have; the model is
            prepared already; a weight is NaN or infinite, which a prepared model would hide.
        ImportError: OpenVINO, or for int8 NNCF, is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; choose one of {', '.join(BACKENDS)}")
    if dtype not in BACKENDS[backend]:
        raise ValueError(f"dtype is {dtype}; {backend} has {', '.join(map(str, BACKENDS[backend]))}")
    if backend == "openvino" and any(parameter.device.type != "cpu" for parameter in model.parameters()):
        raise ValueError("OpenVINO's backbone computes on the CPU, and the model is elsewhere: move it there first")
    if backend == "openvino" and compile_backbone:
        raise ValueError("compile_backbone is for the backend torch: OpenVINO compiles the backbone anyway")
    if isinstance(model, PreparedPart):
        raise ValueError(f"the model is prepared already, in {model.prepared_dtype}: prepare the one it was made of")
    broken = [
        n for n, tensor in model.state_dict().items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        raise ValueError(f"{len(broken)} tensors of the model hold NaN or infinity, the first is {broken[0]}")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    use_fast_roi_align(model)
    if backend == "openvino":
        if not hasattr(model, "backbone"):
            return OpenVinoBackbone(model, dtype, list(calibration))
        use_openvino_(model, dtype, calibration)
        dtype = torch.float32 if dtype == torch.int8 else dtype
    folded = {module for module in model.modules() if _is_ordinary_conv(module) and _fold_(module)}
    for module in model.modules():
        if type(module) in _FUSED and _is_fusible(module):
            module.__class__ = _FUSED[type(module)]
    if dtype != torch.float32:
        _lower_(model, dtype)
    model.to(memory_format=torch.channels_last)
    changed = folded | {m for m in model.modules() if isinstance(getattr(m, "network", None), OpenVinoNetwork)}
    for module in model.modules():
        if not changed.isdisjoint(module.modules()):
            refuse_other_states_(module)
    change_class_(model, PreparedModel, dtype)
    if compile_backbone:
        getattr(model, "backbone", model).compile(dynamic=True)
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
    if block.shortcut is not None and (block.shortcut._forward_hooks or block.shortcut._forward_pre_hooks):
        return False
    convs = [module for name, module in block.named_children() if name != "drop" and type(module) is not PadShortcut]
    plain = all(_is_ordinary_conv(conv) and conv.norm is None and conv.activation is None for conv in convs)
    return plain and "forward" not in vars(block)


def _fold_(conv: Detectron2Conv2d) -> bool:
    """Make a fixed norm part of weight and bias, if there is one, and the ReLU of a head part of the convolution."""
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
    return affine is not None


def _lower_(model: nn.Module, dtype: torch.dtype) -> None:
    """Let convolutions and linear layers compute in ``dtype``, but for those of box predictors."""
    predictors = [module for module in model.modules() if isinstance(module, FastRCNNOutputLayers)]
    in_float32 = {part for predictor in predictors for part in predictor.modules()}
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not isinstance(module, DeformConv):
            cast_input_(module)
            if module not in in_float32:
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)
        elif isinstance(module, ROIPooler):
            pool_in_float32_(module)
    for predictor in predictors:
        change_class_(predictor, Float32Part, dtype)
    if hasattr(model, "backbone"):  # a detector, whose parts are called by themselves too
        for part in model.children():
            if next(part.parameters(), None) is not None:
                change_class_(part, PreparedPart, dtype)
