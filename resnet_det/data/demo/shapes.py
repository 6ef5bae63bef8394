"""Shapes in whole numbers: outlines, rotation, filling and tracing, with the same result on every machine.

Floating-point sine, image libraries and their contour finders differ in the last bit between machines and versions;
integers do not. Outlines are lists of (x, y) in units of 1/``UNITS_PER_PX`` pixel, y downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

UNITS_PER_PX = 64
TURN = 360

# cos and sin of whole degrees in 1/4096: rounding this coarse hides the last bits in which machines differ.
_COS = [round(math.cos(math.radians(degree)) * 4096) for degree in range(TURN)]
_SIN = [round(math.sin(math.radians(degree)) * 4096) for degree in range(TURN)]


@dataclass(frozen=True)
class Shape:
    """A class of the demo data: its outline and keypoints, if any, within a circle of radius 1000 about (0, 0)."""

    name: str
    outline: tuple[tuple[int, int], ...]
    keypoints: tuple[tuple[int, int], ...] = ()


def _ring(*radii: int, points: int, start: int = 0) -> tuple[tuple[int, int], ...]:
    """Points at equal angles, with ``radii`` taken in turn."""
    corners = []
    for index in range(points):
        degree, radius = (start + index * TURN // points) % TURN, radii[index % len(radii)]
        corners.append((radius * _COS[degree] // 4096, radius * _SIN[degree] // 4096))
    return tuple(corners)


KEYPOINT_NAMES = ("head", "left", "right", "tail")
KEYPOINT_FLIP_MAP = (("left", "right"),)

SHAPES = (
    Shape("disc", _ring(1000, points=40)),
    Shape("triangle", _ring(1000, points=3, start=270)),
    Shape("star", _ring(1000, 420, points=10, start=270)),
    Shape("cross", tuple((x * 320, y * 320) for x, y in (
        (-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)))),
    Shape(
        "arrow",
        ((0, -1000), (800, -100), (300, -100), (300, 950), (-300, 950), (-300, -100), (-800, -100)),
        ((0, -850), (-600, -180), (600, -180), (0, 850)),
    ),
    Shape(
        "fish",
        ((0, -1000), (380, -720), (500, -300), (400, 100), (150, 450), (600, 950), (0, 780), (-600, 950), (-150, 450),
        (-400, 100),
         (-500, -300), (-380, -720)),
        ((0, -850), (-420, -300), (420, -300), (0, 680)),
    ),
)  # fmt: skip


def place(points: tuple[tuple[int, int], ...], centre_px: tuple[int, int], radius_px: int, degree: int) -> np.ndarray:
    """``points`` turned by ``degree``, scaled to ``radius_px`` and moved to ``centre_px``: (n, 2) int64 in units."""
    xy = np.asarray(points, dtype=np.int64)
    cos, sin = _COS[degree % TURN], _SIN[degree % TURN]
    turned = np.stack([xy[:, 0] * cos - xy[:, 1] * sin, xy[:, 0] * sin + xy[:, 1] * cos], axis=1)
    return turned * (radius_px * UNITS_PER_PX) // (1000 * 4096) + np.asarray(centre_px, dtype=np.int64) * UNITS_PER_PX


def outline_area_px(outline: np.ndarray) -> int:
    """Area of an (n, 2) outline in pixels."""
    (x, y), (next_x, next_y) = outline.T, np.roll(outline, -1, axis=0).T
    return abs(int((x * next_y - next_x * y).sum())) // (2 * UNITS_PER_PX**2)


def coverage(outline: np.ndarray, height: int, width: int) -> np.ndarray:
    """How many of each pixel's four sample points lie within ``outline`` (even-odd): (height, width) int32, 0 to 4."""
    covered = np.zeros((height, width), dtype=np.int32)
    low = np.clip(outline.min(axis=0) // UNITS_PER_PX, 0, (width, height)).tolist()
    high = np.clip(outline.max(axis=0) // UNITS_PER_PX + 1, 0, (width, height)).tolist()
    step = UNITS_PER_PX // 2
    x = np.arange(low[0] * 2, high[0] * 2)[None, :] * step + step // 2
    y = np.arange(low[1] * 2, high[1] * 2)[:, None] * step + step // 2
    inside = np.zeros((y.size, x.size), dtype=bool)
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        rows = np.flatnonzero((y0 <= y) != (y1 <= y))
        if len(rows):
            left_of_edge = (x - x0) * (y1 - y0) < (y[rows] - y0) * (x1 - x0)
            inside[rows] ^= left_of_edge == (y1 > y0)
    samples = inside.reshape(high[1] - low[1], 2, high[0] - low[0], 2).sum(axis=(1, 3))
    covered[low[1] : high[1], low[0] : high[0]] = samples
    return covered


def trace(mask: np.ndarray) -> list[list[int]]:
    """Polygons [x0, y0, x1, y1, ...] in pixels along the outer borders of ``mask``, one for each connected part;
    holes are left out.

    The borders run between pixels, with the mask on their right-hand side, so a polygon has exactly the pixels of its
    part.
    """
    padded = np.pad(mask.astype(bool), 1)
    here, above, left = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for edges, start, direction in (
        (here & ~above, (0, 0), (1, 0)),
        (~here & above, (1, 0), (-1, 0)),
        (here & ~left, (0, 1), (0, -1)),
        (~here & left, (0, 0), (0, 1)),
    ):
        for y, x in np.argwhere(edges).tolist():
            steps.setdefault((x + start[0], y + start[1]), []).append(direction)
    polygons = []
    while steps:
        polygon = [value for corner in _follow(steps) for value in corner]
        if polygon_area(polygon) > 0:
            polygons.append(polygon)
    return polygons


def polygon_area(polygon: list[int]) -> int:
    """Area in pixels of a polygon of :func:`trace`; negative where it runs around a hole."""
    x, y = polygon[::2], polygon[1::2]
    corners = zip(x, y, x[1:] + x[:1], y[1:] + y[:1], strict=True)
    return sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in corners) // 2


def _follow(steps: dict[tuple[int, int], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Take one closed border out of ``steps``: its corners. Turning right where borders touch keeps them apart."""
    start = next(iter(steps))
    path = [(start, steps[start][0])]
    while True:
        position, direction = path[-1]
        steps[position].remove(direction)
        if not steps[position]:
            del steps[position]
        position = (position[0] + direction[0], position[1] + direction[1])
        right = (-direction[1], direction[0])
        options = steps.get(position, [])
        if position == start and right not in options:
            break
        path.append((position, right if right in options else options[0]))
    previous = [path[-1], *path[:-1]]
    return [position for (position, direction), (_, before) in zip(path, previous, strict=True) if direction != before]
