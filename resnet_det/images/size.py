"""The size of an image file, without reading its pixels."""

from __future__ import annotations

import os
from typing import IO

from PIL import UnidentifiedImageError

from resnet_det.errors import InputError
from resnet_det.images import dicom, tiff
from resnet_det.images.image_input import CHANNELS, ImageInput
from resnet_det.images.pages import find_kind, split_page
from resnet_det.images.pillow import find_size, open_image


def read_image_size(name: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height in pixels as the image is read: turned upright as its EXIF data say.

    Args:
        name: of the file, or of a page of it (``stack.tif#3``).

    Raises:
        InputError: it is missing, is no image, or has no such page.
    """
    try:
        with open(split_page(name)[0], "rb") as file:
            return _read_size(file, os.fspath(name))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such image") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{name}: not an image: {error}") from None


def _read_size(file: IO[bytes], name: str) -> tuple[int, int]:
    _, page = split_page(name)
    kind = find_kind(file, name)
    if kind == "dicom":
        return dicom.read_size(file, name, page)
    if kind == "tiff" and tiff.needs_tifffile(file, page, ImageInput(CHANNELS)):
        return tiff.read_size(file, name, page)
    with open_image(file, name, page, None) as image:
        return find_size(image)
