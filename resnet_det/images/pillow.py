"""Image files that Pillow reads.

Upright by their EXIF data, the first picture of an animation, colours for print converted by Pillow.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image

from resnet_det.errors import InputError
from resnet_det.images.image_input import ImageInput
from resnet_det.images.stored import Stored, convert, make_array

logger = logging.getLogger(__name__)

DEEP_MODES = ("I", "F")  # more than 8 bits for each pixel; also "I;16", "I;16B", ...
DEEP = "16-bit-image"
DONE = {
    DEEP: "more than 8 bits: scaled down to 8 (docs/medical.md: RESNET_DET.INPUT says how, and keeps more)",
    "cmyk-image": "colours for print (CMYK): converted to RGB",
    "animated-image": "several pictures in one file: the first one is taken (of a TIFF file, name#1 is the second)",
    "exif-rotation": "turned upright by its EXIF orientation",
}
ORIENTATION = 0x0112  # the EXIF tag
TRANSPOSED = (5, 6, 7, 8)  # its values that swap width and height
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BITS, SAMPLES = 258, 277  # TIFF tags
_WIDTH, _HEIGHT, _PHOTOMETRIC, _FORMAT = 256, 257, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
_said: set[str] = set()


def decode(file: IO[bytes], name: str, page: int | None, image_input: ImageInput, *, max_pixels: int) -> np.ndarray:
    """A file that Pillow reads; see :func:`resnet_det.images.reader.decode_image`.

    What was done to it is said once for each kind of image.
    """
    with open_image(file, name, page, max_pixels) as image:
        kinds = describe_kinds(image, page)
        say(name, [kind for kind in kinds if kind != DEEP or image_input.dtype == "uint8"])
        return to_array(image, name, image_input)


def to_array(image: Image.Image, name: str, image_input: ImageInput) -> np.ndarray:
    """An image that has been opened, as an array; ``name`` is for messages."""
    if is_deep(image):
        return make_array(store(image), image_input, name)
    values = convert(turn_upright(image), image_input.format)
    return values.astype(np.float32) if image_input.dtype == "float32" else values


@contextlib.contextmanager
def open_image(file: IO[bytes], name: str, page: int | None, max_pixels: int) -> Iterator[Image.Image]:
    """The header of an image, at a page of it.

    Raises:
        InputError: it has more pixels than ``max_pixels`` (0: Pillow's limit), or no such page.
    """
    try:
        with allow_pixels(max_pixels), Image.open(file) as image:
            if page is not None:
                _seek(image, name, page)
            check_pixels(image, name, max_pixels)
            yield image
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: {error}; RESNET_DET.DATA.MAX_IMAGE_PIXELS sets another limit") from None


def _seek(image: Image.Image, name: str, page: int) -> None:
    count = getattr(image, "n_frames", 1)
    if page >= count:
        raise InputError(f"{name}: {explain_missing_page(page, count)}")
    image.seek(page)


def explain_missing_page(page: int, count: int) -> str:
    return f"no page {page}: the file has {count}, counted from 0" if count > 1 else f"no page {page}: there is one, 0"


def store(image: Image.Image) -> Stored:
    """The values of an image that has been opened, upright."""
    tags = getattr(image, "tag_v2", {})
    upright = turn_upright(image)
    values = np.asarray(upright.convert("RGB") if upright.mode in ("P", "PA", "CMYK", "YCbCr") else upright)
    if tags.get(BITS) == (32,) and upright.mode == "I" and tags.get(_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
        values = values.view(np.uint32)  # Pillow has no such numbers
    values = values.reshape(*values.shape[:2], -1)
    return Stored(
        values if values.dtype != bool else values.astype(np.uint8) * 255,
        is_colour=values.shape[2] >= 3,
        has_opacity=values.shape[2] in (2, 4),
        is_inverted=is_deep(upright) and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO,  # Pillow inverts 8 bits itself
    )


def turn_array(values: np.ndarray, orientation: int) -> np.ndarray:
    """An array (H, W, C) upright by its EXIF orientation, 1 to 8."""
    values = values.swapaxes(0, 1) if orientation in TRANSPOSED else values
    values = values[::-1] if orientation in (3, 4, 7, 8) else values
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def turn_upright(image: Image.Image) -> Image.Image:
    image.load()  # Pillow turns TIFF files itself, and they say no orientation any more
    turn = _TURNS.get(find_orientation(image))
    return image if turn is None else image.transpose(turn)


def is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits for each pixel of one channel."""
    return image.mode.startswith(DEEP_MODES)


def find_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image that has been opened, upright; of TIFF files by the tags, as Pillow's may be so."""
    tags = getattr(image, "tag_v2", None)
    size = image.size if tags is None else (tags[_WIDTH], tags[_HEIGHT])
    return size[::-1] if find_orientation(image) in TRANSPOSED else size


def find_orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # images whose EXIF data are broken are read all the same
        return 1


def describe_kinds(image: Image.Image, page: int | None = None) -> list[str]:
    """Which of the kinds in ``DONE`` an image is, by its header.

    Args:
        page: that was asked for, if one was.
    """
    found = [DEEP] * is_deep(image) + ["cmyk-image"] * (image.mode == "CMYK")
    has_more = page is None and getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
    return found + ["animated-image"] * has_more + ["exif-rotation"] * (find_orientation(image) in _TURNS)


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


def say(file_name: str, kinds: list[str]) -> None:
    for kind in kinds:
        if kind not in _said:
            _said.add(kind)
            logger.warning("%s: %s (said once, for the first of such images)", file_name, DONE[kind])
