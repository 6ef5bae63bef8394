"""Faster, Mask, Keypoint and Cascade R-CNN as one module of fixed sizes, around the parts of a trained model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.meta_arch.retinanet import permute_to_N_HWA_K
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads
from torch import nn
from torchvision.ops import roi_align

from resnet_det.deploy.padded import (
    DROPPED,
    MIN_SCORE,
    batched_nms,
    clip,
    gather_rows,
    make_anchors,
    normalize,
    select_best,
    select_detections,
    select_level,
)

# Boxes of an image before non-maximum suppression, over all classes: the best ones. Detectron2 takes all that are over
# the score threshold, of which there are more where it is next to nothing (LVIS).
MAX_CANDIDATES = 4000


class ExportableRCNN(nn.Module):
    """What :class:`GeneralizedRCNN` detects, from a batch as it is after resizing.

    Shapes:
        images: (N, C, H, W) float32, in INPUT.FORMAT; sizes: (N, 2) int64, height and width of each image in it.
        boxes: (N, n, 4) XYXY in pixels of ``images``; scores: (N, n); classes: (N, n) int64; count: (N,) int64. What
        stands behind ``count`` is zero. masks: (count.sum(), S, S), of all detections, image after image; or
        keypoint_heatmaps: (count.sum(), K, S, S).
    """

    def __init__(self, model: GeneralizedRCNN) -> None:
        super().__init__()
        self.model = model
        heads = model.roi_heads
        self.has_masks, self.has_keypoints = heads.mask_on, getattr(heads, "keypoint_on", False)
        last = ["masks"] * self.has_masks + ["keypoint_heatmaps"] * self.has_keypoints
        self.output_names = ("boxes", "scores", "classes", "count", *last)

    def forward(self, images: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model, heads = self.model, self.model.roi_heads
        x = normalize(images, sizes, model.pixel_mean, model.pixel_std, model.backbone.size_divisibility)
        features = model.backbone(x)
        proposals, exists = self._propose(features, sizes)
        probabilities, boxes = self._run_box_heads(features, proposals, sizes)
        # As Detectron2 does, a proposal with any value that is not finite is left out.
        exists = exists & boxes.flatten(2).isfinite().all(-1) & probabilities.isfinite().all(-1)
        probabilities = torch.where(exists[..., None], probabilities, torch.full_like(probabilities, DROPPED))
        count, _, num_classes = probabilities.shape
        predictor = heads.box_predictor[-1] if isinstance(heads, CascadeROIHeads) else heads.box_predictor
        scores, index = probabilities.reshape(count, -1).topk(min(MAX_CANDIDATES, probabilities[0].numel()), dim=1)
        source = index if boxes.shape[2] > 1 else index // num_classes
        candidates = gather_rows(clip(boxes, sizes).reshape(count, -1, 4), source)
        found = select_detections(
            candidates,
            scores,
            index % num_classes,
            scores > max(predictor.test_score_thresh, MIN_SCORE),
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return (*found, *self._run_mask_and_keypoint_heads(features, *found))

    def _propose(self, features: dict[str, torch.Tensor], sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Proposals (N, n, 4), and which of them there are (N, n)."""
        rpn = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        limit, transform = rpn.pre_nms_topk[False], rpn.box2box_transform
        boxes, scores, levels = [], [], []
        outputs = zip(*rpn.rpn_head(maps), make_anchors(rpn.anchor_generator, maps), strict=True)
        for level, (logits, deltas, anchors) in enumerate(outputs):
            logits, deltas = permute_to_N_HWA_K(logits, 1)[..., 0], permute_to_N_HWA_K(deltas, 4)
            moved, best, index = select_level(logits, deltas, anchors, transform, limit)
            boxes.append(moved)
            scores.append(best)
            levels.append(torch.full_like(index, level))
        boxes, scores, levels = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels, 1)
        valid = boxes.isfinite().all(-1) & scores.isfinite() & (scores > MIN_SCORE)
        boxes = clip(torch.where(valid[..., None], boxes, torch.zeros_like(boxes)), sizes)
        valid = valid & (boxes[..., 2:] - boxes[..., :2] > rpn.min_box_size).all(-1)
        keep = batched_nms(boxes, scores, levels, valid, rpn.nms_thresh)
        proposals, _, _, exists = select_best(boxes, scores, keep, rpn.post_nms_topk[False])
        return torch.where(exists[..., None], proposals, torch.zeros_like(proposals)), exists

    def _run_box_heads(
        self, features: dict[str, torch.Tensor], proposals: torch.Tensor, sizes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities (N, n, classes), and boxes (N, n, classes, 4), or (N, n, 1, 4) where classes share them."""
        heads, (count, number) = self.model.roi_heads, proposals.shape[:2]
        if isinstance(heads, CascadeROIHeads):
            stages = list(zip(heads.box_head, heads.box_predictor, strict=True))
        else:
            stages = [(None if isinstance(heads, Res5ROIHeads) else heads.box_head, heads.box_predictor)]
        names = heads.in_features if isinstance(heads, Res5ROIHeads) else heads.box_in_features
        pooler = heads.pooler if isinstance(heads, Res5ROIHeads) else heads.box_pooler
        images = number_images(count, number, proposals.device)
        total, boxes = 0.0, proposals[:, :, None]
        for stage, (head, predictor) in enumerate(stages):
            if stage:
                proposals = clip(boxes[:, :, 0], sizes)
            rows = proposals.reshape(-1, 4)
            pooled = pool(pooler, [features[name] for name in names], rows, images)
            embedded = heads.res5(pooled).mean((2, 3)) if head is None else head(pooled)
            logits, deltas = predictor(embedded)
            total = total + logits.softmax(-1)[:, :-1]
            moved = predictor.box2box_transform.apply_deltas(deltas, rows)
            boxes = moved.reshape(count, number, -1, 4)
        return (total / len(stages)).reshape(count, number, -1), boxes

    def _run_mask_and_keypoint_heads(
        self,
        features: dict[str, torch.Tensor],
        boxes: torch.Tensor,
        scores: torch.Tensor,
        classes: torch.Tensor,
        count: torch.Tensor,
    ) -> list[torch.Tensor]:
        """Masks and heatmaps of keypoints of all detections, image after image."""
        if not (self.has_masks or self.has_keypoints):
            return []
        heads, limit = self.model.roi_heads, scores.shape[1]
        exists = torch.arange(limit, device=boxes.device) < count[:, None]
        rows = torch.nonzero(exists.reshape(-1))[:, 0]
        rows = F.pad(rows, (1, 0))  # the first goes again: without it group norms would have no input at times
        images = number_images(scores.shape[0], limit, boxes.device).index_select(0, rows)
        rois, classes = boxes.reshape(-1, 4).index_select(0, rows), classes.reshape(-1).index_select(0, rows)
        outputs = []
        if self.has_masks:
            if isinstance(heads, Res5ROIHeads):
                pooled = heads.res5(pool(heads.pooler, [features[name] for name in heads.in_features], rois, images))
            else:
                pooled = pool(heads.mask_pooler, [features[n] for n in heads.mask_in_features], rois, images)
            logits = heads.mask_head.layers(pooled)
            if logits.shape[1] > 1:
                index = classes[:, None, None, None].expand(-1, 1, *logits.shape[2:])
                logits = logits.gather(1, index)
            outputs.append(logits[1:, 0].sigmoid())
        if self.has_keypoints:
            pooled = pool(heads.keypoint_pooler, [features[n] for n in heads.keypoint_in_features], rois, images)
            outputs.append(heads.keypoint_head.layers(pooled)[1:])
        return outputs


def number_images(count: int, number: int, device: torch.device) -> torch.Tensor:
    """0, 0, ..., 1, 1, ...: the image of each of ``number`` boxes of ``count`` images."""
    return torch.arange(count, device=device)[:, None].expand(count, number).reshape(-1)


def pool(pooler: ROIPooler, features: list[torch.Tensor], boxes: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """What ``pooler`` does with boxes (R, 4) of ``images`` (R,): each on the level of its size (arXiv 1612.03144, 4.2).

    Returns:
        (R, C, h, w)
    """
    rois = torch.cat([images[:, None].to(boxes.dtype), boxes], 1)
    if len(features) == 1:
        return _align(pooler.level_poolers[0], features[0], rois)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.floor(
        pooler.canonical_level + torch.log2(area.clamp(min=0).sqrt() / pooler.canonical_box_size + 1e-8)
    )
    level = level.clamp(min=pooler.min_level, max=pooler.max_level).long() - pooler.min_level
    pooled, order = [], []
    for number, (feature, align) in enumerate(zip(features, pooler.level_poolers, strict=True)):
        index = torch.nonzero(level == number)[:, 0]
        order.append(index)
        pooled.append(_align(align, feature, rois.index_select(0, index)))
    order = torch.cat(order)
    place = torch.zeros_like(level).scatter(0, order, torch.arange(order.shape[0], device=order.device))
    return torch.cat(pooled).index_select(0, place)


def _align(align: nn.Module, feature: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    return roi_align(feature, rois, align.output_size, align.spatial_scale, align.sampling_ratio, align.aligned)
