"""Keypoints and the lines between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

_POINT_PX = 4  # radius on a picture of usual size


@dataclass(frozen=True)
class Skeleton:
    """Which keypoints are joined by lines.

    Attributes:
        limbs: pairs of places among the keypoints.
        colours: of each limb, in BGR order.
    """

    limbs: tuple[tuple[int, int], ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()


NO_SKELETON = Skeleton()


def make_skeleton(names: Sequence[str] | None, rules: Sequence[Sequence[Any]] | None) -> Skeleton:
    """The skeleton of keypoints with ``names``, by Detectron2's metadata.

    Args:
        rules: ``keypoint_connection_rules``: two names and a colour (R, G, B) for each limb. Those with a name that is
            not among ``names`` are left out.
    """
    places = {name: place for place, name in enumerate(names or ())}
    known = [rule for rule in rules or () if rule[0] in places and rule[1] in places]
    return Skeleton(
        limbs=tuple((places[first], places[second]) for first, second, _ in known),
        colours=tuple((int(colour[2]), int(colour[1]), int(colour[0])) for *_, colour in known),
    )


def draw_keypoints_(
    canvas: np.ndarray, keypoints: np.ndarray, skeleton: Skeleton = NO_SKELETON, *, thickness: int = 2
) -> None:
    """Draw objects' keypoints, and the limbs of which both ends are shown.

    Args:
        canvas: (H, W, 3) uint8 in BGR order.
        keypoints: (objects, k, 3): x, y in pixels, and above 0 for what is shown.
        thickness: of the lines, in pixels.
    """
    for points in keypoints:
        places = [(round(float(x)), round(float(y))) for x, y, _ in points]
        for (first, second), colour in zip(skeleton.limbs, skeleton.colours, strict=True):
            if max(first, second) < len(points) and points[first][2] > 0 and points[second][2] > 0:
                cv2.line(canvas, places[first], places[second], colour, thickness, cv2.LINE_AA)
        for place, (_, _, shown) in zip(places, points, strict=True):
            if shown > 0:
                cv2.circle(canvas, place, _POINT_PX, (255, 255, 255), -1, cv2.LINE_AA)
                cv2.circle(canvas, place, _POINT_PX - 1, (0, 0, 0), -1, cv2.LINE_AA)
