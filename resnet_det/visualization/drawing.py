"""Boxes, masks, keypoints and labels, drawn with supervision (OpenCV) on (H, W, 3) uint8 images in BGR order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
import supervision as sv
from detectron2.structures import BoxMode, Instances

KEYPOINT_THRESHOLD = 0.05  # keypoint scores below this are not shown (Detectron2's value)
TITLE_HEIGHT_PX = 28
GAP_PX = 8
MIN_PANEL_PX = 480  # smaller pictures are enlarged, so that labels can be read


def detections_from_instances(instances: Instances, min_score: float = 0.0) -> sv.Detections:
    """Predictions of a Detectron2 model (on the CPU) with at least ``min_score``, best first.

    Keypoints, where there are any, are in ``data["keypoints"]``: (n, k, 3) with x, y in pixels and 1 for shown or 0.
    """
    order = np.argsort(-instances.scores.numpy(), kind="stable")
    order = order[instances.scores.numpy()[order] >= min_score]
    instances = instances[order.tolist()]
    data = {}
    if instances.has("pred_keypoints"):
        keypoints = instances.pred_keypoints.numpy().copy()
        keypoints[:, :, 2] = keypoints[:, :, 2] > KEYPOINT_THRESHOLD
        data["keypoints"] = keypoints
    return sv.Detections(
        xyxy=instances.pred_boxes.tensor.numpy(),
        mask=instances.pred_masks.numpy().astype(bool) if instances.has("pred_masks") else None,
        confidence=instances.scores.numpy(),
        class_id=instances.pred_classes.numpy(),
        data=data,
    )


def detections_from_annotations(annotations: Sequence[Mapping[str, Any]], height: int, width: int) -> sv.Detections:
    """Objects of a Detectron2 dataset dict or of COCO results (``category_id`` counted from 0), of an image of that
    size.

    Each has ``bbox`` with ``bbox_mode``, ``category_id``, and may have ``segmentation``, ``keypoints`` and ``score``.
    """
    if not annotations:
        return sv.Detections.empty()
    boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    masks = [decode_mask(a["segmentation"], height, width) for a in annotations if "segmentation" in a]
    keypoints = [np.reshape(a["keypoints"], (-1, 3)) for a in annotations if "keypoints" in a]
    scores = [a["score"] for a in annotations if "score" in a]
    return sv.Detections(
        xyxy=np.asarray(boxes, dtype=float).reshape(-1, 4),
        mask=np.stack(masks) if len(masks) == len(annotations) else None,
        confidence=np.asarray(scores, dtype=float) if len(scores) == len(annotations) else None,
        class_id=np.asarray([a["category_id"] for a in annotations], dtype=int),
        data={"keypoints": np.stack(keypoints).astype(float)} if len(keypoints) == len(annotations) else {},
    )


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """COCO polygons or run lengths as a (height, width) bool mask."""
    if isinstance(segmentation, list):
        runs = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        runs = mask_util.frPyObjects(segmentation, height, width)
    else:
        runs = segmentation
    return mask_util.decode(runs).astype(bool)


def draw_detections(image: np.ndarray, detections: sv.Detections, class_names: Sequence[str]) -> np.ndarray:
    """A copy of ``image``, enlarged if small, with masks, boxes, keypoints and labels in one colour for each class."""
    scale = max(1, -(-MIN_PANEL_PX // max(image.shape[:2])))
    canvas = image.repeat(scale, axis=0).repeat(scale, axis=1)
    if not len(detections):
        return canvas
    detections = _scaled(detections, scale)
    thickness = sv.calculate_optimal_line_thickness((canvas.shape[1], canvas.shape[0]))
    text_scale = min(0.5, sv.calculate_optimal_text_scale((canvas.shape[1], canvas.shape[0])))
    if detections.mask is not None:
        canvas = sv.MaskAnnotator(opacity=0.35).annotate(canvas, detections)
        canvas = sv.PolygonAnnotator(thickness=1).annotate(canvas, detections)
    canvas = sv.BoxAnnotator(thickness=thickness).annotate(canvas, detections)
    for points in detections.data.get("keypoints", ()):
        for x, y, shown in points:
            if shown > 0:
                cv2.circle(canvas, (round(x), round(y)), 4, (255, 255, 255), -1, cv2.LINE_AA)
                cv2.circle(canvas, (round(x), round(y)), 3, (0, 0, 0), -1, cv2.LINE_AA)
    labels = [class_names[class_id] for class_id in detections.class_id]
    if detections.confidence is not None:
        labels = [f"{label} {score:.2f}" for label, score in zip(labels, detections.confidence, strict=True)]
    labeller = sv.LabelAnnotator(
        text_scale=text_scale, text_padding=2, text_color=sv.Color.BLACK, smart_position=len(labels) < 30
    )
    return labeller.annotate(canvas, detections, labels)


def _scaled(detections: sv.Detections, scale: int) -> sv.Detections:
    if scale == 1:
        return detections
    mask = detections.mask
    if mask is not None:
        mask = mask.repeat(scale, axis=1).repeat(scale, axis=2)
    data = {key: value * np.array([scale, scale, 1]) for key, value in detections.data.items()}
    return sv.Detections(detections.xyxy * scale, mask, detections.confidence, detections.class_id, data=data)


def side_by_side(panels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pictures of equal height in a row, each under its title."""
    parts = []
    for title, panel in panels.items():
        strip = np.full((TITLE_HEIGHT_PX, panel.shape[1], 3), 255, dtype=np.uint8)
        cv2.putText(strip, title, (6, TITLE_HEIGHT_PX - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
        parts += [
            np.vstack([strip, panel]),
            np.full((panel.shape[0] + TITLE_HEIGHT_PX, GAP_PX, 3), 255, dtype=np.uint8),
        ]
    return np.hstack(parts[:-1])
