"""How image files are read: one way for training, evaluation, pictures, and checks.

Upright by their EXIF data, the first picture of an animation, more than 8 bits scaled down, colours for print converted
by Pillow. Detectron2's own function clips what is above 8 bits, so that such images come out white.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import IO

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

DEEP_MODES = ("I", "F")  # more than 8 bits for each pixel; also "I;16", "I;16B", ...
DONE = {
    "16-bit-image": "more than 8 bits: scaled down to 8",
    "cmyk-image": "colours for print (CMYK): converted to RGB",
    "animated-image": "several pictures in one file: the first one is taken",
    "exif-rotation": "turned upright by its EXIF orientation",
}
_ORIENTATION = 0x0112
_said: set[str] = set()

# The most pixels of an image that are read where nothing else is said; 0: Pillow's limit. As Pillow's own it is one for
# the process: tools set it once (RESNET_DET.DATA.MAX_IMAGE_PIXELS), before they read anything.
max_pixels = 0


def set_max_pixels(count: int) -> None:
    global max_pixels
    max_pixels = count


def read_image(file_name: str, image_format: str, *, max_pixels: int = 0) -> np.ndarray:
    """An image file as (H, W, C), as Detectron2's function of this name has it, but for images of more than 8 bits.

    What was done to it is said once for each kind of image.

    Args:
        max_pixels: the most that are read; 0: Pillow's limit (178,956,970).

    Raises:
        InputError: it has more pixels than that.
    """
    with PathManager.open(file_name, "rb") as file:
        return decode_image(file, file_name, image_format, max_pixels=max_pixels)


def decode_image(file: IO[bytes], file_name: str, image_format: str, *, max_pixels: int = 0) -> np.ndarray:
    """The same of an open file; ``file_name`` is for messages."""
    try:
        with allow_pixels(max_pixels), Image.open(file) as image:
            check_pixels(image, file_name, max_pixels)
            _say(file_name, describe_kinds(image))
            upright = detection_utils._apply_exif_orientation(image)
            if is_deep(image):
                upright = to_eight_bits(upright)
            return detection_utils.convert_PIL_to_numpy(upright, image_format)
    except Image.DecompressionBombError as error:
        raise InputError(f"{file_name}: {error}; RESNET_DET.DATA.MAX_IMAGE_PIXELS sets another limit") from None


def is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits for each pixel of one channel. (Of three, Pillow takes the higher 8 itself.)"""
    return image.mode.startswith(DEEP_MODES)


def describe_kinds(image: Image.Image) -> list[str]:
    """Which of the kinds in ``DONE`` an image is, by its header."""
    found = ["16-bit-image"] * is_deep(image) + ["cmyk-image"] * (image.mode == "CMYK")
    found += ["animated-image"] * (getattr(image, "n_frames", 1) > 1 and image.format != "MPO")
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Detectron2 reads images whose EXIF data are broken, too
        orientation = 1
    return found + ["exif-rotation"] * (orientation in range(2, 9))


def to_eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 8 bits of one with more.

    Whole numbers are scaled from the smallest of 8, 10, 12, 14, 16, ... bits that hold the image, as cameras and
    microscopes store 12 bits in 16; others from 0 to 1, if they are in that range.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    highest = float(values.max(initial=0))
    if image.mode == "F" and highest <= 1:
        return Image.fromarray(np.clip(values * 255, 0, 255).round().astype(np.uint8))
    bits = 8
    while highest >= 2**bits:
        bits += 2
    return Image.fromarray(np.clip(values / 2 ** (bits - 8), 0, 255).astype(np.uint8))


@contextlib.contextmanager
def allow_pixels(max_pixels: int | None) -> Iterator[None]:
    """Let Pillow open images of up to ``max_pixels``; 0: up to its own limit; None: of any size, for their header.

    The limit is one for all threads: it is raised here before they are started, not in them.
    """
    before = Image.MAX_IMAGE_PIXELS
    if max_pixels != 0:
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def check_pixels(image: Image.Image, file_name: str, max_pixels: int) -> None:
    """
    Raises:
        InputError: the image has more than ``max_pixels``, if that is not 0.
    """
    count = image.width * image.height
    if max_pixels and count > max_pixels:
        raise InputError(f"{file_name}: {count:,} pixels; RESNET_DET.DATA.MAX_IMAGE_PIXELS allows {max_pixels:,}")


def _say(file_name: str, kinds: list[str]) -> None:
    for kind in kinds:
        if kind not in _said:
            _said.add(kind)
            logger.warning("%s: %s (said once, for the first of such images)", file_name, DONE[kind])
