"""Masks as one polygon, for formats that have nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resnet_det.data.formats.shapes import Point


def trace_outlines(pixels: np.ndarray) -> tuple[list[list[Point]], int]:
    """The outlines of the parts of a mask (H, W) along the edges of its pixels, and how many holes are in them.

    Pixels that touch at a corner alone are two parts. Why not OpenCV's contours: they go through the centres of the
    pixels, so that each object loses half a pixel all round.
    """
    padded = np.pad(pixels.astype(bool), 1)
    inner = padded[1:-1, 1:-1]
    steps: dict[Point, list[Point]] = {}
    for outside, start, end in (  # the object is to the right of each step
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        rows, columns = np.nonzero(inner & ~outside)
        for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
            steps.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    outlines, holes = [], 0
    while steps:
        outline = _follow(steps)
        if _signed_area(outline) > 0:
            outlines.append(outline)
        else:
            holes += 1
    return outlines, holes


def _follow(steps: dict[Point, list[Point]]) -> list[Point]:
    """One closed outline, whose steps are taken out of ``steps``; corners alone."""
    start = next(iter(steps))
    here, direction, corners = start, (0, 0), []
    while True:
        choices = steps[here]
        right_turn = (here[0] - direction[1], here[1] + direction[0])
        there = right_turn if right_turn in choices else choices[0]
        choices.remove(there)
        if not choices:
            del steps[here]
        turned = (there[0] - here[0], there[1] - here[1])
        if turned != direction:
            corners.append(here)
        here, direction = there, turned
        if here == start:
            return corners


def _signed_area(outline: Sequence[Point]) -> float:
    """Above 0 for outlines that go clockwise, as y grows downwards."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(outline, [*outline[1:], outline[0]], strict=True))


def join_outlines(outlines: Sequence[Sequence[Point]]) -> list[Point]:
    """One polygon of several: lines without width go from each to the nearest corner of what is joined so far, as
    Ultralytics' own converter does."""
    joined = list(outlines[0])
    for outline in outlines[1:]:
        ours, theirs = np.asarray(joined, dtype=float), np.asarray(outline, dtype=float)
        distances = ((ours[:, None] - theirs[None]) ** 2).sum(2)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        joined[here:here] = [joined[here], *outline[there:], *outline[: there + 1]]
    return joined
