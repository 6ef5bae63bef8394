"""Masks that stay in the boxes of their objects: a large image has many, and no room for each at full size.

NumPy alone, as exported detectors need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_ROWS_AT_ONCE = 512  # of pixels that are computed in float32


@dataclass(frozen=True, eq=False)
class BoxMask:
    """The mask of one object.

    Attributes:
        cells: (h, w) bool, or float: probabilities.
        box: (4,) XYXY in pixels of the image: where the cells lie. Beyond it there is nothing of the object.
    """

    cells: np.ndarray
    box: np.ndarray

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in whole pixels: what the mask can have pixels in, within the image."""
        margin = 0 if self._is_pixels else 1
        left, top = np.maximum(np.floor(self.box[:2]).astype(int) - margin, 0)
        right, bottom = np.minimum(np.ceil(self.box[2:]).astype(int) + margin, (width, height))
        return int(left), int(top), max(int(left), int(right)), max(int(top), int(bottom))

    def crop(self, left: int, top: int, right: int, bottom: int, threshold: float = 0.5) -> np.ndarray:
        """The mask in these pixels of the image, (bottom - top, right - left) bool.

        As Detectron2 pastes masks: bilinear between the centres of the cells, zero beyond. Cells that are pixels stay.
        """
        if self._is_pixels:
            return self._crop_pixels(left, top, right, bottom)
        across = _weigh_cells(left, right, self.box[0], self.box[2], self.cells.shape[1])
        rows = self.cells.astype(np.float32) @ across.T
        cropped = np.empty((bottom - top, right - left), bool)
        for start in range(top, bottom, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, bottom)
            down = _weigh_cells(start, stop, self.box[1], self.box[3], self.cells.shape[0])
            cropped[start - top : stop - top] = down @ rows >= threshold
        return cropped

    def paste(self, height: int, width: int, threshold: float = 0.5) -> np.ndarray:
        """The mask of the whole image, (height, width) bool."""
        pasted = np.zeros((height, width), bool)
        left, top, right, bottom = self.window(height, width)
        pasted[top:bottom, left:right] = self.crop(left, top, right, bottom, threshold)
        return pasted

    def to_rle(self, height: int, width: int, threshold: float = 0.5) -> dict:
        """COCO's compressed RLE of the whole image, which is never made."""
        left, top, right, bottom = self.window(height, width)
        return encode_rle(self.crop(left, top, right, bottom, threshold), (left, top), (height, width))

    def scaled_and_moved(self, scale: Sequence[float], offset: Sequence[float]) -> BoxMask:
        """The same mask in an image that is ``scale`` (x, y) times as large, moved by ``offset`` (x, y) pixels."""
        return BoxMask(self.cells, self.box * np.tile(scale, 2) + np.tile(offset, 2))

    def area(self) -> float:
        """About how many pixels it has."""
        return float((self.cells >= 0.5).mean() * (self.box[2:] - self.box[:2]).prod()) if self.cells.size else 0.0

    @property
    def _is_pixels(self) -> bool:
        """Whether each cell is a pixel of the image."""
        height, width = self.cells.shape
        left, top, right, bottom = self.box
        sized = (right - left, bottom - top) == (width, height)
        return self.cells.dtype == bool and sized and left == int(left) and top == int(top)

    def _crop_pixels(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        x, y = int(self.box[0]), int(self.box[1])
        cropped = np.zeros((max(bottom - top, 0), max(right - left, 0)), bool)
        inside = self.cells[max(top - y, 0) : max(bottom - y, 0), max(left - x, 0) : max(right - x, 0)]
        row, column = max(y - top, 0), max(x - left, 0)
        cropped[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
        return cropped


class BoxMasks:
    """The masks of an image's objects, as ``pred_masks`` of Detectron2's Instances: chosen from as tensors are."""

    def __init__(self, masks: Sequence[BoxMask], height: int, width: int) -> None:
        """Args:
        height, width: of the image.
        """
        self.masks, self.height, self.width = list(masks), height, width

    def __len__(self) -> int:
        return len(self.masks)

    def __iter__(self) -> Iterator[BoxMask]:
        return iter(self.masks)

    def __getitem__(self, item: slice | Sequence[int] | Sequence[bool]) -> BoxMasks:
        if not isinstance(item, slice):
            item = np.asarray(item) if len(item) else slice(0)
        chosen = np.arange(len(self.masks))[item]
        return BoxMasks([self.masks[place] for place in chosen], self.height, self.width)

    def to_rle(self) -> Iterator[dict]:
        """COCO's compressed RLE of each."""
        return (mask.to_rle(self.height, self.width) for mask in self.masks)


def cut_out(mask: np.ndarray) -> BoxMask:
    """What ``mask`` (H, W) bool has anything in, in its box."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return BoxMask(np.zeros((0, 0), bool), np.zeros(4))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return BoxMask(mask[top:bottom, left:right].copy(), np.array([left, top, right, bottom], float))


def _weigh_cells(start: int, stop: int, low: float, high: float, cells: int) -> np.ndarray:
    """What each cell between ``low`` and ``high`` counts in pixels ``start`` to ``stop``: (stop - start, cells)."""
    place = (np.arange(start, stop) + 0.5 - low) / (high - low) * cells - 0.5
    return np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, None).astype(np.float32)


def encode_rle(mask: np.ndarray, offset: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None) -> dict:
    """``mask`` (h, w) bool as COCO's compressed RLE: runs down the columns, counts in base 32 with differences.

    Args:
        offset: x and y of the mask in the image.
        size: height and width of the image; None: those of the mask.
    """
    height, width = size or mask.shape
    edges = np.diff(np.pad(mask, ((1, 1), (0, 0))).astype(np.int8), axis=0).T
    begins, ends = (
        (columns + offset[0]) * height + rows + offset[1]
        for columns, rows in (np.nonzero(edges == 1), np.nonzero(edges == -1))
    )
    apart = ends[:-1] != begins[1:]  # else from the foot of one column to the head of the next
    begins, ends = begins[np.r_[True, apart][: len(begins)]], ends[np.r_[apart, True][: len(ends)]]
    places = np.stack([begins, ends], 1).reshape(-1).tolist()
    places = [0, *places] if places and places[-1] == height * width else [0, *places, height * width]
    return {"size": [int(height), int(width)], "counts": _compress(np.diff(places).tolist())}


def _compress(runs: Sequence[int]) -> str:
    characters = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            low, value = value & 31, value >> 5
            is_last = value == -1 if low & 16 else value == 0
            characters.append(chr(low + 48 if is_last else low + 80))
            if is_last:
                break
    return "".join(characters)
