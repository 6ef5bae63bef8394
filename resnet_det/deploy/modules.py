"""Which detectors can be exported, and the module that is."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d as Detectron2Conv2d
from detectron2.layers import DeformConv, ModulatedDeformConv, ROIAlign
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNOutputLayers,
    KRCNNConvDeconvUpsampleHead,
    MaskRCNNConvUpsampleHead,
    Res5ROIHeads,
    StandardROIHeads,
)
from torch import nn
from torchvision.ops import deform_conv2d

from resnet_det.deploy.rcnn import ExportableRCNN
from resnet_det.deploy.retinanet import ExportableRetinaNet
from resnet_det.modeling.fast_poolers import FastROIAlign
from resnet_det.modeling.prepared import PreparedPart


def make_exportable(model: nn.Module) -> nn.Module:
    """``model`` as one module of tensors, (images, sizes) -> (boxes, scores, classes, count, ...).

    It has weights of its own, in float32 on the CPU.

    Raises:
        ValueError: the model is of a kind that cannot be exported; the message says what it is about.
    """
    problems = find_problems(model)
    if problems:
        raise ValueError("this model cannot be exported: " + "; ".join(problems))
    kind = ExportableRetinaNet if type(model) is RetinaNet else ExportableRCNN
    model = copy.deepcopy(model).eval().requires_grad_(False).to("cpu", torch.float32)
    for module in model.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return kind(model).eval()


class PlainConv2d(Detectron2Conv2d):
    """Detectron2's convolution, which does not ask whether there is any input: a graph has no answer to that."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class PlainDeformConv(DeformConv):
    """Detectron2's deformable convolution by torchvision's operator, which exporters know."""

    def forward(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        bias = getattr(self, "bias", None)
        x = deform_conv2d(x, offset, self.weight, bias, self.stride, self.padding, self.dilation, mask)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class PlainModulatedDeformConv(ModulatedDeformConv):
    """The same of the second version (arXiv 1811.11168), with a mask."""

    forward = PlainDeformConv.forward


PLAIN = {Detectron2Conv2d: PlainConv2d, DeformConv: PlainDeformConv, ModulatedDeformConv: PlainModulatedDeformConv}


def add_missing_operators_(model: nn.Module) -> None:
    """Let ``model`` run on a CPU, where Detectron2 has no deformable convolutions of the second version."""
    for module in model.modules():
        if type(module) is ModulatedDeformConv:
            module.__class__ = PlainModulatedDeformConv


def find_problems(model: nn.Module) -> list[str]:
    """What stands in the way of exporting ``model``."""
    if isinstance(model, PreparedPart):
        return ["it is prepared for inference (export the model that it was made of)"]
    if type(model) is RetinaNet:
        parts = [("anchor generator", model.anchor_generator, (DefaultAnchorGenerator,))]
        limit = model.max_detections_per_image
    elif type(model) is GeneralizedRCNN:
        parts, limit = _list_rcnn_parts(model)
    else:
        return [f"{type(model).__name__} has no form that exporters take; GeneralizedRCNN and RetinaNet have"]
    problems = [
        f"its {what} is {type(part).__name__}; {' and '.join(kind.__name__ for kind in known)} can be exported"
        for what, part, known in parts
        if type(part) not in known
    ]
    if limit < 0:
        problems.append("TEST.DETECTIONS_PER_IMAGE is negative, and a file has a limit")
    constraints = getattr(model.backbone, "padding_constraints", {})
    if constraints.get("square_size", 0) > 0:
        problems.append("its images are padded to a square")
    return list(dict.fromkeys(problems))


def _list_rcnn_parts(model: GeneralizedRCNN) -> tuple[list[tuple[str, nn.Module | None, tuple]], int]:
    """The parts that are computed in another way than by their ``forward``, with the classes they may have."""
    rpn, heads = model.proposal_generator, model.roi_heads
    parts = [("proposal generator", rpn, (RPN,)), ("heads", heads, (StandardROIHeads, CascadeROIHeads, Res5ROIHeads))]
    if any(type(part) not in known for _, part, known in parts):
        return parts, 0
    predictors = list(heads.box_predictor) if type(heads) is CascadeROIHeads else [heads.box_predictor]
    parts.append(("anchor generator", rpn.anchor_generator, (DefaultAnchorGenerator,)))
    parts += [("box predictor", predictor, (FastRCNNOutputLayers,)) for predictor in predictors]
    for pooler in (module for module in heads.modules() if isinstance(module, ROIPooler)):
        parts += [("pooler", level, (ROIAlign, FastROIAlign)) for level in pooler.level_poolers]
    if heads.mask_on:
        parts.append(("mask head", heads.mask_head, (MaskRCNNConvUpsampleHead,)))
        if type(heads) is not Res5ROIHeads:
            parts.append(("mask pooler", heads.mask_pooler, (ROIPooler,)))
    if getattr(heads, "keypoint_on", False):
        parts.append(("keypoint head", heads.keypoint_head, (KRCNNConvDeconvUpsampleHead,)))
        parts.append(("keypoint pooler", heads.keypoint_pooler, (ROIPooler,)))
    return parts, predictors[-1].test_topk_per_image
