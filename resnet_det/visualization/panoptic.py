"""Panoptic segmentation as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from resnet_det.visualization.drawing import COLOURS, draw_masks_


def draw_panoptic(
    image: np.ndarray,
    segments: np.ndarray,
    described: Sequence[Mapping[str, Any]],
    thing_names: Sequence[str],
    stuff_names: Sequence[str],
) -> np.ndarray:
    """A copy of ``image`` with each segment in the colour of its class, and its name on it.

    Args:
        image: (H, W, 3) uint8 in BGR order.
        segments: (H, W) ids; 0 belongs to none.
        described: the segments that are drawn, by their "id", as Detectron2 describes them.
        thing_names: of the classes with instances.
        stuff_names: of the classes without.
    """
    canvas = image.copy()
    masks = np.stack([segments == segment["id"] for segment in described]) if described else np.zeros((0, 0, 0), bool)
    places = [segment["category_id"] + (0 if segment["isthing"] else len(thing_names)) for segment in described]
    draw_masks_(canvas, masks, [COLOURS.by_idx(place).as_bgr() for place in places])
    scale = max(0.4, min(0.7, max(image.shape[:2]) / 1400))
    for mask, place in zip(masks, places, strict=True):
        name = (*thing_names, *stuff_names)[place]
        x, y = _inside(mask)
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
