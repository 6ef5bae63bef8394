"""Panoptic segmentation as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import supervision as sv


def draw_panoptic(
    image: np.ndarray, segments: np.ndarray, described: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> np.ndarray:
    """A copy of ``image`` with each segment in a colour of its own and its name on it.

    Args:
        image: (H, W, 3) uint8 in BGR order.
        segments: (H, W) ids; 0 belongs to none.
        described: the segments that are drawn, by their "id", as Detectron2 describes them.
        names: of the segments in the same order.
    """
    canvas = image.copy()
    for number, segment in enumerate(described):
        mask = segments == segment["id"]
        colour = sv.ColorPalette.DEFAULT.by_idx(number).as_bgr()
        canvas[mask] = (0.5 * image[mask] + 0.5 * np.array(colour)).astype(np.uint8)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, colour, 1, cv2.LINE_AA)
    scale = max(0.4, min(0.7, max(image.shape[:2]) / 1400))
    for segment, name in zip(described, names, strict=True):
        x, y = _inside(segments == segment["id"])
        (width, height), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        x = int(np.clip(x - width / 2, 0, max(0, canvas.shape[1] - width)))
        y = int(np.clip(y + height / 2, height, canvas.shape[0] - 1))
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(canvas, name, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
    return canvas


def _inside(mask: np.ndarray) -> tuple[int, int]:
    """The point of the mask that is farthest from its edge, as x, y."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    row, column = np.unravel_index(distance.argmax(), distance.shape)
    return int(column) - 1, int(row) - 1
