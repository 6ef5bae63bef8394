"""Maps of numbers as colours, by themselves and over an image."""

from __future__ import annotations

import cv2
import numpy as np


def colour_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) in colours from its least value (dark) to its greatest (yellow), as a BGR picture.

    Args:
        size: width and height of the picture in pixels; cells stay visible.
    """
    low, high = float(values.min()), float(values.max())
    scaled = np.uint8(255 * (values - low) / max(high - low, 1e-12))
    return cv2.resize(cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS), size, interpolation=cv2.INTER_NEAREST)


def overlay_map(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``image`` in grey, with the map (h, w; 0 to 1) over it: the higher, the more of its colour."""
    size = (image.shape[1], image.shape[0])
    heat = np.clip(cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), 0, 1)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR).astype(np.float32)
    colours = cv2.applyColorMap(np.uint8(255 * heat), cv2.COLORMAP_INFERNO).astype(np.float32)
    strength = (0.85 * np.sqrt(heat))[:, :, None]
    return np.uint8((1 - strength) * 0.8 * grey + strength * colours)


def draw_box(picture: np.ndarray, box: np.ndarray, colour: tuple[int, int, int] = (255, 200, 0)) -> np.ndarray:
    """A copy of ``picture`` with a box (xyxy in pixels), white around it so that it is seen on any ground."""
    canvas = picture.copy()
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), (255, 255, 255), 4)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, 2)
    return canvas
