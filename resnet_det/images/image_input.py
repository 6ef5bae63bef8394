"""What a detector takes for an image, in plain values: channels, and how values of more than 8 bits become 0 to 255."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from resnet_det.errors import InputError

CHANNELS = "CHANNELS"  # INPUT.FORMAT: the channels of the file as they are
PICTURE = "PICTURE"  # what people look at, in BGR order; no INPUT.FORMAT
FORMATS = ("BGR", "RGB", "L", CHANNELS)  # of INPUT.FORMAT, those that all tools know
WINDOWS = ("auto", "type", "minmax", "percentiles", "fixed")
DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class ImageInput:
    """What a config says of its images; docs/medical.md says what each value means.

    Attributes:
        format: INPUT.FORMAT: "BGR", "RGB", "L" or another of Pillow's modes, or ``CHANNELS``.
        channels: with ``CHANNELS``, how many a file must have: as many as MODEL.PIXEL_MEAN has values; 0: any number.
        window: of ``WINDOWS``: which values are 0 and 255, where a file has more than 8 bits.
        limits: the two values of "fixed", or the two percentages of "percentiles".
        dtype: "uint8", or "float32", which keeps what lies between whole numbers.
        shown: with ``CHANNELS``, the channels that pictures have as red, green and blue; empty: the first three.
    """

    format: str = "BGR"
    channels: int = 3
    window: str = "auto"
    limits: tuple[float, ...] = ()
    dtype: str = "uint8"
    shown: tuple[int, ...] = ()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> ImageInput:
        """What an exported file says of its images; one that was written before it said so has the defaults."""
        known = metadata.get("image_input", {"format": metadata["input_format"]})
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in known.items()})

    def to_metadata(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def taken(self) -> ImageInput:
        """How images are read for predictors: in BGR order, which they convert to ``format``, or as ``CHANNELS``."""
        return self if self.format == CHANNELS else replace(self, format="BGR", channels=3)

    @property
    def of_pictures(self) -> ImageInput:
        """How images are read that :meth:`to_picture` takes, whatever their channels."""
        return replace(self, channels=0) if self.format == CHANNELS else replace(self, format=PICTURE)

    def make_blank(self, height: int, width: int) -> np.ndarray:
        """A black image as predictors take it."""
        return np.zeros((height, width, self.taken.channels), self.dtype)

    def check(self, image: np.ndarray) -> None:
        """
        Raises:
            InputError: a predictor cannot take ``image``.
        """
        channels = self.taken.channels
        is_array = isinstance(image, np.ndarray) and image.dtype in (np.dtype(np.uint8), np.dtype(self.dtype))
        if not (is_array and image.ndim == 3 and image.shape[2] == channels):
            what = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            order = "" if self.format == CHANNELS else " in BGR order"
            raise InputError(f"an image is an array (H, W, {channels}) of {self.dtype}{order}, and this is {what}")

    def to_picture(self, image: np.ndarray) -> np.ndarray:
        """What is shown of an image as predictors take it: (H, W, 3) uint8 in BGR order."""
        if self.format == CHANNELS:
            image = image[:, :, self.find_shown(image.shape[2])[::-1]]
        if image.dtype != np.uint8:
            image = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
        return np.ascontiguousarray(image)

    def find_shown(self, count: int) -> list[int]:
        """The places of red, green and blue among ``count`` channels. Of one, all are it; of two, blue is the first."""
        if self.shown and max(self.shown) < count:
            return list(self.shown)
        return [0, 1, 2] if count >= 3 else [0, count - 1, 0]
