"""What surrounds a network, in NumPy and OpenCV alone: resizing before it, masks and keypoints after it."""

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
    """``image`` (H, W) or (H, W, C) uint8 as Pillow resizes it, bilinear: a triangle as wide as what becomes one pixel.

    OpenCV has no such filter: of what is made smaller, INTER_LINEAR takes single pixels.
    """
    across = _resize_rows(image.swapaxes(0, 1), width).swapaxes(0, 1)
    return np.ascontiguousarray(_resize_rows(across, height))


PRECISION_BITS = 22  # Pillow counts in whole numbers: 32 bits, of which 8 are the pixel's and 2 are spare


def _resize_rows(image: np.ndarray, new_size: int) -> np.ndarray:
    """``image`` (H, ...) uint8 with ``new_size`` rows."""
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
    weights = np.floor(weights / weights.sum(1, keepdims=True) * 2**PRECISION_BITS + 0.5)
    total = np.full((new_size, *image.shape[1:]), 2.0 ** (PRECISION_BITS - 1))  # exact: of whole numbers below 2**53
    for tap, weight in zip(taps.clip(max=size - 1).T, weights.T, strict=True):
        total += weight.reshape(-1, *[1] * (image.ndim - 1)) * image[tap]
    return np.clip(np.floor(total / 2**PRECISION_BITS), 0, 255).astype(np.uint8)


def paste_mask(mask: np.ndarray, box: np.ndarray, height: int, width: int, threshold: float = 0.5) -> np.ndarray:
    """``mask`` (S, S) of probabilities in ``box`` XYXY as pixels of the whole image, (height, width) bool.

    As Detectron2 pastes it: bilinear between the centres of the mask's cells, zero beyond.
    """
    pasted = np.zeros((height, width), bool)
    left, top = np.maximum(np.floor(box[:2]).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(box[2:]).astype(int) + 1, (width, height))
    if right <= left or bottom <= top:
        return pasted
    across = _weigh_cells(left, right, box[0], box[2], mask.shape[1])
    down = _weigh_cells(top, bottom, box[1], box[3], mask.shape[0])
    pasted[top:bottom, left:right] = down @ mask.astype(np.float32) @ across.T >= threshold
    return pasted


def _weigh_cells(start: int, stop: int, low: float, high: float, cells: int) -> np.ndarray:
    """What each cell between ``low`` and ``high`` counts in pixels ``start`` to ``stop``: (stop - start, cells)."""
    place = (np.arange(start, stop) + 0.5 - low) / (high - low) * cells - 0.5
    return np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, None).astype(np.float32)


def encode_rle(mask: np.ndarray) -> dict:
    """``mask`` (H, W) bool as COCO's compressed RLE: runs down the columns, counts in base 32 with differences."""
    flat = np.asfortranarray(mask).reshape(-1, order="F")
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    characters = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            low, value = value & 31, value >> 5
            is_last = value == -1 if low & 16 else value == 0
            characters.append(chr(low + 48 if is_last else low + 80))
            if is_last:
                break
    return {"size": [int(side) for side in mask.shape], "counts": "".join(characters)}


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
