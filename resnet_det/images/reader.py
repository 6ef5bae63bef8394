"""The reader of image files: by its content, each goes to Pillow, tifffile or pydicom."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
from PIL import UnidentifiedImageError

from resnet_det.errors import InputError
from resnet_det.images import deep_colour, dicom, pillow, tiff
from resnet_det.images.image_input import CHANNELS, ImageInput
from resnet_det.images.pages import find_kind, split_page
from resnet_det.images.stored import Stored, make_array

Open = Callable[[str, str], IO[bytes]]


@contextlib.contextmanager
def told_as_input_error(name: str | os.PathLike[str]) -> Iterator[None]:
    """Within it, what keeps an image from being read is an InputError with its name."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a readable image") from None
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{name}: not a readable image ({error})") from None


def read_image(
    name: str | os.PathLike[str], image_input: ImageInput, *, max_pixels: int = 0, open_file: Open = open
) -> np.ndarray:
    """An image file, or a page of one, as (H, W, C) from 0 to 255: uint8, or float32 if ``image_input`` asks for it.

    Args:
        name: of the file; ``stack.tif#3`` is its fourth page.
        max_pixels: the most that are read; 0: Pillow's limit (178,956,970).
        open_file: opens it for reading.

    Raises:
        InputError: it has more pixels than that, other channels than ``image_input`` asks for, or no such page; it is a
            TIFF or DICOM file that is damaged, or whose library is not installed.
        OSError, UnidentifiedImageError: it is not there, or is no image.
    """
    with open_file(split_page(name)[0], "rb") as file:
        return decode_image(file, os.fspath(name), image_input, max_pixels=max_pixels)


def decode_image(file: IO[bytes], name: str, image_input: ImageInput, *, max_pixels: int = 0) -> np.ndarray:
    """The same of an open file, whose position can be set; ``name`` tells the page, and is for messages."""
    _, page = split_page(name)
    read = _find_reader(file, name, page, image_input)
    if read is None:
        return pillow.decode(file, name, page, image_input, max_pixels=max_pixels)
    stored = read(file, name, page, max_pixels=max_pixels)
    if stored.values.dtype != np.uint8 and image_input.dtype == "uint8":
        pillow.say(name, [pillow.DEEP])
    return make_array(stored, image_input, name)


def _find_reader(file: IO[bytes], name: str, page: int | None, image_input: ImageInput) -> Callable[..., Stored] | None:
    """What reads an open file, by how it begins; None: Pillow."""
    kind = find_kind(file, name)
    if kind == "dicom":
        return dicom.read
    if deep_colour.is_deep_colour(file):
        return deep_colour.read
    return tiff.read if kind == "tiff" and tiff.needs_tifffile(file, page, image_input) else None


def needs_library(name: str | os.PathLike[str]) -> bool:
    """Whether a file is read by tifffile or pydicom.

    Raises:
        OSError: it cannot be opened.
    """
    path, page = split_page(name)
    with open(path, "rb") as file:
        return _find_reader(file, path, page, ImageInput(CHANNELS)) in (dicom.read, tiff.read)


def read_stored(name: str | os.PathLike[str], *, max_pixels: int = 0) -> Stored:
    """All values and channels of an image file as they are in it; the errors are those of :func:`read_image`."""
    path, page = split_page(name)
    name = os.fspath(name)
    with open(path, "rb") as file:
        read = _find_reader(file, name, page, ImageInput(CHANNELS))
        if read is not None:
            return read(file, name, page, max_pixels=max_pixels)
        with pillow.open_image(file, name, page, max_pixels) as image:
            return pillow.store(image)
