"""Masks and keypoints that do not belong to their box or image."""

from __future__ import annotations

import itertools

import numpy as np
import pycocotools.mask

from resnet_det.data.coco import CocoData, Problem
from resnet_det.data.inspection.boxes import TOLERANCE_PX, clip_boxes, image_sizes, to_corners

OFF_BOX_PX, OFF_BOX_FRACTION = 3.0, 0.1  # an edge of the mask farther than both from that of the box is clearly off


def inspect_masks(data: CocoData) -> list[Problem]:
    """Masks that are empty in the image, or clearly elsewhere than their box."""
    polygons, polygon_rows, rles, rle_rows = [], [], [], []
    for row in range(len(data.annotations)):
        mask = data.mask(row)
        if isinstance(mask, list):
            polygons += mask
            polygon_rows += [row] * len(mask)
        elif mask is not None:
            rles.append(mask)
            rle_rows.append(row)
    extents = np.full((len(data.annotations), 4), np.nan)
    if polygons:
        rows, first = np.unique(polygon_rows, return_index=True)
        extents[rows] = _bound_polygons(polygons, first)
    if rles:
        extents[rle_rows] = to_corners(pycocotools.mask.toBbox(rles).astype(float))
    return _compare_with_boxes(data, extents)


def inspect_keypoints(data: CocoData) -> list[Problem]:
    """Problems of the usable keypoints: their visibility, and place."""
    problems = []
    for row, (width, height) in enumerate(image_sizes(data).tolist()):
        keypoints = data.keypoints(row)
        if keypoints is None:
            continue
        index = int(data.index[row])
        points = list(zip(*[iter(keypoints)] * 3, strict=True))
        wrong = [visibility for _, _, visibility in points if visibility not in (0, 1, 2)]
        if wrong:
            message = f"visibility {wrong[0]}; 0 (not labelled), 1 (hidden) or 2 (visible) would be right"
            problems.append(Problem("keypoints-visibility", message, "annotations", index))
        outside = [
            (x, y)
            for x, y, visibility in points
            if visibility > 0
            and not (-TOLERANCE_PX <= x <= width + TOLERANCE_PX and -TOLERANCE_PX <= y <= height + TOLERANCE_PX)
        ]
        if outside:
            x, y = outside[0]
            message = f"{len(outside)} of them, such as ({x}, {y}), are outside the image of {width:.0f}x{height:.0f}"
            problems.append(Problem("keypoints-outside", message, "annotations", index))
    return problems


def _bound_polygons(polygons: list[list[float]], first: np.ndarray) -> np.ndarray:
    """(N, 4) left, top, right, bottom of the polygons from each place in ``first`` up to the next."""
    lengths = np.fromiter(map(len, polygons), dtype=np.int64, count=len(polygons))
    numbers = np.fromiter(itertools.chain.from_iterable(polygons), dtype=np.float64, count=int(lengths.sum()))
    points = numbers.reshape(-1, 2)
    starts = ((np.cumsum(lengths) - lengths) // 2)[first]
    return np.concatenate([np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)], 1)


def _compare_with_boxes(data: CocoData, extents: np.ndarray) -> list[Problem]:
    """Masks whose extent, within the image, is clearly not that of their box."""
    problems = []
    sizes = image_sizes(data)
    corners = to_corners(clip_boxes(data.box, sizes))
    extents = np.clip(extents.reshape(-1, 2, 2), 0, sizes[:, None]).reshape(-1, 4)
    without = (extents[:, 2:] <= extents[:, :2]).any(1)
    for row in np.flatnonzero(without):
        message = "its mask has no pixel in the image: an outline of the object would be right"
        problems.append(Problem("empty-mask", message, "annotations", int(data.index[row])))
    tolerance = np.maximum(OFF_BOX_PX, OFF_BOX_FRACTION * np.abs(data.box[:, 2:]))
    distance = np.abs(extents - corners)
    off = (distance.reshape(-1, 2, 2) > tolerance[:, None]).any((1, 2))
    for row in np.flatnonzero(~without & off):
        left, top, right, bottom = extents[row]
        message = (
            f"its mask spans [{left:.6g}, {top:.6g}, {right - left:.6g}, {bottom - top:.6g}], its box is "
            f"[{', '.join(f'{value:.6g}' for value in data.box[row])}]: up to {distance[row].max():.4g} px apart"
        )
        problems.append(Problem("mask-off-box", message, "annotations", int(data.index[row])))
    return problems
