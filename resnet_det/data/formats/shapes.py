"""Shapes that annotation tools draw, on their way to boxes and masks inside the image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from resnet_det.data.coco.fields import read_number
from resnet_det.data.formats.labels import LabelledObject
from resnet_det.errors import InputError

Point = tuple[float, float]
ROUNDING_PX = 1e-6  # beyond the image that is not worth a word
OUTLINE_ERROR_PX = 0.05  # between a circle and the polygon that stands for it
MIN_CORNERS = 3
CLIPPED = "objects that reach outside their image, which are clipped"


def make_box(name: str, corners: Sequence[Point], size: tuple[int, int], mended: Counter[str]) -> LabelledObject:
    """A box from two opposite corners, in pixels.

    Args:
        size: width and height of the image.
        mended: where it is counted that a box is clipped to the image.

    Raises:
        InputError: nothing of it is in the image.
    """
    (x0, y0), (x1, y1) = corners
    left, top, right, bottom = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
    if right <= left or bottom <= top:
        raise InputError("its box is empty")
    if left >= size[0] or top >= size[1] or right <= 0 or bottom <= 0:
        raise InputError(f"it lies outside the image of {size[0]} x {size[1]} pixels")
    if max(-left, -top, right - size[0], bottom - size[1]) > ROUNDING_PX:
        mended[CLIPPED] += 1
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    return LabelledObject(name, (left, top, right - left, bottom - top))


def make_outline(
    name: str, outlines: Sequence[Sequence[Point]], size: tuple[int, int], mended: Counter[str]
) -> LabelledObject:
    """An object of one or more polygons, which are its mask; see :func:`make_box`.

    Raises:
        InputError: a polygon has fewer than three corners, or nothing of the object is in the image.
    """
    for outline in outlines:
        if len(outline) < MIN_CORNERS:
            raise InputError(f"a polygon of {len(outline)} points; at least {MIN_CORNERS} would be right")
    points = np.concatenate([np.asarray(outline, dtype=float) for outline in outlines])
    excess = max(-points.min(), *(points.max(0) - size))
    if excess > 0:
        outlines = [clipped for clipped in (clip_polygon(outline, size) for outline in outlines) if clipped]
        if not outlines:
            raise InputError(f"it lies outside the image of {size[0]} x {size[1]} pixels")
        points = np.concatenate([np.asarray(outline, dtype=float) for outline in outlines])
    box = make_box(name, [tuple(points.min(0).tolist()), tuple(points.max(0).tolist())], size, mended)
    if excess > ROUNDING_PX:
        mended[CLIPPED] += 1
    polygons = [[float(number) for point in outline for number in point] for outline in outlines]
    return LabelledObject(name, box.box, polygons)


def make_mask(name: str, run_lengths: dict[str, Any]) -> LabelledObject:
    """An object of pycocotools' run lengths: holes and parts stay as they are.

    Raises:
        InputError: the mask is empty.
    """
    x, y, width, height = mask_util.toBbox(run_lengths).tolist()
    if not (width and height):
        raise InputError("its mask has no pixels")
    return LabelledObject(name, (x, y, width, height), run_lengths)


def encode(pixels: np.ndarray) -> dict[str, Any]:
    """The run lengths of the pixels (H, W) that are not 0."""
    return mask_util.encode(np.asfortranarray(pixels.astype(bool), dtype=np.uint8))


def encode_labels(labels: np.ndarray) -> dict[int, dict[str, Any]]:
    """The run lengths of the pixels of each number in ``labels`` (H, W), but for 0.

    Its time does not grow with the number of objects: run lengths go down the columns, so that the sorted places of a
    number's pixels are runs with gaps between.
    """
    height, width = labels.shape
    flat = labels.ravel(order="F")
    places = np.flatnonzero(flat)
    places = places[np.argsort(flat[places], kind="stable")]
    numbers, starts = np.unique(flat[places], return_index=True)
    found = {}
    for number, own in zip(numbers.tolist(), np.split(places, starts[1:]) if len(places) else [], strict=True):
        breaks = np.flatnonzero(np.diff(own) != 1) + 1
        firsts, ends = own[np.append(0, breaks)], own[np.append(breaks - 1, len(own) - 1)] + 1
        edges = np.stack([firsts, ends], 1).ravel()
        counts = np.diff(edges, prepend=0, append=height * width)
        found[number] = mask_util.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return found


def clip_polygon(outline: Sequence[Point], size: tuple[int, int]) -> list[Point]:
    """What of a polygon is in an image of ``size`` (width, height).

    Sutherland and Hodgman, "Reentrant polygon clipping" (1974): one side of the image after the other.
    """
    for axis, limit, sign in ((0, 0.0, 1), (0, size[0], -1), (1, 0.0, 1), (1, size[1], -1)):
        kept: list[Point] = []
        for before, point in zip([*outline[-1:], *outline[:-1]], outline, strict=True):
            depths = sign * (before[axis] - limit), sign * (point[axis] - limit)
            if (depths[0] < 0) != (depths[1] < 0):
                share = depths[0] / (depths[0] - depths[1])
                crossing = [start + share * (end - start) for start, end in zip(before, point, strict=True)]
                crossing[axis] = float(limit)
                kept.append(tuple(crossing))
            if depths[1] >= 0:
                kept.append(tuple(point))
        outline = kept
    return list(outline)


def outline_ellipse(centre: Point, radii: Point, degrees: float = 0.0) -> list[Point]:
    """The corners of a polygon that is an ellipse to a twentieth of a pixel.

    Args:
        radii: in pixels, before it is turned.
        degrees: clockwise, as y grows downwards.

    Raises:
        InputError: it has no area.
    """
    if min(radii) <= 0:
        raise InputError("its radius is not above 0")
    count = max(12, math.ceil(math.pi * math.sqrt(max(radii) / (2 * OUTLINE_ERROR_PX))))
    angles = np.linspace(0, 2 * math.pi, count, endpoint=False)
    points = np.stack([centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)], 1)
    return turn(points.tolist(), centre, degrees)


def outline_box(corners: Sequence[Point]) -> list[Point]:
    """The four corners of a box that two opposite ones tell."""
    (x0, y0), (x1, y1) = corners
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def turn(points: Sequence[Point], centre: Point, degrees: float) -> list[Point]:
    """Points turned round ``centre``, clockwise as y grows downwards."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [
        (
            centre[0] + (x - centre[0]) * cosine - (y - centre[1]) * sine,
            centre[1] + (x - centre[0]) * sine + (y - centre[1]) * cosine,
        )
        for x, y in points
    ]


def read_points(value: Any, count: int | None = None) -> list[Point]:
    """[[x, y], ...] of finite numbers.

    Args:
        count: how many there must be; None for any number.

    Raises:
        InputError: it is something else.
    """
    points = [read_point(point) for point in value] if isinstance(value, list) else []
    if not points or (count is not None and len(points) != count):
        right = f"{count} points" if count else "a list of points"
        raise InputError(f"its points are {value!r:.60}; {right} [x, y] would be right")
    return points


def read_point(value: Any) -> Point:
    """
    Raises:
        InputError: it is not two finite numbers.
    """
    numbers = [read_number(number) for number in value] if isinstance(value, list) else []
    if len(numbers) != 2 or None in numbers:
        raise InputError(f"a point is {value!r:.60}; two numbers would be right")
    return float(numbers[0]), float(numbers[1])


def read_numbers(source: Any, keys: Sequence[str]) -> list[float]:
    """The finite numbers under ``keys`` of an object.

    Raises:
        InputError: one of them is not there, or is none.
    """
    numbers = [read_number(source.get(key)) if isinstance(source, dict) else None for key in keys]
    if None in numbers:
        key = keys[numbers.index(None)]
        raise InputError(f"its {key} is {source.get(key) if isinstance(source, dict) else source!r:.40}, not a number")
    return [float(number) for number in numbers]
