"""Boxes that reach out of their image, or are there twice. For boxes by the hundred thousand, so on arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from resnet_det.data.coco import CocoData, Problem
from resnet_det.data.coco.annotations import describe_box

TOLERANCE_PX = 1.0  # rounding, and positions from 0 or from 1
NEAR_IOU = 0.8  # coco_mini has no two boxes of a class above 0.7; accidental copies in BCCD have 0.83 to 0.93


def inspect_boxes(data: CocoData) -> list[Problem]:
    """Boxes that reach out of their image, and pairs of boxes."""
    corners = to_corners(data.box)
    sizes = image_sizes(data)
    excess = np.concatenate([-corners[:, :2], corners[:, 2:] - sizes], 1).max(1, initial=-np.inf)
    problems = []
    for row in np.flatnonzero(excess > TOLERANCE_PX):
        inside = describe_box(clip_boxes(data.box[row : row + 1], sizes[row : row + 1])[0])
        width, height = sizes[row]
        message = f"{excess[row]:.4g} px outside the image of {width:.0f}x{height:.0f}; clipped it is {inside}"
        problems.append(_make_problem("box-partly-outside", data, row, message))
    return problems + _inspect_pairs(data, corners)


def image_sizes(data: CocoData) -> np.ndarray:
    """(n, 2) width and height of each annotation's image; infinite where not known."""
    sizes = data.sizes[data.image][:, ::-1].astype(float)
    return np.where(sizes > 0, sizes, np.inf)


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) x, y, width, height to left, top, right, bottom."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def clip_boxes(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N, 4) boxes x, y, width, height without what is outside images of ``sizes`` (N, 2) width, height."""
    corners = np.clip(to_corners(boxes).reshape(-1, 2, 2), 0, sizes[:, None])
    return np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], 1)


def _inspect_pairs(data: CocoData, corners: np.ndarray) -> list[Problem]:
    """Boxes of the same image and class within 1 px of an earlier one, or nearly covering it."""
    worst: dict[int, tuple[str, int, str]] = {}
    for first, second in _pair_neighbours(data, corners):
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
        _make_problem(kind, data, row, f"the same as annotation {data.annotations[earlier].id}? {how}")
        for row, (kind, earlier, how) in sorted(worst.items())
    ]


def _pair_neighbours(data: CocoData, corners: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows of the same image, class and crowd flag whose left edges are near enough for ``NEAR_IOU``.

    With rows sorted by left edge, each is compared with its next one, its second next, and so on, until none is near:
    as many steps as boxes begin close together, each on whole arrays.
    """
    order = np.lexsort((corners[:, 0], data.crowd, data.category, data.image))
    group = np.stack([data.image, data.category, data.crowd], 1)[order]
    left = corners[order, 0]
    # Of boxes with IoU t, the wider is at most 1/t of the other; edges differ by at most (1-t) of their union's width.
    reach = np.maximum(TOLERANCE_PX, (1 - NEAR_IOU) / NEAR_IOU * data.box[order, 2])
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


def _make_problem(kind: str, data: CocoData, row: int, message: str) -> Problem:
    return Problem(kind, f"box {describe_box(data.box[row])}: {message}", "annotations", int(data.index[row]))
