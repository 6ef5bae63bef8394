"""Precision, recall and F1 of each class over its score: curves, and where to cut.

A score threshold is in the middle of those with the highest F1. Where these reach down to all detections, it is the
highest of them: below the lowest score nothing was seen. Of several such ranges the lowest is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.matching import Matches, evaluation_order

SCORES = np.linspace(0, 1, 101)  # at which the F1 curves are given


@dataclass(frozen=True, eq=False)
class ClassCurve:
    """Of one class at IoU 0.5; without objects all is NaN.

    The best threshold is that of the highest F1, as said above; NaN if nothing was found.
    """

    f1: np.ndarray  # (101,): of the detections with at least SCORES
    best_threshold: float
    best_f1: float
    precision: float  # at the best threshold
    recall: float


def compute_curves(truth: GroundTruth, detections: Detections, matches: Matches) -> list[ClassCurve]:
    """The curves of each class. What was matched with a crowd counts neither as right nor as wrong."""
    order = evaluation_order(detections, matches)
    order = order[~matches.ignored[0, order]]
    num_objects = np.bincount(truth.category[~matches.ignored_annotation], minlength=len(truth.categories))
    ends = np.cumsum(np.bincount(detections.category[order], minlength=len(num_objects)))[:-1]
    return [
        _curve(detections.score[rows], matches.annotation[0, rows] >= 0, int(count))
        for rows, count in zip(np.split(order, ends), num_objects, strict=True)
    ]


def mean_f1(curves: list[ClassCurve]) -> np.ndarray:
    """(101,): mean over the classes with objects; zeros if there are none."""
    known = [curve.f1 for curve in curves if np.isfinite(curve.best_f1)]
    return np.mean(known, axis=0) if known else np.zeros(len(SCORES))


def find_threshold(curves: list[ClassCurve]) -> float:
    """The score, of ``SCORES``, at which the mean F1 of the classes is highest; 0 if nothing was found."""
    f1 = mean_f1(curves)
    first = int(np.argmax(f1))
    if not f1[first]:
        return 0.0
    lower = np.flatnonzero(f1[first:] < f1[first])
    last = first + int(lower[0]) - 1 if len(lower) else len(f1) - 1
    return float(SCORES[(first + last) // 2 if first else last])


def _curve(score: np.ndarray, correct: np.ndarray, num_objects: int) -> ClassCurve:
    """Of one class, from detections with falling scores."""
    if num_objects == 0:
        return ClassCurve(np.full(len(SCORES), np.nan), *[float("nan")] * 4)
    if not len(score):
        return ClassCurve(np.zeros(len(SCORES)), float("nan"), 0.0, float("nan"), 0.0)
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))  # equal scores are in or out together
    found, score = np.cumsum(correct)[last], score[last]
    shown = last + 1
    f1 = 2 * found / (shown + num_objects)
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    count_above = np.searchsorted(-score, -SCORES, side="right")
    return ClassCurve(
        f1=np.append(0.0, f1)[count_above],
        best_threshold=_middle(score, best) if found[best] else float("nan"),
        best_f1=float(f1[best]),
        precision=float(found[best] / shown[best]),
        recall=float(found[best] / num_objects),
    )


def _middle(score: np.ndarray, best: int) -> float:
    """The middle of the thresholds that show ``score[: best + 1]``, of falling and different scores, and no more."""
    if best + 1 == len(score):
        return float(score[best])
    return float(max((score[best] + score[best + 1]) / 2, np.nextafter(score[best + 1], np.inf)))
