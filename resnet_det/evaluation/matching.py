"""Which detection has found which object, by COCO's rules, for each detection by itself.

hotcoco gives these matches as millions of Python objects (37 s and 6 GiB for 5,000 images with 100 detections); here
they are columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.limits import resolve_limit
from resnet_det.evaluation.overlaps import Overlaps

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True, eq=False)
class Matches:
    """For each of ``IOU_THRESHOLDS`` (t) and detection (n), what it has found."""

    annotation: np.ndarray  # (t, n): row of the annotation, or -1
    ignored: np.ndarray  # (t, n) bool: found a crowd, or what COCO does not count
    counted: np.ndarray  # (n,) bool: among the best of its image and class
    rank: np.ndarray  # (n,): place in its image and class by score, from 0
    ignored_annotation: np.ndarray  # (annotations,) bool


def match_detections(
    truth: GroundTruth,
    detections: Detections,
    overlaps: Overlaps,
    iou_type: str,
    *,
    max_detections: int | None = None,
) -> Matches:
    """Give each detection, best first, the object of its class that it overlaps most and that is still free.

    Crowds, and people without labelled keypoints, are taken only where there is no other object; crowds by any number
    of detections. Source: pycocotools' evaluateImg.

    Args:
        max_detections: of an image and class that count; None: COCO's limit.
    """
    truth = truth.for_task(iou_type)
    rank = rank_within(detections.image * len(truth.categories) + detections.category, detections.score)
    counted = rank < resolve_limit(iou_type, max_detections)
    ignored_annotation = truth.crowd.copy()
    if iou_type == "keypoints":
        ignored_annotation |= [not any(np.asarray(a["keypoints"][2::3]) > 0) for a in truth.annotations]
    found = np.full((len(IOU_THRESHOLDS), len(detections)), -1, dtype=np.int64)
    taken = np.zeros((len(IOU_THRESHOLDS), len(truth.annotations)), dtype=bool)
    possible = (
        (overlaps.iou >= IOU_THRESHOLDS[0])
        & (detections.category[overlaps.detection] == truth.category[overlaps.annotation])
        & counted[overlaps.detection]
    )
    dt, gt, iou = overlaps.detection[possible], overlaps.annotation[possible], overlaps.iou[possible]
    # Of each detection the best pair stands last; detections of one rank are of different images or classes, so that
    # none takes what another wants.
    order = np.lexsort((gt, iou, ~ignored_annotation[gt], dt, rank[dt]))
    dt, gt, iou = dt[order], gt[order], iou[order]
    for rows in np.split(np.arange(len(dt)), np.flatnonzero(np.diff(rank[dt])) + 1):
        for t, threshold in enumerate(IOU_THRESHOLDS):
            free = rows[(iou[rows] >= min(threshold, 1 - 1e-10)) & ~taken[t, gt[rows]]]
            best = free[np.append(dt[free][1:] != dt[free][:-1], True)] if len(free) else free
            found[t, dt[best]] = gt[best]
            taken[t, gt[best]] = ~truth.crowd[gt[best]]
    ignored = np.zeros_like(found, dtype=bool)
    ignored[found >= 0] = ignored_annotation[found[found >= 0]]
    return Matches(found, ignored, counted, rank, ignored_annotation)


def rank_within(group: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The place of each element in its group by score, highest first; among equal scores in their own order."""
    order = np.lexsort((-score, group))
    sorted_group = group[order]
    starts = np.flatnonzero(np.diff(sorted_group, prepend=-1))
    rank = np.empty(len(group), dtype=np.int64)
    lengths = np.diff(np.append(starts, len(group)))
    rank[order] = np.arange(len(group)) - np.repeat(starts, lengths)
    return rank


def evaluation_order(detections: Detections, matches: Matches) -> np.ndarray:
    """The counted detections, class by class, in the order in which COCO goes through them."""
    order = np.lexsort((matches.rank, detections.image, -detections.score, detections.category))
    return order[matches.counted[order]]
