"""Large images in slices: each goes through the detector by itself, and what was found is merged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from resnet_det.deploy.merging import Found, merge
from resnet_det.deploy.pixels import choose_size, resize

logger = logging.getLogger(__name__)

MIN_SHARED_PX = 16  # that neighbours overlap by, or a quarter of small ones: so pieces are told to be of one object

Detect = Callable[[Sequence[np.ndarray]], Sequence[Found]]


@dataclass(frozen=True)
class Slicing:
    """How large images are cut, and what is found put together.

    Attributes:
        size: height and width of a slice in pixels of the image.
        overlap: share of it that neighbouring slices have in common, at least.
        takes_whole: whether the image goes through the detector as a whole, too, for objects longer than a slice; all
            others the slices show larger.
        batch_size: slices that go through together.
        max_detections: of an image; 0: any number.
        slice_limit: detections that the detector gives at most; 0: not known.
        shortest, longest: to which the detector resizes the sides of what it is given; ``shortest`` 0: not at all.
    """

    size: int
    overlap: float = 0.2
    takes_whole: bool = True
    batch_size: int = 1
    max_detections: int = 0
    slice_limit: int = 0
    shortest: int = 0
    longest: int = 0

    def cuts(self, height: int, width: int) -> bool:
        """Whether an image of this size is cut."""
        return max(height, width) > self.size

    def detect(self, image: np.ndarray, detect: Detect) -> Found:
        """What is in a large image.

        Args:
            image: (H, W) or (H, W, C) uint8.
            detect: finds what is in each of several such images, which go through as one batch.
        """
        height, width = image.shape[:2]
        slices = place_slices(height, width, self.size, self.overlap)
        parts: list[Found] = []
        for start in range(0, len(slices), self.batch_size):
            batch = slices[start : start + self.batch_size]
            found = detect([image[top:bottom, left:right] for left, top, right, bottom in batch])
            parts += [one.scaled_and_moved((1, 1), box[:2]) for one, box in zip(found, batch, strict=True)]
        full = sum(0 < self.slice_limit <= len(part) for part in parts)
        if full:
            logger.warning(
                "%d of %d slices have as many detections as TEST.DETECTIONS_PER_IMAGE lets through (%d), and may have "
                "more objects: set it higher, or RESNET_DET.TEST.SLICE smaller", full, len(slices), self.slice_limit,
            )  # fmt: skip
        regions = slices
        if self.takes_whole:
            found = self._detect_whole(image, detect)
            sides = found.boxes[:, 2:] - found.boxes[:, :2]
            parts.append(found.take(np.flatnonzero(sides.max(1) > self.size)))
            regions = np.concatenate([slices, [[0, 0, width, height]]])
        sides = regions[:, 2:] - regions[:, :2]
        pixels = np.array([max(height, width) / max(self._see(height, width)) for width, height in sides])
        merged = merge(parts, regions, pixels, height, width)
        if self.max_detections and len(merged) > self.max_detections:
            logger.warning(
                "%d detections on an image: RESNET_DET.TEST.SLICE_DETECTIONS keeps the best %d",
                len(merged), self.max_detections,
            )  # fmt: skip
            merged = merged.take(np.arange(self.max_detections))
        return merged

    def _detect_whole(self, image: np.ndarray, detect: Detect) -> Found:
        """On the image as small as the detector makes it, so that masks are not made in its full size."""
        height, width = image.shape[:2]
        new_height, new_width = (
            min(side, seen) for side, seen in zip(image.shape[:2], self._see(height, width), strict=True)
        )
        (found,) = detect([resize(image, new_height, new_width)])
        return found.scaled_and_moved((width / new_width, height / new_height), (0, 0))

    def _see(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which the detector resizes an image of this size; of a large one at most that of a slice
        where it would resize none."""
        if self.shortest:
            seen = choose_size(height, width, self.shortest, self.longest)
        else:
            scale = min(1, self.size / max(height, width))
            seen = round(height * scale), round(width * scale)
        return max(seen[0], 1), max(seen[1], 1)


def place_slices(height: int, width: int, size: int, overlap: float) -> np.ndarray:
    """The slices of an image, (n, 4) XYXY in whole numbers, in rows from the top: as few as overlap by that share."""
    tops, lefts = _starts(height, size, overlap), _starts(width, size, overlap)
    return np.array([[x, y, min(x + size, width), min(y + size, height)] for y in tops for x in lefts])


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """Where slices start along a side, evenly."""
    if length <= size:
        return [0]
    shared = min(max(round(size * overlap), min(MIN_SHARED_PX, size // 4)), size - 1)
    count = -(-(length - shared) // (size - shared))
    return np.linspace(0, length - size, count).astype(int).tolist()
