"""How many objects of each class an image has, and what area they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hotcoco
import numpy as np

from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.overlaps import to_rle


@dataclass(frozen=True, eq=False)
class Counts:
    """Of each image and class."""

    count: np.ndarray  # (images, classes)
    area_px2: np.ndarray  # (images, classes): the sum

    @property
    def mean_area_px2(self) -> np.ndarray:
        """(images, classes); NaN where there are no objects."""
        return np.where(self.count > 0, self.area_px2 / np.maximum(self.count, 1), np.nan)


def count_detections(
    truth: GroundTruth, detections: Detections, thresholds: Sequence[float], *, by_mask: bool
) -> Counts:
    """Count what was found.

    Args:
        truth: for its images and classes.
        thresholds: of each class, the lowest score that counts.
        by_mask: areas are those of masks, else of boxes.
    """
    rows = np.flatnonzero(detections.score >= np.asarray(thresholds)[detections.category])
    if by_mask:
        size = truth.size[detections.image[rows]]
        masks = [detections.rows[row]["segmentation"] for row in rows]
        area = np.array([_measure(mask, *one) for mask, one in zip(masks, size, strict=True)], dtype=float)
    else:
        area = detections.box(rows)[:, 2:].prod(axis=1)
    return _add_up(truth, detections.image[rows], detections.category[rows], area)


def count_objects(truth: GroundTruth, *, by_mask: bool) -> Counts:
    """Count the annotated objects, which crowd regions are not; arguments as of :func:`count_detections`.

    An object without a mask has the area of its box.
    """
    rows = np.flatnonzero(~truth.crowd)
    area = truth.box[rows, 2:].prod(axis=1)
    if by_mask:
        for place, row in enumerate(rows):
            if "segmentation" in truth.annotations[row]:
                area[place] = _measure(truth.annotations[row]["segmentation"], *truth.size[truth.image[row]])
    return _add_up(truth, truth.image[rows], truth.category[rows], area)


def find_countable(truth: GroundTruth) -> np.ndarray:
    """(images, classes) bool: where the true count is known: there is no crowd region, which stands for any number."""
    countable = np.ones((len(truth.images), len(truth.categories)), dtype=bool)
    countable[truth.image[truth.crowd], truth.category[truth.crowd]] = False
    return countable


def _measure(mask: object, height: float, width: float) -> float:
    return float(hotcoco.mask.area(to_rle(mask, int(height), int(width))))


def _add_up(truth: GroundTruth, image: np.ndarray, category: np.ndarray, area: np.ndarray) -> Counts:
    shape = len(truth.images), len(truth.categories)
    cells, size = image * shape[1] + category, shape[0] * shape[1]
    return Counts(
        np.bincount(cells, minlength=size).reshape(shape),
        np.bincount(cells, weights=area, minlength=size).reshape(shape),
    )
