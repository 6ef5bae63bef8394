"""RetinaNet as one module of fixed sizes, around the parts of a trained model."""

from __future__ import annotations

import torch
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.meta_arch.retinanet import permute_to_N_HWA_K
from torch import nn

from resnet_det.deploy.padded import (
    MIN_SCORE,
    clip,
    make_anchors,
    normalize,
    select_detections,
    select_level,
)


class ExportableRetinaNet(nn.Module):
    """What :class:`RetinaNet` detects, from a batch as it is after resizing; shapes as of ``ExportableRCNN``."""

    output_names = ("boxes", "scores", "classes", "count")

    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model = self.model
        x = normalize(images, sizes, model.pixel_mean, model.pixel_std, model.backbone.size_divisibility)
        features = model.backbone(x)
        maps = [features[name] for name in model.head_in_features]
        limit, num_classes = model.test_topk_candidates, model.num_classes
        boxes, scores, classes = [], [], []
        outputs = zip(*model.head(maps), make_anchors(model.anchor_generator, maps), strict=True)
        for logits, deltas, anchors in outputs:
            logits, deltas = permute_to_N_HWA_K(logits, num_classes), permute_to_N_HWA_K(deltas, 4)
            flat = logits.flatten(1).sigmoid()
            moved, best, index = select_level(flat, deltas, anchors, model.box2box_transform, limit, num_classes)
            boxes.append(moved)
            scores.append(best)
            classes.append(index % num_classes)
        boxes, scores, classes = (torch.cat(parts, 1) for parts in (boxes, scores, classes))
        valid = (scores > max(model.test_score_thresh, MIN_SCORE)) & boxes.isfinite().all(-1)
        boxes, *others = select_detections(
            boxes, scores, classes, valid, model.test_nms_thresh, model.max_detections_per_image
        )
        return (clip(boxes, sizes), *others)
