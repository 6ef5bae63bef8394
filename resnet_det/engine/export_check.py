"""Whether an exported detector finds what its model finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
from detectron2.config import CfgNode
from detectron2.evaluation.coco_evaluation import instances_to_coco_json

from resnet_det.deploy import Detector
from resnet_det.engine.predictor import Predictor

MIN_IOU = 0.9  # of the boxes of what is taken for the same detection
MARGIN = 0.01  # of scores: what is as near to the lowest one may or may not be found
TOLERANCE_PX, TOLERANCE_SCORE, TOLERANCE_SHARE = 0.1, 1e-3, 0.99
TOLERANCE_MASK_IOU, TOLERANCE_KEYPOINT_PX = 0.98, 1.5


class ExportError(RuntimeError):
    """A file does not compute what its model computes."""


@dataclass(frozen=True)
class Differences:
    """How the detections of a file differ from those of the model, on some images, in a batch and one by one.

    Attributes:
        num_images, num_detections: compared; of the model's, in both ways together.
        num_found: of these, also found by the file: the same class, and an IoU of at least 0.9.
        num_extra: what the file alone finds.
        box_px: largest difference of a side of a box, in pixels of the image.
        score: largest difference.
        mask_iou: the mean; None without masks.
        keypoint_px: the median distance, as the highest point of a flat heatmap may be anywhere; None without.
    """

    num_images: int
    num_detections: int
    num_found: int
    num_extra: int
    box_px: float
    score: float
    mask_iou: float | None = None
    keypoint_px: float | None = None

    def __str__(self) -> str:
        if not self.num_detections + self.num_extra:
            return f"nothing is found on {self.num_images} images, by the model and the file: nothing was compared"
        text = (
            f"{self.num_found} of the model's {self.num_detections} detections on {self.num_images} images, in a batch "
        )
        text += f"and one by one, and {self.num_extra} others"
        if self.num_found:
            text += f"; boxes within {self.box_px:.2g} px, scores within {self.score:.2g}"
        if self.mask_iou is not None:
            text += f", mean IoU of masks {self.mask_iou:.4f}"
        if self.keypoint_px is not None:
            text += f", keypoints {self.keypoint_px:.2g} px apart (median)"
        return text

    def require_equal(self, name: str) -> None:
        """
        Raises:
            ExportError: they differ by more than rounding.
        """
        allowed = (1 - TOLERANCE_SHARE) * self.num_detections
        is_equal = (
            max(self.num_detections - self.num_found, self.num_extra) <= allowed
            and self.box_px <= TOLERANCE_PX
            and self.score <= TOLERANCE_SCORE
            and (self.mask_iou is None or self.mask_iou >= TOLERANCE_MASK_IOU)
            and (self.keypoint_px is None or self.keypoint_px <= TOLERANCE_KEYPOINT_PX)
        )
        if not is_equal:
            raise ExportError(f"{name} does not compute what the model computes, and is not kept: {self}")


def compare_with_model(predictor: Predictor, file: Path, images: Sequence[np.ndarray], cfg: CfgNode) -> Differences:
    """Run ``file`` and the model on images: on all of them as one batch, and one by one."""
    detector = Detector(file)
    expected, found = [], []
    for batch in (images, *([image] for image in images)):
        expected += [instances_to_coco_json(instances, 0) for instances in predictor.predict(batch)]
        found += [detections.to_coco(0) for detections in detector.detect(batch)]
    for entry in (entry for entries in expected for entry in entries):
        entry["category_id"] = predictor.category_ids[entry["category_id"]]
    heads = cfg.MODEL.RETINANET if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else cfg.MODEL.ROI_HEADS
    return compare_entries(
        expected, found, limit=cfg.TEST.DETECTIONS_PER_IMAGE, score_threshold=heads.SCORE_THRESH_TEST
    )


def compare_entries(
    expected: list[list[dict]], found: list[list[dict]], *, limit: int, score_threshold: float
) -> Differences:
    """Compare COCO's results of several images.

    Args:
        expected, found: of each image.
        limit: of detections for each image.
        score_threshold: that detections have passed.
    """
    pairs, count, num_extra = [], 0, 0
    for wanted, others in zip(expected, found, strict=True):
        is_cut = len(wanted) >= limit
        lowest = MARGIN + (min(entry["score"] for entry in wanted) if is_cut else score_threshold)
        clear = [entry for entry in wanted if entry["score"] > lowest]
        matched = _match(wanted, others)
        count += len(clear)
        num_extra += sum(entry["score"] > lowest for entry in others) - sum(b["score"] > lowest for _, b in matched)
        pairs += [(a, b) for a, b in matched if a["score"] > lowest]
    deltas = [np.abs(_corners(a) - _corners(b)).max() for a, b in pairs]
    return Differences(
        num_images=len(expected) // 2,
        num_detections=count,
        num_found=len(pairs),
        num_extra=num_extra,
        box_px=max(deltas, default=0.0),
        score=max((abs(a["score"] - b["score"]) for a, b in pairs), default=0.0),
        mask_iou=_mean([_mask_iou(a, b) for a, b in pairs if "segmentation" in a]),
        keypoint_px=_median([_keypoint_distances(a, b) for a, b in pairs if "keypoints" in a]),
    )


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _median(values: list[np.ndarray]) -> float | None:
    return float(np.median(values)) if values else None


def _match(wanted: list[dict], others: list[dict]) -> list[tuple[dict, dict]]:
    """Pairs of the same class with the same box, those with the highest scores first, each detection once."""
    pairs, free = [], list(others)
    for entry in sorted(wanted, key=lambda one: -one["score"]):
        same = [other for other in free if other["category_id"] == entry["category_id"]]
        if not same:
            continue
        overlaps = pycocotools.mask.iou([other["bbox"] for other in same], [entry["bbox"]], [0])[:, 0]
        if overlaps.max() >= MIN_IOU:
            pairs.append((entry, same[overlaps.argmax()]))
            free.remove(pairs[-1][1])
    return pairs


def _corners(entry: dict[str, Any]) -> np.ndarray:
    x, y, width, height = entry["bbox"]
    return np.array([x, y, x + width, y + height])


def _mask_iou(first: dict[str, Any], second: dict[str, Any]) -> float:
    masks = [first["segmentation"]], [second["segmentation"]]
    if not any(pycocotools.mask.area(mask[0]) for mask in masks):
        return 1.0
    return float(pycocotools.mask.iou(*masks, [0])[0, 0])


def _keypoint_distances(first: dict[str, Any], second: dict[str, Any]) -> np.ndarray:
    points, others = (np.reshape(entry["keypoints"], (-1, 3))[:, :2] for entry in (first, second))
    return np.linalg.norm(points - others, axis=1)
