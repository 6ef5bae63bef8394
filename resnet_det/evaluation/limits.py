"""How many detections of an image and class count, and what that costs where there are more objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_det.evaluation.ground_truth import GroundTruth

MAX_DETECTIONS = {"bbox": 100, "segm": 100, "keypoints": 20}  # COCO's


@dataclass(frozen=True)
class LimitCost:
    """What COCO's limit costs at most.

    Args:
        limit: detections that count of each image and class.
        images: with more objects of a class than that.
        objects: beyond it, which no detection can be counted for.
        max_ap: what AP is at most, 0 to 100.
    """

    limit: int
    images: int
    objects: int
    max_ap: float

    def __str__(self) -> str:
        return (
            f"{self.images} image{'s have' if self.images != 1 else ' has'} more objects of a class than the "
            f"{self.limit} detections that count: {self.objects:,} objects cannot be found, and AP is at most "
            f"{self.max_ap:.1f}; --max-detections sets another limit"
        )


def resolve_limit(iou_type: str, max_detections: int | None) -> int:
    """``max_detections``, or COCO's limit of that kind of evaluation if it is None."""
    return MAX_DETECTIONS[iou_type] if max_detections is None else max_detections


def find_limit_cost(truth: GroundTruth, limit: int) -> LimitCost | None:
    """What a limit costs at most; None if no image has more objects of a class."""
    num_images = len(truth.images)
    real = ~truth.crowd
    cells = truth.category[real] * num_images + truth.image[real]
    counts = np.bincount(cells, minlength=len(truth.categories) * num_images).reshape(-1, num_images)
    beyond = np.maximum(counts - limit, 0)
    if not beyond.any():
        return None
    has = counts.sum(1) > 0
    recall = 1 - beyond.sum(1)[has] / counts.sum(1)[has]
    # COCO samples precision at 101 recalls: those that can be reached have at most 1.
    reached = np.floor(recall * 100 + 1e-9) + 1
    return LimitCost(
        limit=limit,
        images=int((beyond > 0).any(0).sum()),
        objects=int(beyond.sum()),
        max_ap=float(100 * np.mean(reached / 101)),
    )
