"""Which parts of a detector OpenVINO computes: backbone and FPN, and the heads that are Detectron2's own."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import StandardROIHeads
from torch import nn

from resnet_det.modeling.openvino_backbone import OpenVinoBackbone
from resnet_det.modeling.openvino_heads import BOX_HEADS, OpenVinoDenseHead, use_openvino_layers_

logger = logging.getLogger(__name__)

ROWS = 64  # boxes of an image from which int8's ranges of a head are taken: pooled features are large
FEWEST_ROWS = 4  # boxes of all images, below which ranges say nothing


def use_openvino_(model: nn.Module, dtype: torch.dtype, calibration: Iterable[Any] = ()) -> None:
    """Let OpenVINO compute the backbone of ``model``, the dense head of its RPN or RetinaNet, and the heads of boxes.

    Args:
        model: in evaluation mode, on the CPU.
        calibration: images as ``model`` takes them, from which int8's ranges are taken.

    Raises:
        ImportError, ValueError: see :class:`~resnet_det.modeling.openvino_network.OpenVinoNetwork`.
    """
    backbone, heads = model.backbone, dict(_find_box_heads(model))
    inputs = _record_inputs(model, [backbone, *heads], calibration if dtype == torch.int8 else ())
    shapes, samples = backbone.output_shape(), inputs[backbone]
    model.backbone = OpenVinoBackbone(backbone, dtype, samples, in_channels=len(model.pixel_mean))
    owner, name, levels = _find_dense_head(model)
    if owner is not None:
        head = getattr(owner, name)
        made = OpenVinoDenseHead(head, [shapes[level] for level in levels], dtype, backbone, levels, samples)
        setattr(owner, name, made)
    names = {module: name for name, module in model.named_modules()}
    for head, shape in heads.items():
        seen, kept = inputs.pop(head, []), dtype
        if dtype == torch.int8 and sum(map(len, seen)) < FEWEST_ROWS:
            kept = torch.float32
            what = f"{sum(map(len, seen))} boxes in {len(samples)} calibration images, and {FEWEST_ROWS} are needed"
            logger.warning("int8: %s stays in float32: it gets %s", names[head], what)
        use_openvino_layers_(head, shape, kept, seen)


def _find_dense_head(model: nn.Module) -> tuple[nn.Module | None, str, list[str]]:
    """What holds it, under which name, and the levels of its inputs."""
    rpn = getattr(model, "proposal_generator", None)
    if type(rpn) is RPN and type(rpn.rpn_head) is StandardRPNHead:
        return rpn, "rpn_head", list(rpn.in_features)
    if type(getattr(model, "head", None)) is RetinaNetHead:
        return model, "head", list(model.head_in_features)
    return None, "", []


def _find_box_heads(model: nn.Module) -> Iterator[tuple[nn.Module, tuple[int, int, int]]]:
    """Heads of pooled boxes that are as Detectron2 made them, with the shape (C, H, W) of their input."""
    roi_heads = getattr(model, "roi_heads", None)
    if not isinstance(roi_heads, StandardROIHeads):
        return
    shapes = model.backbone.output_shape()
    for kind in ("box", "mask", "keypoint"):
        pooler, head = (getattr(roi_heads, f"{kind}_{part}", None) for part in ("pooler", "head"))
        for one in head if type(head) is nn.ModuleList else [head]:  # a cascade has one for each stage
            if type(pooler) is ROIPooler and type(one) in BOX_HEADS and not {"forward", "layers"} & vars(one).keys():
                yield one, (shapes[getattr(roi_heads, f"{kind}_in_features")[0]].channels, *pooler.output_size)


def _record_inputs(
    model: nn.Module, parts: Sequence[nn.Module], images: Iterable[Any]
) -> dict[nn.Module, list[torch.Tensor]]:
    """What each of ``parts`` gets for each of ``images``; of more boxes than ROWS, as many of them evenly."""
    recorded = defaultdict(list)

    def record(part: nn.Module, args: tuple) -> None:
        x = args[0].detach()
        if len(x):
            recorded[part].append(x[:: -(-len(x) // ROWS)].clone())
        if len(parts) == 1:
            raise _StopError

    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.callback(part.register_forward_pre_hook(record).remove)
        for image in images:
            with contextlib.suppress(_StopError):
                model([image])
    return recorded


class _StopError(Exception):
    """What comes after the one part whose input is recorded is not wanted."""
