"""Masks and keypoints that are malformed, or do not belong to their box or image."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pycocotools.mask

from resnet_det.data.inspect_boxes import TOLERANCE_PX, clip_boxes, to_corners
from resnet_det.data.inspect_entries import AnnotationTable, is_id, is_number
from resnet_det.data.problems import Problem

MIN_POLYGON = 6  # numbers: x and y of three points
OFF_BOX_PX, OFF_BOX_FRACTION = 3.0, 0.1  # an edge of the mask farther than both from that of the box is clearly off


def inspect_masks(annotations: list[Any], table: AnnotationTable) -> list[Problem]:
    """Problems of the segmentations: polygons, and run-length codes, compressed or not."""
    problems: list[Problem] = []
    polygons, polygon_rows, rles, rle_rows = [], [], [], []
    for row, (index, size) in enumerate(zip(table.index.tolist(), table.sizes.tolist(), strict=True)):
        mask = annotations[index].get("segmentation")
        if mask is None:
            continue
        fault = _find_fault(mask, size)
        if fault:
            problems.append(Problem(*fault, "annotations", index))
        elif isinstance(mask, list):
            polygons += mask
            polygon_rows += [row] * len(mask)
        else:
            rles.append(mask)
            rle_rows.append(row)
    extents = np.full((len(table.index), 4), np.nan)
    if polygons:
        rows, first = np.unique(polygon_rows, return_index=True)
        extents[rows] = _bound_polygons(polygons, first)
    if rles:
        encoded = [pycocotools.mask.frPyObjects(r, *r["size"]) if isinstance(r["counts"], list) else r for r in rles]
        extents[rle_rows] = to_corners(pycocotools.mask.toBbox(encoded).astype(float))
    return problems + _compare_with_boxes(table, extents)


def inspect_keypoints(content: dict[str, Any], table: AnnotationTable) -> list[Problem]:
    """Problems of the keypoints: their number, visibility, and place."""
    counts = {
        category["id"]: len(category["keypoints"])
        for category in content["categories"]
        if isinstance(category, dict) and is_id(category.get("id")) and isinstance(category.get("keypoints"), list)
    }
    problems = []
    for index, (width, height) in zip(table.index.tolist(), table.sizes.tolist(), strict=True):
        annotation = content["annotations"][index]
        keypoints = annotation.get("keypoints")
        if keypoints is None:
            continue
        count = counts.get(annotation["category_id"])
        if not isinstance(keypoints, list) or not all(map(is_number, keypoints)):
            message = "they are not a list of numbers"
        elif len(keypoints) % 3:
            message = f"{len(keypoints)} numbers; a multiple of 3 would be right"
        elif count is not None and len(keypoints) != 3 * count:
            message = f"{len(keypoints)} numbers; {3 * count} for the {count} of its category would be right"
        else:
            message = ""
        if message:
            problems.append(Problem("keypoints-length", message, "annotations", index))
            continue
        points = list(zip(*[iter(keypoints)] * 3, strict=True))
        wrong = [visibility for _, _, visibility in points if visibility not in (0, 1, 2)]
        if wrong:
            message = f"visibility {wrong[0]}; 0 (not labelled), 1 (hidden) or 2 (visible) would be right"
            problems.append(Problem("keypoints-visibility", message, "annotations", index))
        outside = [
            (x, y)
            for x, y, visibility in points
            if visibility > 0
            and not (np.isnan(width))
            and not (-TOLERANCE_PX <= x <= width + TOLERANCE_PX and -TOLERANCE_PX <= y <= height + TOLERANCE_PX)
        ]
        if outside:
            x, y = outside[0]
            message = f"{len(outside)} of them, such as ({x}, {y}), are outside the image of {width:.0f}x{height:.0f}"
            problems.append(Problem("keypoints-outside", message, "annotations", index))
    return problems


def is_polygon(polygon: list[float]) -> bool:
    """Whether a list of numbers is x, y of at least three points."""
    return len(polygon) >= MIN_POLYGON and len(polygon) % 2 == 0


def _find_fault(mask: Any, size: list[float]) -> tuple[str, str] | None:
    """Kind and message of what is wrong with a segmentation in an image of ``size`` width, height."""
    if isinstance(mask, dict):
        return _find_rle_fault(mask, size)
    if not isinstance(mask, list):
        return "malformed-mask", f"its segmentation is {mask!r:.40}; polygons or a run-length code would be right"
    if not mask:
        return "empty-mask", "its segmentation is []: it is left out where masks are trained"
    if not all(isinstance(polygon, list) for polygon in mask):
        return "malformed-mask", "its segmentation is not a list of polygons; [[x, y, ...]] would be right"
    # A sum is NaN or infinite where one of its numbers is, and one sum is quicker than many comparisons.
    if not all(map(is_number, itertools.chain.from_iterable(mask))) or not np.isfinite(sum(map(sum, mask))):
        return "malformed-mask", "its polygons have NaN, infinity, or other things than numbers"
    short = [number for number, polygon in enumerate(mask, 1) if not is_polygon(polygon)]
    if short:
        length = len(mask[short[0] - 1])
        return "polygon-too-short", (
            f"polygon {short[0]} of {len(mask)} has {length} number{'' if length == 1 else 's'}; "
            f"at least {MIN_POLYGON}, x and y of each point, would be right"
        )
    return None


def _find_rle_fault(mask: dict[str, Any], size: list[float]) -> tuple[str, str] | None:
    rle_size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(rle_size, list) or len(rle_size) != 2 or not all(type(s) is int and s > 0 for s in rle_size):
        return "malformed-mask", f"its run-length code has size {rle_size!r}; [height, width] would be right"
    height, width = rle_size
    if not np.isnan(size[0]) and (width, height) != tuple(size):
        return "rle-size", f"its mask is {width}x{height}, but its image {size[0]:.0f}x{size[1]:.0f}"
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
            return "malformed-mask", f"the counts of its run-length code do not sum up to {height} x {width}"
    elif not isinstance(counts, str) or not _is_rle_text(counts):
        return "malformed-mask", "its run-length code is neither a list of counts nor a text that pycocotools wrote"
    return None


def _is_rle_text(counts: str) -> bool:
    """Whether pycocotools can read it: characters of 6 bits from "0" on, the last without the bit for "goes on"."""
    return bool(counts) and all("0" <= char <= "o" for char in counts) and not (ord(counts[-1]) - 48) & 0x20


def _bound_polygons(polygons: list[list[float]], first: np.ndarray) -> np.ndarray:
    """(N, 4) left, top, right, bottom of the polygons from each place in ``first`` up to the next."""
    lengths = np.fromiter(map(len, polygons), dtype=np.int64, count=len(polygons))
    numbers = np.fromiter(itertools.chain.from_iterable(polygons), dtype=np.float64, count=int(lengths.sum()))
    points = numbers.reshape(-1, 2)
    starts = ((np.cumsum(lengths) - lengths) // 2)[first]
    return np.concatenate([np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)], 1)


@np.errstate(invalid="ignore", over="ignore")  # boxes with NaN and infinity are told elsewhere
def _compare_with_boxes(table: AnnotationTable, extents: np.ndarray) -> list[Problem]:
    """Masks whose extent, within the image, is clearly not that of their box."""
    problems = []
    sizes = np.where(np.isnan(table.sizes), np.inf, table.sizes)
    usable = np.isfinite(table.boxes).all(1) & (table.boxes[:, 2:] > 0).all(1)
    corners = to_corners(clip_boxes(table.boxes, sizes))
    extents = np.clip(extents.reshape(-1, 2, 2), 0, sizes[:, None]).reshape(-1, 4)
    without = (extents[:, 2:] <= extents[:, :2]).any(1)
    for row in np.flatnonzero(without):
        message = "its mask has no pixel in the image: an outline of the object would be right"
        problems.append(Problem("empty-mask", message, "annotations", int(table.index[row])))
    tolerance = np.maximum(OFF_BOX_PX, OFF_BOX_FRACTION * np.abs(table.boxes[:, 2:]))
    distance = np.abs(extents - corners)
    off = (distance.reshape(-1, 2, 2) > tolerance[:, None]).any((1, 2))
    for row in np.flatnonzero(usable & ~without & off):
        left, top, right, bottom = extents[row]
        message = (
            f"its mask spans [{left:.6g}, {top:.6g}, {right - left:.6g}, {bottom - top:.6g}], its box is "
            f"[{', '.join(f'{value:.6g}' for value in table.boxes[row])}]: up to {distance[row].max():.4g} px apart"
        )
        problems.append(Problem("mask-off-box", message, "annotations", int(table.index[row])))
    return problems
