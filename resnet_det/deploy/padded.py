"""Detection with tensors whose sizes follow from those of the images alone, as exporters need it.

Where Detectron2 drops a box, its score here becomes :data:`DROPPED`, which is lower than any other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from torchvision.ops import nms

DROPPED = -1e4
MIN_SCORE = DROPPED / 2  # of boxes that are not dropped


def normalize(
    images: torch.Tensor, sizes: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, multiple: int
) -> torch.Tensor:
    """What the backbone takes: normalized, zero outside of each image, and padded to a multiple of ``multiple``.

    Shapes:
        images: (N, C, H, W); sizes: (N, 2), height and width of each image in it; mean, std: (C, 1, 1).
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) < sizes[:, :1]
    columns = torch.arange(width, device=images.device) < sizes[:, 1:]
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    x = torch.where(inside, (images - mean) / std, torch.zeros_like(images))
    return F.pad(x, (0, -width % multiple, 0, -height % multiple)) if multiple > 1 else x


def make_anchors(generator: DefaultAnchorGenerator, features: list[torch.Tensor]) -> list[torch.Tensor]:
    """The anchors of each feature map, (H * W * A, 4), in the order of Detectron2's."""
    made = []
    for feature, stride, cell in zip(features, generator.strides, generator.cell_anchors, strict=True):
        height, width = feature.shape[-2:]
        y, x = (
            (torch.arange(count, dtype=torch.float32, device=cell.device) + generator.offset) * stride
            for count in (height, width)
        )
        centres = torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], -1)
        made.append((centres.reshape(-1, 1, 2).repeat(1, 1, 2) + cell).reshape(-1, 4))
    return made


def clip(boxes: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """``boxes`` (N, ..., 4), inside images of ``sizes`` (N, 2), height and width."""
    limits = sizes.to(boxes.dtype).flip(1).repeat(1, 2).reshape(-1, *[1] * (boxes.dim() - 2), 4)
    return torch.minimum(boxes.clamp(min=0), limits)


def batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, valid: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Which of the ``valid`` boxes non-maximum suppression keeps, within each image and group: (N, n).

    One suppression does them all: groups are moved to the right, images down. What is not valid is one box per image,
    all but the first of which are suppressed at once.

    Shapes:
        boxes: (N, n, 4), finite where valid; scores, groups, valid: (N, n).
    """
    count, number = scores.shape
    boxes = torch.where(valid[..., None], boxes, boxes.new_tensor([0.0, 0.0, 1.0, 1.0]))
    scores = torch.where(valid, scores, torch.full_like(scores, DROPPED))
    groups = torch.where(valid, groups, torch.full_like(groups, -1))
    span = boxes.max() - boxes.min() + 1
    images = torch.arange(count, device=boxes.device)[:, None].expand(count, number)
    shift = torch.stack([groups, images], -1).to(boxes.dtype) * span
    order = nms((boxes + shift.repeat(1, 1, 2)).reshape(-1, 4), scores.reshape(-1), threshold)
    keep = torch.zeros_like(scores).reshape(-1)
    keep = keep.scatter(0, order, torch.ones_like(order, dtype=keep.dtype)).reshape(count, number) > 0
    return keep & valid


def select_level(
    scores: torch.Tensor,
    deltas: torch.Tensor,
    anchors: torch.Tensor,
    transform: Box2BoxTransform,
    limit: int,
    num_classes: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ``limit`` highest scores of a feature map, and the boxes they belong to; if there are fewer, dropped ones.

    Shapes:
        scores: (N, n * num_classes); deltas: (N, n, 4); anchors: (n, 4).

    Returns:
        Boxes (N, limit, 4), scores, and index in ``scores``, (N, limit).
    """
    best, index = F.pad(scores, (0, limit), value=DROPPED).topk(limit, dim=1)
    index = index.clamp(max=scores.shape[1] - 1)
    anchor = index // num_classes
    boxes = transform.apply_deltas(gather_rows(deltas, anchor).reshape(-1, 4), anchors[anchor].reshape(-1, 4))
    return boxes.reshape(-1, limit, 4), best, index


def select_best(
    boxes: torch.Tensor, scores: torch.Tensor, keep: torch.Tensor, limit: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best of the boxes to ``keep``: boxes (N, m, 4), scores, index and which of them there are, (N, m)."""
    scores = torch.where(keep, scores, torch.full_like(scores, DROPPED))
    best, index = scores.topk(min(limit, scores.shape[1]), dim=1)
    return gather_rows(boxes, index), best, index, best > MIN_SCORE


def select_detections(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    valid: torch.Tensor,
    threshold: float,
    limit: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The detections of each image: boxes (N, m, 4), scores, classes (N, m), and how many of them there are, (N,).

    What stands behind that number is zero. The candidates: boxes (N, n, 4), scores, classes and valid (N, n).
    """
    keep = batched_nms(boxes, scores, classes, valid, threshold)
    boxes, scores, index, exists = select_best(boxes, scores, keep, limit)
    boxes = torch.where(exists[..., None], boxes, torch.zeros_like(boxes))
    scores = torch.where(exists, scores, torch.zeros_like(scores))
    return boxes, scores, classes.gather(1, index) * exists, exists.sum(1)


def gather_rows(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``values`` (N, n, k) at ``index`` (N, m): (N, m, k)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
