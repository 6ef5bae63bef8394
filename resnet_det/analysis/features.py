"""What a detector's feature maps hold, and where on them the score of a detection comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, StandardROIHeads
from detectron2.structures import Boxes, pairwise_iou
from torch import nn

from resnet_det.errors import InputError


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A map over the image, without the padding of the batch.

    Attributes:
        level: such as res3 or p4.
        shape: channels, height, width of the feature map.
        values: (h, w) float32.
    """

    level: str
    shape: tuple[int, int, int]
    values: torch.Tensor


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where on one feature map the score of a detection comes from.

    Attributes:
        level: of the feature map.
        logit: the class score that is explained; see :func:`class_logit`.
        grad_cam: (h, w), 0 to 1: Grad-CAM (arXiv 1610.02391, section 3): channels weighted by their mean gradient. It
            shows everything on the image that has the features of the class.
        local: (h, w), 0 to 1: each place weighted by its own gradient (HiResCAM, arXiv 2011.08891, section 3.2; for
            detectors ODAM, arXiv 2304.06354). It shows what raised the score of this detection.
    """

    level: str
    logit: float
    grad_cam: torch.Tensor
    local: torch.Tensor


@contextmanager
def record_features(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Within it, the outputs of the backbone's stages (res2 ...) and levels (p2 ...) are kept by name as it runs.

    Shapes: each (N, C, H, W).
    """
    recorded: dict[str, torch.Tensor] = {}
    trunk = getattr(model.backbone, "bottom_up", model.backbone)

    def keep_stage(name: str):
        return lambda _module, _inputs, output: recorded.__setitem__(name, output)

    def keep_levels(_module: nn.Module, _inputs: tuple, outputs: dict[str, torch.Tensor]) -> None:
        recorded.update(outputs)

    stages = {name: stage for name, stage in trunk.named_children() if re.fullmatch(r"res\d+", name)}
    hooks = [stage.register_forward_hook(keep_stage(name)) for name, stage in stages.items()]
    hooks.append(model.backbone.register_forward_hook(keep_levels))
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def map_activations(model: nn.Module, inputs: dict[str, Any]) -> list[FeatureMap]:
    """The mean absolute activation over the channels of each stage and level, finest first.

    Args:
        model: a Detectron2 detector in evaluation mode.
        inputs: of one image, as the model takes it.
    """
    images = model.preprocess_image([inputs])
    with record_features(model) as recorded:
        model.backbone(images.tensor)
    return [
        FeatureMap(name, tuple(feature.shape[1:]), _crop(feature[0].abs().mean(0), images).cpu())
        for name, feature in recorded.items()
    ]


def explain_detection(
    model: nn.Module, inputs: dict[str, Any], box: torch.Tensor, class_id: int, *, level: str | None = None
) -> Explanation:
    """Where the class score of a detection comes from.

    Args:
        model: a Detectron2 R-CNN or RetinaNet in evaluation mode.
        inputs: of one image, as the model takes it.
        box: (4,) xyxy of the detection, in pixels of inputs["image"].
        class_id: of the detection, counted from 0.
        level: of the feature map, such as p3 or res5; if not given, the level from which the score is taken.

    Raises:
        InputError: the score cannot be told for this kind of model, or there is no such level, or the score does not
            depend on it.
    """
    heads = getattr(model, "roi_heads", None)
    if not isinstance(model, RetinaNet) and not isinstance(heads, StandardROIHeads | Res5ROIHeads):
        raise InputError(f"scores of {type(model).__name__} cannot be explained; those of R-CNN and RetinaNet can")
    images = model.preprocess_image([inputs])
    with torch.enable_grad(), record_features(model) as recorded:
        # Frozen weights ask for no gradient: the image does, so that there is one at every level.
        features = model.backbone(images.tensor.detach().requires_grad_())
        logit = class_logit(model, features, box.to(images.tensor.device), class_id)
    if level is not None and level not in recorded:
        raise InputError(f"--level {level}: no such feature map; there are {', '.join(recorded)}")
    names = [level] if level else list(features)
    gradients = torch.autograd.grad(logit, [recorded[name] for name in names], allow_unused=True)
    known = {name: gradient for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    if not known:
        raise InputError(f"--level {level}: the score of this detection does not depend on it")
    chosen = max(known, key=lambda name: (known[name] * recorded[name]).abs().sum().item())
    feature, gradient = recorded[chosen].detach()[0], known[chosen][0]
    weights = gradient.mean((1, 2), keepdim=True)
    return Explanation(
        level=chosen,
        logit=logit.item(),
        grad_cam=_positive_share(_crop((weights * feature).sum(0), images)),
        local=_positive_share(_crop((gradient * feature).sum(0), images)),
    )


def class_logit(model: nn.Module, features: dict[str, torch.Tensor], box: torch.Tensor, class_id: int) -> torch.Tensor:
    """The class score of a detection before softmax or sigmoid, as a function of the backbone's ``features``.

    R-CNN: what the box head gives the class for the box of the detection, as if it were a proposal; of Cascade R-CNN
    the mean over its stages, as for its scores. RetinaNet: the score of the anchor whose decoded box is nearest to the
    detection's; of several, the highest.
    """
    if isinstance(model, RetinaNet):
        return _anchor_logit(model, [features[name] for name in model.head_in_features], box, class_id)
    heads, boxes = model.roi_heads, [Boxes(box[None])]
    if isinstance(heads, Res5ROIHeads):
        pooled = heads._shared_roi_transform([features[name] for name in heads.in_features], boxes)
        return heads.box_predictor(pooled.mean((2, 3)))[0][0, class_id]
    pooled = heads.box_pooler([features[name] for name in heads.box_in_features], boxes)
    if isinstance(heads, CascadeROIHeads):
        stages = zip(heads.box_head, heads.box_predictor, strict=True)
        return torch.stack([predictor(head(pooled))[0][0, class_id] for head, predictor in stages]).mean()
    return heads.box_predictor(heads.box_head(pooled))[0][0, class_id]


def _anchor_logit(model: RetinaNet, features: list[torch.Tensor], box: torch.Tensor, class_id: int) -> torch.Tensor:
    logits, deltas = model.head(features)
    anchors = model.anchor_generator(features)
    per_level = [_per_anchor(level_logits, model.num_classes)[:, class_id] for level_logits in logits]
    with torch.no_grad():
        decoded = [
            model.box2box_transform.apply_deltas(_per_anchor(level_deltas, 4), level_anchors.tensor)
            for level_deltas, level_anchors in zip(deltas, anchors, strict=True)
        ]
        iou = pairwise_iou(Boxes(box[None]), Boxes(torch.cat(decoded)))[0]
    scores = torch.cat(per_level)
    near = iou >= iou.max() - 1e-3
    return scores[near].max()


def _per_anchor(outputs: torch.Tensor, size: int) -> torch.Tensor:
    """(1, anchors * size, H, W) as (H * W * anchors, size), in the order of the anchors."""
    _, _, height, width = outputs.shape
    return outputs.view(-1, size, height, width).permute(2, 3, 0, 1).reshape(-1, size)


def share_inside(values: torch.Tensor, box: torch.Tensor, size: tuple[int, int]) -> float:
    """The share of the sum of a map (h, w) that lies within ``box`` (xyxy) on an image of ``size`` (height, width).

    Cells at the edge of the box count in part. NaN for a map that is 0 everywhere.
    """
    height, width = values.shape
    x0, y0, x1, y1 = (box.cpu() * torch.tensor([width / size[1], height / size[0]] * 2)).tolist()
    columns, rows = torch.arange(width), torch.arange(height)
    across = (torch.clamp(columns + 1, max=x1) - torch.clamp(columns, min=x0)).clamp(min=0)
    down = (torch.clamp(rows + 1, max=y1) - torch.clamp(rows, min=y0)).clamp(min=0)
    return float((values * down[:, None] * across).sum() / values.sum())


def _crop(values: torch.Tensor, images: Any) -> torch.Tensor:
    """Without the cells that lie in the padding of the image."""
    height, width = images.image_sizes[0]
    padded_height, padded_width = images.tensor.shape[-2:]
    rows = -(-height * values.shape[0] // padded_height)
    columns = -(-width * values.shape[1] // padded_width)
    return values[:rows, :columns]


def _positive_share(values: torch.Tensor) -> torch.Tensor:
    """What is above 0, as a share of the largest value: Grad-CAM's ReLU."""
    values = values.clamp(min=0).cpu()
    return values / values.max().clamp(min=1e-12)
