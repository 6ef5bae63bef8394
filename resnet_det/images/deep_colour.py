"""PNG and TIFF files with colours of 16 bits, of which Pillow gives the higher 8: these are read by OpenCV."""

from __future__ import annotations

from typing import IO

import cv2
import numpy as np
from PIL import TiffImagePlugin

from resnet_det.errors import InputError
from resnet_det.images.pillow import BITS, SAMPLES, find_orientation, open_image, turn_array
from resnet_det.images.stored import Stored

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = (2, 6)  # RGB, with and without opacity


def is_deep_colour(file: IO[bytes]) -> bool:
    """Whether an open file is one of these, by its header. TIFF files with several pages are not: OpenCV would read
    all of them."""
    start = file.read(26)
    file.seek(0)
    if start.startswith(_PNG_START):
        return len(start) == 26 and start[24] == 16 and start[25] in _PNG_COLOURS
    if start[:2] not in (b"II", b"MM"):
        return False
    try:
        image = TiffImagePlugin.TiffImageFile(file)
        is_plain = image.mode == "RGB" and image.n_frames == 1
    except Exception:  # its parsers raise whatever they do not know
        return False
    finally:
        file.seek(0)
    return is_plain and image.tag_v2.get(SAMPLES) == 3 and set(image.tag_v2.get(BITS, ())) == {16}


def read(file: IO[bytes], name: str, page: int | None, *, max_pixels: int) -> Stored:
    """Its only image.

    Raises:
        InputError: it has no such page, or more pixels than ``max_pixels`` (0: Pillow's limit).
        OSError: it is damaged.
    """
    with open_image(file, name, page, max_pixels) as image:
        image.load()  # fails where the file is damaged, which OpenCV fills
        orientation = 1 if image.format == "TIFF" else find_orientation(image)  # OpenCV turns TIFF files itself
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        raise InputError(f"{name}: OpenCV cannot read its colours of 16 bits")
    values = turn_array(values[:, :, [2, 1, 0, 3][: values.shape[2]]], orientation)  # OpenCV has BGR
    return Stored(values, is_colour=True, has_opacity=values.shape[2] == 4)
