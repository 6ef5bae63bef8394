"""How many objects of each class an image has, and what area they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hotcoco
import numpy as np

from resnet_det.errors import InputError
from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.overlaps import to_rle

MAX_NAMED = 3  # examples named in a message


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

    Raises:
        InputError: images with polygons have no height and width.
    """
    rows = np.flatnonzero(detections.score >= np.asarray(thresholds)[detections.category])
    if by_mask:
        area = _measure(truth, [detections.rows[row]["segmentation"] for row in rows], detections.image[rows])
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
        has_mask = np.array(["segmentation" in truth.annotations[row] for row in rows], dtype=bool)
        masks = [truth.annotations[row]["segmentation"] for row in rows[has_mask]]
        area[has_mask] = _measure(truth, masks, truth.image[rows[has_mask]])
    return _add_up(truth, truth.image[rows], truth.category[rows], area)


def find_countable(truth: GroundTruth) -> np.ndarray:
    """(images, classes) bool: where the true count is known: there is no crowd region, which stands for any number."""
    countable = np.ones((len(truth.images), len(truth.categories)), dtype=bool)
    countable[truth.image[truth.crowd], truth.category[truth.crowd]] = False
    return countable


def _measure(truth: GroundTruth, masks: Sequence[object], image: np.ndarray) -> np.ndarray:
    """(n,): areas of masks in the images at the places ``image`` (n,)."""
    unsized = {
        place
        for mask, place in zip(masks, image.tolist(), strict=True)
        if isinstance(mask, list) and not truth.size[place].all()
    }
    if unsized:
        names = [str(truth.images[place]["file_name"]) for place in sorted(unsized)[:MAX_NAMED]]
        raise InputError(
            f"{len(unsized)} of {len(truth.images)} images have no height and width in the annotation file, which "
            f"areas of polygons need (such as {', '.join(names)})"
        )
    rles = [to_rle(mask, *map(int, truth.size[place])) for mask, place in zip(masks, image, strict=True)]
    return np.array([hotcoco.mask.area(rle) for rle in rles], dtype=float)


def _add_up(truth: GroundTruth, image: np.ndarray, category: np.ndarray, area: np.ndarray) -> Counts:
    shape = len(truth.images), len(truth.categories)
    cells, size = image * shape[1] + category, shape[0] * shape[1]
    return Counts(
        np.bincount(cells, minlength=size).reshape(shape),
        np.bincount(cells, weights=area, minlength=size).reshape(shape),
    )
