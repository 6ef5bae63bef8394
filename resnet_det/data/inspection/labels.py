"""What stands out among the labels of a whole set: images without any, without a common class, boxes of odd size."""

from __future__ import annotations

import numpy as np

from resnet_det.data.coco import CocoData, Problem

MIN_IMAGES = 20  # with fewer, "nearly all" and "unusual" say nothing
COMMON_FRACTION = 0.9  # of the labelled images have a class that the others may lack by mistake
UNUSUAL_FACTOR, UNUSUAL_DEVIATIONS = 3.0, 6.0  # of the median side of a class; its robust standard deviations


def inspect_labels(data: CocoData) -> list[Problem]:
    """Notes on what a person should look at."""
    num_images = len(data.images)
    counts = np.bincount(data.image, minlength=num_images)
    places = data.image_index
    problems = [
        Problem("unlabelled-image", "no annotations: right if it shows no object", "images", int(index))
        for index in np.sort(places[~data.is_labelled])
    ]
    for category in np.unique(data.category):
        rows = np.flatnonzero(data.category == category)
        name = data.class_names[category]
        has = np.bincount(data.image[rows], minlength=num_images) > 0
        problems += _find_lacking(name, has, counts > 0, places)
        if has.sum() >= MIN_IMAGES:
            problems += _find_unusual_sizes(name, data, rows)
    return problems


def _find_lacking(name: str, has: np.ndarray, labelled: np.ndarray, places: np.ndarray) -> list[Problem]:
    if labelled.sum() < MIN_IMAGES or has.sum() < COMMON_FRACTION * labelled.sum():
        return []
    message = f"no {name} labelled; {has.sum():,} of {labelled.sum():,} labelled images have one"
    return [Problem("class-not-labelled", message, "images", int(index)) for index in places[labelled & ~has]]


def _find_unusual_sizes(name: str, data: CocoData, rows: np.ndarray) -> list[Problem]:
    """Boxes whose side, as sqrt(width x height), is far from the median of a class whose sizes vary little."""
    rows = rows[~data.crowd[rows]]
    logs = 0.5 * np.log(data.box[rows, 2:]).sum(1)
    if not len(logs):
        return []
    median = np.median(logs)
    deviation = 1.4826 * np.median(np.abs(logs - median))  # the standard deviation, if sizes are log-normal
    far = np.abs(logs - median) > max(np.log(UNUSUAL_FACTOR), UNUSUAL_DEVIATIONS * deviation)
    return [
        Problem(
            "unusual-size",
            f"a {name} of {width:.4g}x{height:.4g} px is {np.exp(abs(log - median)):.1f} times "
            f"{'larger' if log > median else 'smaller'} than the median {name}; is it one?",
            "annotations",
            int(data.index[row]),
        )
        for row, log, (width, height) in zip(rows[far], logs[far], data.box[rows[far], 2:], strict=True)
    ]
