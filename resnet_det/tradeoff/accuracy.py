"""AP of several detectors on the same images, and whether they differ by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resnet_det.evaluation.bootstrap import (
    NUM_DRAWS,
    Interval,
    WeightedAP,
    bootstrap,
    combine_classes,
    explain_no_interval,
    mean_over,
    summarize_draws,
)
from resnet_det.evaluation.coco import read_metrics, run_coco_evaluation
from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.limits import LimitCost, find_limit_cost, resolve_limit
from resnet_det.evaluation.matching import match_detections
from resnet_det.evaluation.overlaps import compute_overlaps


@dataclass(frozen=True, eq=False)
class Accuracy:
    """COCO's numbers of several detectors, 0 to 100, and their bootstrapped AP.

    Attributes:
        metrics: of each detector.
        draws: (detectors, draws) AP; the draws are of the same images for all.
        why_no_interval: why there are no confidence intervals; empty if there are.
        limit_cost: what the limit of detections costs at most; None: nothing.
    """

    iou_type: str
    metrics: list[dict[str, float]]
    draws: np.ndarray
    why_no_interval: str = ""
    limit_cost: LimitCost | None = None

    @property
    def ap(self) -> list[float]:
        return [metrics["AP"] for metrics in self.metrics]

    def interval(self, place: int) -> Interval:
        """AP of one detector."""
        return summarize_draws(self.ap[place], self.draws[place]).clipped()

    def difference(self, first: int, second: int) -> Interval:
        """AP of the second minus that of the first, with the interval of paired draws."""
        return summarize_draws(self.ap[second] - self.ap[first], self.draws[second] - self.draws[first])


def measure_accuracy(
    truth: GroundTruth,
    runs: Sequence[Detections],
    iou_type: str,
    *,
    kpt_oks_sigmas: Sequence[float] = (),
    num_draws: int = NUM_DRAWS,
    max_detections: int | None = None,
) -> Accuracy:
    """Evaluate detectors on the same ground truth.

    Args:
        max_detections: of an image and class that count; None: COCO's limit.

    Raises:
        InputError: another number of keypoints than of sigmas.
    """
    truth = truth.for_task(iou_type)
    limit = resolve_limit(iou_type, max_detections)
    metrics, weighted = [], []
    for run in runs:
        evaluation = run_coco_evaluation(truth, run, iou_type, kpt_oks_sigmas=kpt_oks_sigmas, max_detections=limit)
        metrics.append(read_metrics(evaluation))
        overlaps = compute_overlaps(truth, run, iou_type, kpt_oks_sigmas=kpt_oks_sigmas)
        matches = match_detections(truth, run, overlaps, iou_type, max_detections=limit)
        weighted.append(WeightedAP(truth, run, matches))
    draws = mean_over(bootstrap(weighted, num_draws), (2,))
    images = weighted[0].images_per_class
    return Accuracy(
        iou_type,
        metrics,
        combine_classes(draws, images),
        explain_no_interval(truth.class_names, images.tolist()),
        find_limit_cost(truth, limit),
    )
