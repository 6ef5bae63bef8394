"""Why detections are wrong, and what it costs: the six types of error of TIDE.

Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, arXiv 2008.08115, section 2, and
its code (tidecv 1.0.1), whose numbers these are: AP is at IoU 0.5, the mean goes over the classes that have objects or
detections, and each type by itself is mended. (hotcoco takes the mean over classes with objects, which tells mistaken
classes cheaper where classes without objects are predicted.)
"""

from __future__ import annotations

from dataclasses import dataclass

import hotcoco
import numpy as np

from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.matching import Matches, rank_within
from resnet_det.evaluation.overlaps import MIN_OVERLAP, Overlaps

ERROR_TYPES = {
    "Cls": "class: found, but called another class",
    "Loc": "location: the right class, but the overlap is too small",
    "Both": "both: another class, and the overlap is too small",
    "Dupe": "duplicate: another detection has found the same object",
    "Bkg": "background: there is no object",
    "Miss": "missed: no detection that counts comes near the object",
}
FOREGROUND_IOU = 0.5
MAX_PER_IMAGE = 100  # TIDE's
NONE = -1


@dataclass(frozen=True, eq=False)
class Errors:
    """The type of error of each detection, as a place in ``ERROR_TYPES`` or ``NONE``, and what the types cost."""

    type: np.ndarray  # (n,)
    missed: np.ndarray  # (annotations,) bool
    base_ap: float  # at IoU 0.5, 0 to 100
    cost: dict[str, float]  # AP that would be won without the errors of that type
    false_positive_cost: float
    false_negative_cost: float
    beyond_limit: int = 0  # of the missed ones that a detection has found which does not count: it is one too many

    @property
    def counts(self) -> dict[str, int]:
        counts = {name: int((self.type == place).sum()) for place, name in enumerate(ERROR_TYPES)}
        return counts | {"Miss": int(self.missed.sum())}


def find_errors(
    truth: GroundTruth,
    detections: Detections,
    overlaps: Overlaps,
    matches: Matches,
    *,
    max_detections: int = MAX_PER_IMAGE,
) -> Errors:
    """Classify all errors among the best detections of each image, and compute what each type costs.

    Args:
        max_detections: of an image, whatever their class.
    """
    kept = rank_within(detections.image, detections.score) < max_detections
    found = np.where(kept, matches.annotation[0], NONE)
    is_ignored = kept & matches.ignored[0]
    correct = (found != NONE) & ~is_ignored
    real = ~matches.ignored_annotation
    used = np.zeros(len(truth.annotations), dtype=bool)
    used[found[correct]] = True
    types, meant = _classify(truth, detections, overlaps, kept & ~correct, real, used)
    names = list(ERROR_TYPES)

    # Of several detections that could be mended to find the same free object, the best one is.
    mendable = np.flatnonzero(np.isin(types, (names.index("Cls"), names.index("Loc"))))
    mendable = mendable[~used[meant[mendable]]]
    mendable = mendable[np.lexsort((mendable, -detections.score[mendable]))]
    targets, first = np.unique(meant[mendable], return_index=True)
    mended = np.zeros(len(detections), dtype=bool)
    mended[mendable[first]] = True
    missed = real & ~used
    missed[targets] = False

    num_objects = np.bincount(truth.category[real], minlength=len(truth.categories))
    plain = kept & ~is_ignored

    def mean_ap(mask=plain, true=correct, category=detections.category, score=detections.score, objects=num_objects):
        return _mean_ap(category[mask], score[mask], true[mask], objects)

    base = mean_ap()
    cost = {}
    for place, name in enumerate(names):
        if name == "Miss":
            lost = np.bincount(truth.category[missed], minlength=len(truth.categories))
            cost[name] = mean_ap(objects=num_objects - lost) - base
            continue
        wrong = types == place
        right = wrong & mended
        category = detections.category.copy()
        category[right] = truth.category[meant[right]]
        cost[name] = mean_ap((plain & ~wrong) | right, correct | right, category) - base
    unfound = np.bincount(truth.category[real & ~used], minlength=len(truth.categories))
    return Errors(
        type=np.where(is_ignored, NONE, types),
        missed=missed,
        base_ap=base,
        cost={name: max(value, 0.0) for name, value in cost.items()},  # below 0 by the steps of the curve alone
        false_positive_cost=mean_ap(score=correct.astype(float)) - base,
        false_negative_cost=mean_ap(objects=num_objects - unfound) - base,
        beyond_limit=_count_found_beyond(detections, truth, overlaps, ~kept, missed),
    )


def _count_found_beyond(
    detections: Detections, truth: GroundTruth, overlaps: Overlaps, cut: np.ndarray, missed: np.ndarray
) -> int:
    """How many ``missed`` objects a detection of their class lies on that is not among those that count."""
    near = (
        cut[overlaps.detection]
        & (overlaps.iou >= FOREGROUND_IOU)
        & (detections.category[overlaps.detection] == truth.category[overlaps.annotation])
    )
    found = np.zeros(len(missed), dtype=bool)
    found[overlaps.annotation[near]] = True
    return int((found & missed).sum())


def _classify(
    truth: GroundTruth,
    detections: Detections,
    overlaps: Overlaps,
    wrong: np.ndarray,
    real: np.ndarray,
    used: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The type of error of the ``wrong`` detections, and the annotation (row) that it was probably meant for."""
    pairs = real[overlaps.annotation] & wrong[overlaps.detection]
    dt, gt, iou = overlaps.detection[pairs], overlaps.annotation[pairs], overlaps.iou[pairs]
    same = detections.category[dt] == truth.category[gt]
    count = len(detections)
    same_iou, same_gt = _best_of(dt[same], gt[same], iou[same], count)
    other_iou, other_gt = _best_of(dt[~same], gt[~same], iou[~same], count)
    taken_iou, _ = _best_of(dt[same & used[gt]], gt[same & used[gt]], iou[same & used[gt]], count)
    cases = {
        "Loc": (same_iou >= MIN_OVERLAP) & (same_iou <= FOREGROUND_IOU),
        "Cls": other_iou >= FOREGROUND_IOU,
        "Dupe": taken_iou >= FOREGROUND_IOU,
        "Bkg": np.maximum(same_iou, other_iou) <= MIN_OVERLAP,
        "Both": np.ones(count, dtype=bool),
    }
    types = np.select(list(cases.values()), [list(ERROR_TYPES).index(name) for name in cases])
    meant = np.where(cases["Loc"], same_gt, other_gt)
    return np.where(wrong, types, NONE), meant


def _best_of(dt: np.ndarray, gt: np.ndarray, iou: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each of ``count`` detections the largest overlap and the annotation it is with; 0 and 0 without any."""
    order = np.lexsort((-gt, iou, dt))
    last = order[np.append(np.diff(dt[order]) != 0, True)] if len(dt) else order
    best_iou, best_gt = np.zeros(count), np.zeros(count, dtype=np.int64)
    best_iou[dt[last]], best_gt[dt[last]] = iou[last], gt[last]
    return best_iou, best_gt


def _mean_ap(category: np.ndarray, score: np.ndarray, correct: np.ndarray, num_objects: np.ndarray) -> float:
    """AP, 0 to 100, over the classes that have objects or detections."""
    order = np.argsort(category, kind="stable")
    ends = np.cumsum(np.bincount(category, minlength=len(num_objects)))[:-1]
    values = [
        hotcoco.metrics.average_precision(score[rows], correct[rows], int(count)) if count > 0 else 0.0
        for rows, count in zip(np.split(order, ends), num_objects, strict=True)
        if len(rows) or count > 0
    ]
    return 100 * float(np.mean(values)) if values else 0.0
