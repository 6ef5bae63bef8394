"""The size of an image file, without reading its pixels."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from resnet_det.data.images import allow_pixels
from resnet_det.errors import InputError

ORIENTATION = 0x0112  # the EXIF tag
TRANSPOSED = (5, 6, 7, 8)  # its values that swap width and height


def read_image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as Detectron2 reads the image: turned upright as its EXIF data say.

    Raises:
        InputError: it is missing or is no image.
    """
    try:
        with allow_pixels(None), Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION) in TRANSPOSED
            return (image.height, image.width) if turned else image.size
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not an image: {error}") from None
