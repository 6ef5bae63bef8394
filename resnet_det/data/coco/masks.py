"""Segmentations in the forms in which tools write them, and keypoints."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_util

from resnet_det.data.coco.fields import is_absent, is_number, read_size

MIN_POLYGON_NUMBERS = 6  # x and y of three points
# What pycocotools writes: characters of 6 bits from "0" on, the last without the bit for "goes on".
_RLE_TEXT = re.compile("[0-o]*[0-O]")


class Read(NamedTuple):
    """What a field became.

    Args:
        value: None if there is nothing to use.
        kind: of the problem with it (of :data:`~resnet_det.data.coco.problems.KINDS`); "" if there is none.
        message: what is wrong, and what would be right.
    """

    value: Any
    kind: str = ""
    message: str = ""


def read_mask(value: Any, height: int, width: int) -> Read:
    """A segmentation as COCO has it: a list of polygons [x0, y0, x1, y1, ...] or compressed run lengths.

    Args:
        height, width: of the image in pixels; 0 if not known.
    """
    if is_absent(value):
        return Read(None)
    if isinstance(value, dict):
        return _read_rle(value, height, width)
    if not isinstance(value, list):
        return Read(None, "malformed-mask", f"its segmentation is {value!r:.40}; {_RIGHT}")
    if all(isinstance(part, dict) for part in value):
        return _read_rle_list(value, height, width)
    if _are_polygons(value):
        return Read(value)
    form = ""
    if all(map(is_number, value)):  # one polygon, without the list of polygons around it
        value, form = [value], "a list of numbers"
    elif any(isinstance(part, list) and part and isinstance(part[0], list) for part in value):
        value, form = [_flatten(part) for part in value], "lists of points"
    if not all(isinstance(polygon, list) for polygon in value):
        return Read(None, "malformed-mask", f"its segmentation is {value!r:.40}; {_RIGHT}")
    if not _are_finite(itertools.chain.from_iterable(value)):
        return Read(None, "malformed-mask", "its polygons have NaN, infinity, or other things than numbers")
    usable = [polygon for polygon in value if is_polygon(polygon)]
    if not any(value):
        return Read(None)
    if len(usable) < len(value):
        short = next(number for number, polygon in enumerate(value) if not is_polygon(polygon))
        message = (
            f"polygon {short + 1} of {len(value)} has {len(value[short])} numbers; at least {MIN_POLYGON_NUMBERS}, "
            "x and y of each point, would be right"
        )
        return Read(usable or None, "polygon-too-short", message)
    return (
        Read(usable, "other-form", f"its segmentation is {form}; [[x, y, ...]] would be right") if form else Read(value)
    )


def read_keypoints(value: Any, count: int | None) -> Read:
    """Keypoints as [x, y, visibility, ...].

    Args:
        count: how many the category has; None if it does not say.
    """
    if is_absent(value):
        return Read(None)
    form = ""
    if isinstance(value, list) and all(isinstance(point, list) and len(point) == 3 for point in value):
        value, form = list(itertools.chain.from_iterable(value)), "lists of points"
    if not isinstance(value, list) or not _are_finite(value):
        return Read(None, "keypoints-length", "its keypoints are not a list of numbers")
    if len(value) % 3:
        return Read(None, "keypoints-length", f"{len(value)} numbers; a multiple of 3 would be right")
    if count is not None and len(value) != 3 * count:
        message = f"{len(value)} numbers; {3 * count} for the {count} keypoints of its category would be right"
        return Read(None, "keypoints-length", message)
    return (
        Read(value, "other-form", f"its keypoints are {form}; [x, y, visibility, ...] would be right")
        if form
        else Read(value)
    )


def is_polygon(polygon: list[float]) -> bool:
    """Whether a list of numbers is x, y of at least three points."""
    return len(polygon) >= MIN_POLYGON_NUMBERS and len(polygon) % 2 == 0


def _are_polygons(value: list[Any]) -> bool:
    """Whether a segmentation is what nearly all are."""
    return all(type(part) is list and set(map(type, part)) <= _NUMBERS for part in value) and have_three_points(value)


def have_three_points(polygons: list[list[float]]) -> bool:
    """Whether lists of numbers are all polygons of finite coordinates."""
    for part in polygons:
        # A sum is NaN or infinite where one of its numbers is, and one sum is quicker than many comparisons.
        if len(part) < MIN_POLYGON_NUMBERS or len(part) % 2 or not isfinite(sum(part)):
            return False
    return bool(polygons)


def _are_finite(values: Iterable[Any]) -> bool:
    return all(is_number(value) and isfinite(value) for value in values)


_NUMBERS = {int, float}
_RIGHT = "polygons or a run-length code would be right"


def _flatten(points: Any) -> Any:
    """[[x, y], ...] as [x, y, ...]."""
    if isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points):
        return list(itertools.chain.from_iterable(points))
    return points


def _read_rle(mask: dict[str, Any], height: int, width: int) -> Read:
    size, counts = mask.get("size"), mask.get("counts")
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(is_number(side) and side == int(side) > 0 for side in size)
    ):
        return Read(None, "malformed-mask", f"its run-length code has size {size!r}; [height, width] would be right")
    rows, columns = map(read_size, size)
    if height and (rows, columns) != (height, width):
        return Read(None, "rle-size", f"its mask is {columns}x{rows}, but its image {width}x{height}")
    if isinstance(counts, list):
        if not all(is_number(count) and count >= 0 for count in counts) or sum(counts) != rows * columns:
            message = f"the counts of its run-length code do not sum up to {rows} x {columns}"
            return Read(None, "malformed-mask", message)
        runs = {"size": [rows, columns], "counts": [int(count) for count in counts]}
        return Read(mask_util.frPyObjects(runs, rows, columns))
    text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
    if not is_rle_text(text):
        message = "its run-length code is neither a list of counts nor a text that pycocotools wrote"
        return Read(None, "malformed-mask", message)
    if count_rle_pixels(text) != rows * columns:
        return Read(None, "malformed-mask", f"its run-length code is not one of {rows} x {columns} pixels")
    return Read(mask)


def is_rle_text(text: Any) -> bool:
    """Whether it is made of what compressed run lengths are made of."""
    return isinstance(text, str) and _RLE_TEXT.fullmatch(text) is not None


def _read_rle_list(masks: list[dict[str, Any]], height: int, width: int) -> Read:
    """Several run-length codes for one object: their union."""
    found = [_read_rle(mask, height, width) for mask in masks]
    wrong = next((read for read in found if read.value is None), None)
    if wrong:
        return wrong
    merged = mask_util.merge([read.value for read in found]) if len(found) > 1 else found[0].value
    return Read(merged, "other-form", "its segmentation is a list of run-length codes; one would be right")


def as_json(mask: Any) -> Any:
    """A mask as JSON can have it: run lengths as text."""
    if isinstance(mask, dict) and isinstance(mask["counts"], bytes):
        return {**mask, "counts": mask["counts"].decode("ascii")}
    return mask


def count_rle_pixels(text: str) -> int:
    """The sum of a compressed run-length code. Source: pycocotools' rleFrString."""
    codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 0x20) == 0)
    starts = np.append(0, ends[:-1] + 1)
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 11:  # more than 60 bits
        return -1
    runs = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    negative = (codes[ends] & 0x10) != 0
    runs[negative] -= np.int64(1) << (5 * (place[ends][negative] + 1))
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])  # all but the first three are differences
    return int(runs.sum()) if (runs >= 0).all() else -1
