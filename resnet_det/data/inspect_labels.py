"""What stands out among the labels of a whole set: images without any, without a common class, boxes of odd size."""

from __future__ import annotations

from typing import Any

import numpy as np

from resnet_det.data.inspect_entries import AnnotationTable
from resnet_det.data.problems import Problem

MIN_IMAGES = 20  # with fewer, "nearly all" and "unusual" say nothing
COMMON_FRACTION = 0.9  # of the labelled images have a class that the others may lack by mistake
UNUSUAL_FACTOR, UNUSUAL_DEVIATIONS = 3.0, 6.0  # of the median side of a class; its robust standard deviations


def inspect_labels(content: dict[str, Any], sound: dict[str, list[int]], table: AnnotationTable) -> list[Problem]:
    """Notes on what a person should look at. Expects that names and ids are sound where the places say so."""
    num_images = len(sound["images"])
    listed = table.image < num_images
    counts = np.bincount(table.image[listed], minlength=num_images)
    places = np.array(sound["images"], dtype=np.int64)
    problems = [
        Problem("unlabelled-image", "no annotations: right if it shows no object", "images", int(index))
        for index in places[counts == 0]
    ]
    categories = [content["categories"][index] for index in reversed(sound["categories"])]
    names = {category["id"]: category["name"] for category in categories}  # of an id used twice, the first
    for category in np.unique(table.category):
        rows = np.flatnonzero((table.category == category) & listed)
        if not len(rows):
            continue
        category_id = content["annotations"][table.index[rows[0]]]["category_id"]
        name = names.get(category_id, f"category {category_id}")
        has = np.bincount(table.image[rows], minlength=num_images) > 0
        problems += _find_lacking(name, has, counts > 0, places)
        if has.sum() >= MIN_IMAGES:
            problems += _find_unusual_sizes(name, table, rows)
    return problems


def _find_lacking(name: str, has: np.ndarray, labelled: np.ndarray, places: np.ndarray) -> list[Problem]:
    if labelled.sum() < MIN_IMAGES or has.sum() < COMMON_FRACTION * labelled.sum():
        return []
    message = f"no {name} labelled; {has.sum():,} of {labelled.sum():,} labelled images have one"
    return [Problem("class-not-labelled", message, "images", int(index)) for index in places[labelled & ~has]]


def _find_unusual_sizes(name: str, table: AnnotationTable, rows: np.ndarray) -> list[Problem]:
    """Boxes whose side, as sqrt(width x height), is far from the median of a class whose sizes vary little."""
    rows = rows[np.isfinite(table.boxes[rows]).all(1) & (table.boxes[rows, 2:] > 0).all(1) & ~table.crowd[rows]]
    logs = 0.5 * np.log(table.boxes[rows, 2:]).sum(1)
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
            int(table.index[row]),
        )
        for row, log, (width, height) in zip(rows[far], logs[far], table.boxes[rows[far], 2:], strict=True)
    ]
