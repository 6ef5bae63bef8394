"""Boxes that are no boxes, outside their image, or there twice. For boxes by the hundred thousand, so on arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from resnet_det.data.inspect_entries import AnnotationTable
from resnet_det.data.problems import Problem

TOLERANCE_PX = 1.0  # rounding, and positions from 0 or from 1
NEAR_IOU = 0.8  # coco_mini has no two boxes of a class above 0.7; accidental copies in BCCD have 0.83 to 0.93


@np.errstate(invalid="ignore", over="ignore")  # NaN and infinity are among what is looked for
def inspect_boxes(annotations: list[Any], table: AnnotationTable) -> list[Problem]:
    """Problems of each box, and of pairs of boxes."""
    finite = np.isfinite(table.boxes).all(1)
    positive = finite & (table.boxes[:, 2:] > 0).all(1)
    corners = to_corners(table.boxes)
    excess = np.concatenate([-corners[:, :2], corners[:, 2:] - table.sizes], 1).max(1)  # NaN for unknown images
    apart = (corners[:, :2] >= table.sizes).any(1) | (corners[:, 2:] <= 0).any(1)
    problems = [
        _make_problem(kind, table, row, message)
        for kind, wrong, message in (
            ("box-not-finite", ~finite, "numbers of pixels would be right"),
            ("box-without-area", finite & ~positive, "width and height above 0 would be right"),
        )
        for row in np.flatnonzero(wrong)
    ]
    problems += [
        _make_problem("box-outside", table, row, f"its image is {_describe_size(table, row)}")
        for row in np.flatnonzero(positive & apart)
    ]
    for row in np.flatnonzero(positive & ~apart & (excess > TOLERANCE_PX)):
        inside = _describe_box(clip_boxes(table.boxes[row : row + 1], table.sizes[row : row + 1])[0])
        message = f"{excess[row]:.4g} px outside the image of {_describe_size(table, row)}; clipped it is {inside}"
        problems.append(_make_problem("box-partly-outside", table, row, message))
    return problems + _inspect_pairs(annotations, table, corners, positive)


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) x, y, width, height to left, top, right, bottom."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def clip_boxes(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N, 4) boxes x, y, width, height without what is outside images of ``sizes`` (N, 2) width, height."""
    corners = np.clip(to_corners(boxes).reshape(-1, 2, 2), 0, sizes[:, None])
    return np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], 1)


def _inspect_pairs(
    annotations: list[Any], table: AnnotationTable, corners: np.ndarray, usable: np.ndarray
) -> list[Problem]:
    """Boxes of the same image and class within 1 px of an earlier one, or nearly covering it."""
    rows = np.flatnonzero(usable & (table.image < len(table.image_sizes) - 1))
    worst: dict[int, tuple[str, int, str]] = {}
    for first, second in _pair_neighbours(table, corners, rows):
        distance = np.abs(corners[first] - corners[second]).max(1)
        ious = _paired_ious(corners[first], corners[second])
        for kind, hits in (
            ("duplicate-box", distance <= TOLERANCE_PX),
            ("near-duplicate-box", (distance > TOLERANCE_PX) & (ious >= NEAR_IOU)),
        ):
            for pair in np.flatnonzero(hits):
                earlier, later = sorted((int(first[pair]), int(second[pair])))
                if kind == "duplicate-box" or later not in worst:
                    worst[later] = (kind, earlier, f"IoU {ious[pair]:.2f}, {distance[pair]:.3g} px apart")
    return [
        _make_problem(kind, table, row, f"the same as annotation {annotations[table.index[earlier]]['id']}? {how}")
        for row, (kind, earlier, how) in sorted(worst.items())
    ]


def _pair_neighbours(
    table: AnnotationTable, corners: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows of the same image, class and crowd flag whose left edges are near enough for ``NEAR_IOU``.

    With rows sorted by left edge, each is compared with its next one, its second next, and so on, until none is near:
    as many steps as boxes begin close together, each on whole arrays.
    """
    order = rows[np.lexsort((corners[rows, 0], table.crowd[rows], table.category[rows], table.image[rows]))]
    group = np.stack([table.image, table.category, table.crowd], 1)[order]
    left = corners[order, 0]
    # Of boxes with IoU t, the wider is at most 1/t of the other; edges differ by at most (1-t) of their union's width.
    reach = np.maximum(TOLERANCE_PX, (1 - NEAR_IOU) / NEAR_IOU * table.boxes[order, 2])
    active, step = np.arange(len(order)), 1
    while len(active):
        active = active[active + step < len(order)]
        near = (group[active] == group[active + step]).all(1) & (left[active + step] - left[active] <= reach[active])
        active = active[near]
        if len(active):
            yield order[active], order[active + step]
        step += 1


def _paired_ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    overlap = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    shared = np.maximum(overlap, 0).prod(1)
    return shared / ((first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1) - shared)


def _make_problem(kind: str, table: AnnotationTable, row: int, message: str) -> Problem:
    return Problem(kind, f"box {_describe_box(table.boxes[row])}: {message}", "annotations", int(table.index[row]))


def _describe_box(box: np.ndarray) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in box)}]"


def _describe_size(table: AnnotationTable, row: int) -> str:
    width, height = table.sizes[row]
    return f"{width:.0f}x{height:.0f}"
