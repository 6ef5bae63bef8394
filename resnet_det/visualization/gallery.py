"""Pictures for a page: an image once, and the shapes drawn over it, for ground truth and predictions side by side."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from resnet_det.data.mapping.fast_image import read_bgr
from resnet_det.errors import InputError
from resnet_det.visualization.drawing import decode_mask
from resnet_det.visualization.skeleton import NO_SKELETON, Skeleton

logger = logging.getLogger(__name__)

MAX_SIDE_PX, JPEG_QUALITY = 512, 78


class Kind(NamedTuple):
    """What a box of the ground truth or of the predictions is, and its colour as #rrggbb."""

    text: str
    colour: str


KINDS = {
    "tp": Kind("right, or found", "#00c08b"),
    "fp": Kind("wrong detection", "#ff7a1a"),
    "miss": Kind("missed object", "#56b4e9"),
    "other": Kind("crowd: not counted", "#bbbbbb"),
}


@dataclass(frozen=True)
class Shape:
    """An object on a picture.

    Attributes:
        box: [x, y, width, height] in pixels of the picture.
        kind: what it is, of ``KINDS``.
        outline: of its mask, as an SVG path.
        points: x, y of its keypoints.
        limbs: the lines between them, as an SVG path.
    """

    box: tuple[float, float, float, float]
    kind: str
    label: str
    outline: str = ""
    points: tuple[tuple[float, float], ...] = ()
    limbs: str = ""


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, and the shapes over it."""

    key: str
    title: str
    caption: str
    width: int
    height: int
    uri: str
    truth: list[Shape] = field(default_factory=list)
    predictions: list[Shape] = field(default_factory=list)


def encode_image(path: Path) -> tuple[str, int, int, float] | None:
    """An image as a data URI of at most ``MAX_SIDE_PX``, its width and height, and by how much it was made smaller.

    None if it cannot be read, which is said in the log.
    """
    try:
        image = read_bgr(path)
    except InputError as error:
        logger.warning("%s; left out of the gallery", error)
        return None
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", *size, scale


def make_shape(
    box: Sequence[float],
    kind: str,
    label: str,
    scale: float,
    *,
    segmentation: Any = None,
    height: int,
    width: int,
    keypoints: np.ndarray | None = None,
    skeleton: Skeleton = NO_SKELETON,
) -> Shape:
    """A shape on a picture that was made smaller by ``scale`` from an image of ``height`` x ``width`` pixels.

    Args:
        keypoints: (k, 3): x, y in pixels of the image, and above 0 for what is shown.
    """
    outline = "" if segmentation is None else trace_outline(decode_mask(segmentation, height, width), scale)
    points, limbs = (), ""
    if keypoints is not None:
        places = np.round(keypoints[:, :2] * scale, 1).tolist()
        shown = keypoints[:, 2] > 0
        points = tuple(tuple(place) for place, is_shown in zip(places, shown, strict=True) if is_shown)
        known = [limb for limb in skeleton.limbs if max(limb) < len(places) and shown[list(limb)].all()]
        limbs = "".join("M{} {}L{} {}".format(*places[first], *places[second]) for first, second in known)
    return Shape(tuple(round(float(value) * scale, 1) for value in box), kind, label, outline, points, limbs)


def trace_outline(mask: np.ndarray, scale: float) -> str:
    """The outlines of a (height, width) bool mask as an SVG path."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.8 / scale, closed=True)[:, 0] * scale
        if len(points) > 2:
            parts.append("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in points) + "Z")
    return "".join(parts)
