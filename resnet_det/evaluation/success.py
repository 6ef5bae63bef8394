"""TP / (TP + FP + FN), the critical success index; papers on cells and nuclei call it accuracy or AP.

Unlike COCO's AP, it is about the detections that are shown, those of at least one score. Sources: Schmidt et al., Cell
Detection with Star-convex Polygons, arXiv 1806.03535, table 1 (there called average precision); Data Science Bowl 2018,
whose score is the mean over images and over IoU thresholds of 0.5 to 0.95 (Caicedo et al., Nature Methods 16, 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_det.evaluation.bootstrap import mean_over
from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.matching import IOU_THRESHOLDS, Matches

SUCCESS_METRICS = ("CSI50", "CSI75", "CSI-images")


@dataclass(frozen=True, eq=False)
class SuccessIndex:
    """The index, 0 to 100, at each of ``IOU_THRESHOLDS``; NaN where there are neither objects nor detections.

    The images are the same at each: those with objects or detections that count at any of them. Where nothing counts
    in one of these at some IoU, as its detections are matched with a crowd there, its index is 100: nothing is wrong.
    """

    threshold: float  # the lowest score that counts
    pooled: np.ndarray  # (10,): of all objects of all images together
    image_mean: np.ndarray  # (10,): mean over the images that have objects or detections that count
    images: int  # how many these are
    true_positives: np.ndarray  # (10,)
    false_positives: np.ndarray  # (10,)
    false_negatives: np.ndarray  # (10,)

    @property
    def metrics(self) -> dict[str, float]:
        """The index by the names of ``SUCCESS_METRICS``: pooled, at IoU 0.5 and 0.75, and the score of Data Science
        Bowl 2018, which is the mean over images and IoU thresholds."""
        values = (self.pooled[0], self.pooled[5], self.image_mean.mean())
        return {name: float(value) for name, value in zip(SUCCESS_METRICS, values, strict=True)}

    def summarize(self) -> dict[str, Any]:
        """For JSON."""
        by_iou = {
            "iou": IOU_THRESHOLDS.round(2).tolist(),
            "pooled": self.pooled.tolist(),
            "image_mean": self.image_mean.tolist(),
            "true_positives": self.true_positives.tolist(),
            "false_positives": self.false_positives.tolist(),
            "false_negatives": self.false_negatives.tolist(),
        }
        return {"threshold": self.threshold, "images": self.images, **self.metrics, **by_iou}


def compute_success(truth: GroundTruth, detections: Detections, matches: Matches, min_score: float) -> SuccessIndex:
    """The index of the detections with a score of at least ``min_score``.

    Detections are matched one to one, the best first, with objects of their class
    (:func:`~resnet_det.evaluation.matching.match_detections`). Where no two objects, and no two detections, share a
    pixel, more than half of a detection lies in one object at most, so that no other matching finds more. What was
    matched with a crowd counts neither as right nor as wrong.
    """
    shown = matches.counted & (detections.score >= min_score)
    num_images = len(truth.images)
    objects = np.bincount(truth.image[~matches.ignored_annotation], minlength=num_images)
    right = shown & (matches.annotation >= 0) & ~matches.ignored
    wrong = shown & (matches.annotation < 0)
    found, false = (
        np.stack([np.bincount(detections.image[row], minlength=num_images) for row in rows]) for rows in (right, wrong)
    )
    total = objects + false  # TP + FN are the objects
    has_any = (total > 0).any(axis=0)
    per_image = np.where(total > 0, _percent(found, total), 100.0)[:, has_any]
    return SuccessIndex(
        threshold=min_score,
        pooled=_percent(found.sum(1), total.sum(1)),
        image_mean=mean_over(per_image, (1,)),
        images=int(has_any.sum()),
        true_positives=found.sum(1),
        false_positives=false.sum(1),
        false_negatives=(objects - found).sum(1),
    )


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, 100 * part / np.maximum(whole, 1), np.nan)
