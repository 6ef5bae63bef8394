"""The values of an image as its file has them, and how they become what a detector takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from resnet_det.errors import InputError
from resnet_det.images.image_input import CHANNELS, PICTURE, ImageInput

MAX_PIXELS = 178_956_970  # Pillow's limit
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R 601-2), as Pillow has it
_TO_YUV = ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))  # as Detectron2 has it
_KEY = "RESNET_DET.INPUT.WINDOW"


@dataclass(frozen=True, eq=False)
class Stored:
    """One image of a file.

    Attributes:
        values: (H, W, C), upright; of a DICOM file in the units that its slope and intercept give.
        is_colour: the channels are red, green, blue, and perhaps opacity.
        has_opacity: the last channel is opacity.
        is_inverted: low values are bright.
        is_windowed: values of 8 bits, too, are brought to 0 to 255 (DICOM).
        full: the lowest and highest value that the file can hold.
        told: the lowest and highest value that the file says are shown; None if it says nothing.
        apply_told: in place of ``told`` for what is no straight line: from ``values`` to 0 to 1.
    """

    values: np.ndarray
    is_colour: bool = False
    has_opacity: bool = False
    is_inverted: bool = False
    is_windowed: bool = False
    full: tuple[float, float] | None = None
    told: tuple[float, float] | None = None
    apply_told: Callable[[np.ndarray], np.ndarray] | None = None


def check_size(name: str, height: int, width: int, max_pixels: int) -> None:
    """
    Args:
        max_pixels: 0: Pillow's limit.

    Raises:
        InputError: the image has more pixels.
    """
    if height * width > (max_pixels or MAX_PIXELS):
        raise InputError(
            f"{name}: {height * width:,} pixels; RESNET_DET.DATA.MAX_IMAGE_PIXELS allows {max_pixels or MAX_PIXELS:,}"
        )


def make_array(stored: Stored, image_input: ImageInput, name: str) -> np.ndarray:
    """(H, W, C) as ``image_input`` asks for, from 0 to 255.

    Raises:
        InputError: the file has other channels, or values that the window is not for; ``name`` is its name.
    """
    values = stored.values
    if values.dtype != np.uint8 or stored.is_windowed:
        values = to_range(stored, image_input, name)
    if stored.is_inverted:
        values = 255 - values
    arranged = _arrange(values, stored, image_input, name)
    return np.ascontiguousarray(arranged, dtype=np.float32 if image_input.dtype == "float32" else None)


def to_range(stored: Stored, image_input: ImageInput, name: str) -> np.ndarray:
    """``stored.values`` from 0 to 255, uint8 or float32. What is not a finite number is 0.

    Raises:
        InputError: see :func:`make_array`.
    """
    values, window = stored.values.astype(np.float64), image_input.window
    is_finite = np.isfinite(values)
    values[~is_finite] = values[is_finite].min() if is_finite.any() else 0
    whole = False  # whether whole numbers are cut off to the bits above, not rounded
    if window == "auto" and stored.apply_told is not None:
        scaled = stored.apply_told(values) * 255
    elif window == "auto" and stored.told is None and not stored.is_windowed:
        scaled, whole = _scale_by_bits(values, stored, name)
    else:
        low, high = _find_limits(values, stored, image_input, name)
        scaled = (values - low) * (255 / np.where(high > low, high - low, np.inf))
    scaled = np.clip(scaled, 0, 255)
    scaled[~is_finite] = 0
    if image_input.dtype == "float32":
        return scaled.astype(np.float32)
    return (scaled if whole else np.rint(scaled)).astype(np.uint8)


def _scale_by_bits(values: np.ndarray, stored: Stored, name: str) -> tuple[np.ndarray, bool]:
    """Whole numbers from the smallest of 8, 10, 12, 14, 16, ... bits that hold the image, as cameras and microscopes
    store 12 bits in 16; others from 0 to 1, if they are in that range."""
    lowest, highest = float(values.min(initial=0)), float(values.max(initial=0))
    if lowest < 0:
        raise InputError(
            f"{name}: values from {lowest:g} to {highest:g}; {_KEY} has to say which of them are black and white"
        )
    if stored.values.dtype.kind == "f" and highest <= 1:
        return values * 255, False
    bits = 8
    while highest >= 2**bits:
        bits += 2
    return values / 2 ** (bits - 8), True


def _find_limits(
    values: np.ndarray, stored: Stored, image_input: ImageInput, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """What is black and what is white; with CHANNELS, for each channel where they are taken from the image."""
    axes = (0, 1) if image_input.format == CHANNELS else (0, 1, 2)
    if image_input.window == "minmax":
        return values.min(axes), values.max(axes)
    if image_input.window == "percentiles":
        low, high = np.percentile(values, image_input.limits, axis=axes)
        return low, high
    if image_input.window == "fixed":
        low, high = image_input.limits
    elif image_input.window == "auto" and stored.told is not None:
        low, high = stored.told
    else:
        low, high = stored.full or _range_of(stored.values.dtype)
        if stored.values.dtype.kind == "f" and stored.full is None and (values.min() < low or values.max() > high):
            raise InputError(
                f"{name}: values from {values.min():g} to {values.max():g}; {_KEY} {image_input.window} takes numbers "
                "with a fraction from 0 to 1"
            )
    return np.float64(low), np.float64(high)


def _range_of(dtype: np.dtype) -> tuple[float, float]:
    if dtype.kind == "f":
        return 0, 1
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def _arrange(values: np.ndarray, stored: Stored, image_input: ImageInput, name: str) -> np.ndarray:
    """The channels that INPUT.FORMAT asks for; ``values`` are from 0 to 255."""
    count, wanted = values.shape[2], image_input.format
    if wanted == CHANNELS:
        if image_input.channels and count != image_input.channels:
            raise InputError(
                f"{name}: {_say_channels(count)}; INPUT.FORMAT {CHANNELS} takes as many as MODEL.PIXEL_MEAN has "
                f"values, which is {image_input.channels}"
            )
        return values
    if stored.has_opacity:
        values, count = values[:, :, :-1], count - 1
    if wanted == PICTURE and count != 1 and not stored.is_colour:
        values, count = values[:, :, image_input.find_shown(count)], 3
    elif count != 1 and not (count == 3 and stored.is_colour):
        raise InputError(
            f"{name}: {_say_channels(count)}; INPUT.FORMAT {wanted} takes grey and RGB images, and {CHANNELS}, with a "
            f"MODEL.PIXEL_MEAN of {count} values, these"
        )
    if wanted == "L" and count == 1:
        return values
    if values.dtype != np.uint8 and wanted == "L":
        return (values @ np.array(_GREY, values.dtype))[:, :, None]
    colours = values if count == 3 else values.repeat(3, axis=2)
    if wanted == "RGB":
        return colours
    if wanted in ("BGR", PICTURE):
        return colours[:, :, ::-1]
    return convert(Image.fromarray(np.ascontiguousarray(colours)), wanted)


def _say_channels(count: int) -> str:
    return "1 channel (channels that are pages, put them into one)" if count == 1 else f"{count} channels"


def convert(image: Image.Image, image_format: str) -> np.ndarray:
    """A Pillow image of 8 bits as (H, W, C) in a format, as Detectron2's ``convert_PIL_to_numpy`` has it."""
    if image_format == CHANNELS:
        image = image.convert("L" if image.mode == "1" else "RGB") if image.mode in ("1", "P", "PA") else image
    else:
        image = image.convert("RGB" if image_format in ("BGR", PICTURE, "YUV-BT.601") else image_format)
    values = np.asarray(image)
    if image_format == "YUV-BT.601":
        return np.dot(values / 255.0, np.array(_TO_YUV).T)
    values = values.reshape(*values.shape[:2], -1)
    return values[:, :, ::-1] if image_format in ("BGR", PICTURE) else values
