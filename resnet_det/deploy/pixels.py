"""What surrounds a network, in NumPy and OpenCV alone: resizing before it, keypoints after it."""

from __future__ import annotations

import cv2
import numpy as np


def choose_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Height and width to which Detectron2's ResizeShortestEdge resizes an image of this size."""
    if shortest == 0:
        return height, width
    scale = shortest / min(height, width)
    height, width = (shortest, scale * width) if height < width else (scale * height, shortest)
    if max(height, width) > longest:
        scale = longest / max(height, width)
        height, width = height * scale, width * scale
    return int(height + 0.5), int(width + 0.5)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """``image`` (H, W) or (H, W, C) as Pillow resizes it, bilinear: a triangle as wide as what becomes one pixel.

    Of uint8 in whole numbers, as Pillow counts; float32 with all its digits.

    OpenCV has no such filter: of what is made smaller, INTER_LINEAR takes single pixels.
    """
    across = _resize_rows(image.swapaxes(0, 1), width).swapaxes(0, 1)
    return np.ascontiguousarray(_resize_rows(across, height))


PRECISION_BITS = 22  # Pillow counts in whole numbers: 32 bits, of which 8 are the pixel's and 2 are spare


def _resize_rows(image: np.ndarray, new_size: int) -> np.ndarray:
    """``image`` (H, ...) with ``new_size`` rows."""
    size = len(image)
    if size == new_size:
        return image
    scale = size / new_size
    support = max(scale, 1.0)
    centres = (np.arange(new_size) + 0.5) * scale
    first = (centres - support + 0.5).astype(int).clip(0)
    last = (centres + support + 0.5).astype(int).clip(max=size)
    taps = first[:, None] + np.arange((last - first).max())
    weights = np.clip(1 - np.abs(taps + 0.5 - centres[:, None]) / support, 0, None) * (taps < last[:, None])
    weights = weights / weights.sum(1, keepdims=True)
    is_whole = image.dtype == np.uint8
    if is_whole:
        weights = np.floor(weights * 2**PRECISION_BITS + 0.5)
    first_value = 2.0 ** (PRECISION_BITS - 1) if is_whole else 0.0
    total = np.full((new_size, *image.shape[1:]), first_value)  # exact: of whole numbers below 2**53
    for tap, weight in zip(taps.clip(max=size - 1).T, weights.T, strict=True):
        total += weight.reshape(-1, *[1] * (image.ndim - 1)) * image[tap]
    if not is_whole:
        return total.astype(image.dtype)
    return np.clip(np.floor(total / 2**PRECISION_BITS), 0, 255).astype(np.uint8)


def heatmaps_to_keypoints(heatmaps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Keypoints (R, K, 3), x, y and score, where ``heatmaps`` (R, K, S, S), logits in ``boxes`` (R, 4), are highest.

    As Detectron2 finds them (``heatmaps_to_keypoints``): on the map, bicubic, at one value for each pixel of the box.
    """
    found = np.zeros((*heatmaps.shape[:2], 3), np.float32)
    for maps, box, keypoints in zip(heatmaps, boxes, found, strict=True):
        sides = np.maximum(box[2:] - box[:2], 1)
        width, height = np.ceil(sides).astype(int)
        for heatmap, keypoint in zip(maps.astype(np.float32), keypoints, strict=True):
            large = cv2.resize(heatmap, (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
            y, x = np.unravel_index(large.argmax(), large.shape)
            peak = heatmap.max()
            keypoint[:2] = (np.array([x, y]) + 0.5) * sides / (width, height) + box[:2]
            keypoint[2] = np.exp(large[y, x] - peak) / np.exp(heatmap - peak).sum()
    return found
