"""Everything that is computed of one run for one kind of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

from resnet_det.evaluation.bootstrap import (
    NUM_DRAWS,
    SEED,
    Interval,
    WeightedAP,
    bootstrap,
    combine_classes,
    explain_no_interval,
    mean_over,
    summarize_draws,
)
from resnet_det.evaluation.coco import ClassResult, read_metrics, run_coco_evaluation, tabulate_classes
from resnet_det.evaluation.curves import ClassCurve, compute_curves, find_threshold
from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.errors import MAX_PER_IMAGE, Errors, find_errors
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.limits import LimitCost, find_limit_cost, resolve_limit
from resnet_det.evaluation.matching import Matches, match_detections
from resnet_det.evaluation.overlaps import compute_overlaps
from resnet_det.evaluation.success import SuccessIndex, compute_success
from resnet_det.evaluation.thresholds import ON_THESE_IMAGES, ScoreThreshold

_THRESHOLDS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}


@dataclass(frozen=True, eq=False)
class Analysis:
    """The numbers of one run, 0 to 100 where they are AP or AR, and what was matched with what."""

    iou_type: str
    metrics: dict[str, float]
    classes: list[ClassResult]
    precision: np.ndarray  # (101, classes): at IoU 0.5, over recall 0 to 1; NaN for classes without objects
    curves: list[ClassCurve]
    threshold: ScoreThreshold  # for what is told of the detections that are shown, from here to the confusion
    success: SuccessIndex
    confusion: np.ndarray  # (classes + 1, classes + 1): objects by shown detections, background last
    errors: Errors
    calibration: dict[str, Any]
    matches: Matches
    draws: np.ndarray  # (draws, 10, classes): bootstrapped AP
    max_detections: int = 100  # of an image and class that count
    limit_cost: LimitCost | None = None  # None if no image has more objects than that

    @property
    def best_threshold(self) -> float:
        """The score at which the mean F1 of the classes is highest on these images."""
        return find_threshold(self.curves)

    @property
    def intervals(self) -> dict[str, Interval]:
        """Confidence intervals of AP, AP50 and AP75."""
        return {
            name: summarize_draws(self.metrics[name], self.ap_draws(part)).clipped()
            for name, part in _THRESHOLDS.items()
        }

    def ap_draws(self, part: slice = slice(None)) -> np.ndarray:
        """(draws,): bootstrapped mean AP at some of the IoU thresholds, as wide as intervals are taken from."""
        return combine_classes(mean_over(self.draws[:, part], (1,)), self.images_per_class)

    @property
    def images_per_class(self) -> np.ndarray:
        return np.array([result.images for result in self.classes], dtype=np.int64)

    @property
    def why_no_interval(self) -> str:
        """Why there is no confidence interval of AP; empty if there is one."""
        return explain_no_interval([result.name for result in self.classes], [result.images for result in self.classes])

    @property
    def class_intervals(self) -> list[Interval]:
        """Confidence intervals of the AP of each class; NaN for classes in too few images to tell."""
        return [
            summarize_draws(result.ap, self.class_draws(place)).clipped() for place, result in enumerate(self.classes)
        ]

    def class_draws(self, place: int) -> np.ndarray:
        """(draws,): the same of one class."""
        return combine_classes(mean_over(self.draws, (1,))[:, [place]], self.images_per_class[[place]])


def analyze(
    truth: GroundTruth,
    runs: Sequence[Detections],
    iou_type: str,
    *,
    kpt_oks_sigmas: Sequence[float] = (),
    num_draws: int = NUM_DRAWS,
    seed: int = SEED,
    max_detections: int | None = None,
    score_thresholds: Sequence[ScoreThreshold | None] | None = None,
) -> list[Analysis]:
    """Evaluate runs on the same ground truth; their draws of the bootstrap are the same, so that they can be compared.

    Args:
        max_detections: of an image and class that count; None: COCO's limit.
        score_thresholds: of each run, the lowest score of what is shown; None: the one that is best on these images.

    Raises:
        InputError: another number of keypoints than of sigmas.
    """
    truth = truth.for_task(iou_type)
    limit = resolve_limit(iou_type, max_detections)
    evaluations = [
        run_coco_evaluation(truth, run, iou_type, kpt_oks_sigmas=kpt_oks_sigmas, max_detections=limit) for run in runs
    ]
    limit_cost = find_limit_cost(truth, limit)
    overlaps = [compute_overlaps(truth, run, iou_type, kpt_oks_sigmas=kpt_oks_sigmas) for run in runs]
    matches = [
        match_detections(truth, run, found, iou_type, max_detections=limit)
        for run, found in zip(runs, overlaps, strict=True)
    ]
    weighted = [WeightedAP(truth, run, matched) for run, matched in zip(runs, matches, strict=True)]
    draws = bootstrap(weighted, num_draws, seed)
    analyses = []
    thresholds = score_thresholds or [None] * len(runs)
    for run, evaluation, found, matched, drawn, given in zip(
        runs, evaluations, overlaps, matches, draws, thresholds, strict=True
    ):
        curves = compute_curves(truth, run, matched)
        threshold = given or ScoreThreshold(find_threshold(curves), ON_THESE_IMAGES)
        precision = evaluation.eval["precision"][0, :, :, 0, -1]
        analyses.append(
            Analysis(
                iou_type=iou_type,
                metrics=read_metrics(evaluation),
                classes=tabulate_classes(evaluation, truth, run),
                precision=np.where(precision >= 0, precision, np.nan),
                curves=curves,
                threshold=threshold,
                success=compute_success(truth, run, matched, threshold.value),
                errors=find_errors(truth, run, found, matched, max_detections=max(limit, MAX_PER_IMAGE)),
                confusion=_confusion(evaluation, truth, threshold.value),
                calibration=_calibration(evaluation, run),
                matches=matched,
                draws=drawn,
                max_detections=limit,
                limit_cost=limit_cost,
            )
        )
    return analyses


def _calibration(evaluation: hotcoco.COCOeval, run: Detections) -> dict[str, Any]:
    """How well scores tell the share of right detections; nothing where they are no probabilities."""
    if len(run) and (run.score.min() < 0 or run.score.max() > 1):
        return {"bins": [], "note": f"scores reach from {run.score.min():.4g} to {run.score.max():.4g}: not calibrated"}
    return evaluation.calibration()


def _confusion(evaluation: hotcoco.COCOeval, truth: GroundTruth, min_score: float) -> np.ndarray:
    if evaluation.params.iou_type == "keypoints" or not len(truth.categories):
        return np.zeros((0, 0), dtype=np.int64)
    return evaluation.confusion_matrix(iou_thr=0.5, min_score=min_score)["matrix"].astype(np.int64)
