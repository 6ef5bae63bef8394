"""Images read with OpenCV and resized with torch: the pixels of Detectron2's way over PIL, in a third of the time."""

from __future__ import annotations

import io
import os
from typing import IO

import cv2
import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.utils.file_io import PathManager
from fvcore.transforms.transform import TransformList
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from resnet_det.images import settings
from resnet_det.images.image_input import PICTURE, ImageInput
from resnet_det.images.pages import split_page
from resnet_det.images.pillow import ORIENTATION, allow_pixels
from resnet_det.images.reader import decode_image, told_as_input_error

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def read_image(file_name: str, image_input: ImageInput, *, max_pixels: int | None = None) -> np.ndarray:
    """An image file as (H, W, C), the same as by :func:`resnet_det.images.reader.read_image`, and with the same errors.

    OpenCV decodes upright 8-bit JPEG files in BGR or RGB, for which it gives PIL's pixels: both use libjpeg-turbo. All
    other files and formats are left to that function; for PNG files OpenCV is no faster.
    """
    with PathManager.open(split_page(file_name)[0], "rb") as file:
        return _decode(file, file_name, image_input, settings.max_pixels if max_pixels is None else max_pixels)


def read_taken(name: str | os.PathLike[str]) -> np.ndarray:
    """An image file, or a page of one, as predictors take it: (H, W, C), by default uint8 in BGR order; what else
    ``settings.image_input`` says.

    Raises:
        InputError: it is missing, not an image, damaged, has too many pixels or other channels.
    """
    with told_as_input_error(name):
        return np.ascontiguousarray(read_image(str(name), settings.image_input.taken))


def decode_taken(file: IO[bytes], name: str) -> np.ndarray:
    """The same of an open file that is called ``name``, such as one in an archive."""
    with told_as_input_error(name):
        return np.ascontiguousarray(_decode(file, name, settings.image_input.taken, settings.max_pixels))


def read_bgr(name: str | os.PathLike[str]) -> np.ndarray:
    """An image file, or a page of one, to look at: (H, W, 3) uint8 in BGR order, turned as its EXIF data say.

    Raises:
        InputError: it is missing, not an image, or damaged, or has too many pixels.
    """
    with told_as_input_error(name):
        return settings.image_input.to_picture(read_image(str(name), settings.image_input.of_pictures))


def decode_bgr(data: bytes, name: str) -> np.ndarray:
    """The same from the bytes of a file that is called ``name``, such as one in an archive."""
    shown = settings.image_input
    with told_as_input_error(name):
        return shown.to_picture(_decode(io.BytesIO(data), name, shown.of_pictures, settings.max_pixels))


def _decode(file: IO[bytes], name: str, image_input: ImageInput, limit: int) -> np.ndarray:
    image = None
    if image_input.format in ("BGR", "RGB", PICTURE) and file.read(len(JPEG_START)) == JPEG_START:
        image = _decode_jpeg(JPEG_START + file.read(), image_input.format, limit)
    file.seek(0)
    if image is None:
        return decode_image(file, name, image_input, max_pixels=limit)
    return image.astype(np.float32) if image_input.dtype == "float32" else image


def _decode_jpeg(data: bytes, image_format: str, limit: int) -> np.ndarray | None:
    """None for what OpenCV would read in another way than PIL does.

    It fills what is missing of a file that is cut off with grey, where PIL fails; such a file lacks the marker at its
    end.
    """
    if not (data.startswith(JPEG_START) and data.endswith(JPEG_END)):
        return None
    try:
        with allow_pixels(limit), Image.open(io.BytesIO(data)) as header:  # reads no pixels
            is_plain = header.format == "JPEG" and header.mode in ("L", "RGB")
            is_small = not limit or header.width * header.height <= limit
            is_upright = header.getexif().get(ORIENTATION, 1) not in range(2, 9)
    except Exception:  # Detectron2 says what is wrong with it, or reads it all the same
        return None
    if not (is_plain and is_upright and is_small):
        return None
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if image is None or image_format != "RGB":
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class ImageAugInput(T.AugInput):
    """Detectron2's AugInput, which resizes ``image`` well whatever its channels and type; the transforms stay
    Detectron2's."""

    is_fast = False

    def transform(self, tfm: T.Transform) -> None:
        if type(tfm) is TransformList:
            for part in tfm.transforms:
                self.transform(part)
            return
        self.image = apply_to_image(tfm, self.image, fast=self.is_fast)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)


class FastAugInput(ImageAugInput):
    """The same, which resizes all images in a faster way."""

    is_fast = True


def apply_to_image(tfm: T.Transform, image: np.ndarray, *, fast: bool = False) -> np.ndarray:
    """``tfm.apply_image(image)``, where Detectron2 resizes with the filter that it has for photographs.

    Images of other than 1 or 3 channels it resizes as if the last were opacity, or not at all, and those that are not
    of uint8 without looking at all pixels that make up a new one: these are resized by torch.

    Args:
        fast: all images are.
    """
    if type(tfm) is not T.ResizeTransform or tfm.interp != Image.BILINEAR or image.ndim != 3:
        return tfm.apply_image(image)
    if fast or image.dtype != np.uint8 or image.shape[2] not in (1, 3):
        return resize_image(image, tfm.new_h, tfm.new_w)
    return tfm.apply_image(image)


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image (H, W, C), uint8 or float32, as PIL does: bilinear, and over all pixels that make up a new one
    when shrinking.

    Why torch and not OpenCV: its INTER_AREA is a box filter, whose pixels differ from PIL's by 0.8 to 2 levels on
    average when shrinking photographs, and its INTER_LINEAR has no such filter at all. Torch computes PIL's filter, to
    the rounding, and is faster than INTER_AREA. (INTER_LINEAR is faster still when enlarging, by 0.3 ms an image.)
    """
    pixels = torch.from_numpy(np.require(image, requirements=("C", "W"))).unsqueeze(0).permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, (int(height), int(width)), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def to_tensor(image: np.ndarray) -> Tensor:
    """An image (H, W, C) as a tensor (C, H, W) with its own memory.

    Why not torch or NumPy alone: OpenCV splits channels five times as fast, and flips five times as fast. A flipped
    image comes as a view with steps below zero; it is split as it lies in memory, and its channels are flipped.
    """
    if image.ndim != 3 or image.shape[2] == 1:
        return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
    flips = [axis for axis in (0, 1) if image.strides[axis] < 0]
    planes = np.empty((image.shape[2], *image.shape[:2]), dtype=image.dtype)
    cv2.split(np.ascontiguousarray(np.flip(image, flips)), list(planes))
    for axis in flips:
        for plane in planes:
            cv2.flip(plane, axis, dst=plane)
    return torch.from_numpy(planes)
